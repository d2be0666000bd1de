"""Trees of explanations: lines about credits, which few invoices have; and narrow terminals."""

import io

from google.type.decimal_pb2 import Decimal
from rich.console import Console
from rich.tree import Tree

from billing.explainer.balance_tree import balance_tree
from billing.explainer.charge_tree import charge_tree
from billing.v1 import balance_explanation_pb2, calculation_pb2, charge_pb2, usage_credit_pb2
from billing.v1 import explanation_pb2 as pb

CHARGE = charge_pb2.Charge(
    id="charge_1", description="Line", amount=500, currency="USD", billing_run_id="run_1"
)


def shown(tree: Tree, width: int = 200) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(tree)
    return out.getvalue().splitlines()


def test_a_carried_line_names_the_surplus_and_what_became_of_payments() -> None:
    explained = pb.ChargeExplanation(
        charge=CHARGE,
        lines_amount=0,
        carried=pb.CarriedExplanation(
            lines_after_amount=-500,
            carried_after_amount=500,
            surplus_usage_credit_id="credit_1",
            surplus_amount=620,
            surplus_entry=pb.ExplainedEntry(id="entry_1", amount=620),
            paid_before_amount=120,
        ),
    )
    told = shown(charge_tree(explained))
    assert told[0] == "Line: 5.00 USD  charge_1"
    assert "├── the other lines now: -5.00 USD" in told
    assert "├── below zero: 0.00 USD before, 5.00 USD now" in told
    assert "├── payments had paid before: 1.20 USD" in told
    assert "└── surplus credit of 6.20 USD  credit_1" in told
    assert not [each for each in told if "recovered" in each or "released" in each]


def test_a_deficit_tells_what_should_have_been_taken() -> None:
    deficit = pb.ExplainedDeficit(
        usage_credit_id="credit_1",
        refund_id="refund_1",
        adjusted_amount=700,
        deficit_amount=500,
        reason="refund",
        entry=pb.ExplainedEntry(id="entry_1", amount=-500),
    )
    explained = pb.ChargeExplanation(
        charge=CHARGE, credit_deficit=pb.DeficitExplanation(deficits=[deficit])
    )
    told = shown(charge_tree(explained))
    assert "└── 5.00 USD of 7.00 USD could not be taken back: refund  credit_1, refund_1" in told
    assert told[-1].startswith("    └── entry -5.00 USD  entry_1")


def test_applications_beyond_the_first_are_counted() -> None:
    use = pb.CreditUse(
        usage_credit_id="credit_1",
        credit_type=usage_credit_pb2.USAGE_CREDIT_TYPE_PAYMENT_TOP_UP,
        applied_amount=500,
        reversed_amount=40,
        paid_amount=460,
        application_count=30,
        applications=[pb.ExplainedApplication(id="creditapp_1", applied_amount=5)],
    )
    explained = pb.ChargeExplanation(charge=CHARGE, credit=pb.CreditExplanation(credit_uses=[use]))
    told = shown(charge_tree(explained))
    assert "└── payment top up pays 4.60 USD: 5.00 USD less 0.40 USD taken back  credit_1" in told
    assert told[-1] == "    └── and 29 more applications: ListCreditApplications"


def test_documents_that_are_not_delivered_are_told() -> None:
    document = calculation_pb2.RecalculationDocument(
        kind=calculation_pb2.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE, amount=-500, currency="USD"
    )
    explained = pb.ChargeExplanation(
        charge=CHARGE, documents=[document], usage_change=pb.UsageChangeExplanation()
    )
    told = shown(charge_tree(explained))
    assert "│   └── credit note of -5.00 USD  not delivered yet" in told


def test_tiers_and_rounding() -> None:
    rating = pb.UsageRating(
        quantity=Decimal(value="160.5"),
        tiers=[
            pb.PriceTier(
                from_quantity=Decimal(value="0"),
                up_to_quantity=Decimal(value="100"),
                units=Decimal(value="100"),
            ),
            pb.PriceTier(
                from_quantity=Decimal(value="100"),
                units=Decimal(value="60.5"),
                unit_price=Decimal(value="0.015"),
                unrounded_amount=Decimal(value="0.9075"),
            ),
        ],
        rounding_residue_amount=Decimal(value="0.0925"),
        amount=1,
    )
    explained = pb.ChargeExplanation(charge=CHARGE, usage=pb.UsageExplanation(rating=rating))
    told = shown(charge_tree(explained))
    assert "├── priced: 160.5 units cost 0.01 USD" in told
    assert "│   ├── above 0 up to 100: 100 units at 0 USD = 0 USD" in told
    assert "│   ├── above 100: 60.5 units at 0.00015 USD = 0.009075 USD" in told
    assert "│   └── rounding 0.000925 USD" in told


def test_a_balance_that_nothing_moved() -> None:
    explained = balance_explanation_pb2.BalanceExplanation(currency="JPY", subscription_id="sub_1")
    told = shown(balance_tree(explained))
    assert told[0] == "the balance moved by +0 JPY  sub_1"
    assert "├── nothing was posted in between" in told


def test_transactions_beyond_the_first_are_counted() -> None:
    movement = balance_explanation_pb2.BalanceMovement(
        entry_type="usage_cost",
        initiating_source_type="usage_ingestion",
        entry_count=9,
        transaction_count=3,
        transactions=[balance_explanation_pb2.ExplainedTransaction(amount=-5)],
    )
    explained = balance_explanation_pb2.BalanceExplanation(currency="USD", movements=[movement])
    told = shown(balance_tree(explained))
    assert (
        "│   └── and 2 more transactions: ListLedgerEntries with the entry type "
        "LEDGER_ENTRY_TYPE_USAGE_COST"
    ) in told


def test_on_a_narrow_terminal_nothing_is_cut_off() -> None:
    charge = charge_pb2.Charge()
    charge.MergeFrom(CHARGE)
    charge.id = "charge_" + "0123456789" * 5
    tree = charge_tree(pb.ChargeExplanation(charge=charge))
    assert charge.id in "".join(part.strip() for part in shown(tree, width=30))
