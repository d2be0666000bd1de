"""Lines about credits and prices, and balances: what contradicts the books is not explained."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from billing.domain import identifiers
from billing.domain.balance_explanations import (
    BalanceExplanation,
    BalanceMovement,
    ExplainedTransaction,
)
from billing.domain.billing import ChargeType
from billing.domain.charges import KeptCharge
from billing.domain.credit_explanations import (
    CreditUse,
    ExplainedApplication,
    ExplainedDeficit,
    ExplainedSurplus,
    explain_carried,
    explain_credit,
    explain_deficit,
)
from billing.domain.credits import CreditApplicationKind, UsageCreditType
from billing.domain.explanations import InvoicedPeriod, explain_charge, explain_recurring
from billing.domain.ledger import Balance, LedgerEntryType, LedgerSourceType
from billing.domain.proofs import ExplainedEntry, FiguresContradict
from billing.domain.recalculations import (
    Recalculation,
    RecalculationDocument,
    RecalculationDocumentKind,
)
from tests.factories.domain import a_version, open_periods_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RUN = identifiers.new_id()
VERSION = a_version()
PERIOD = open_periods_of(VERSION).oldest


def a_line(
    charge_type: ChargeType, amount_minor: int, recalculation_id: UUID | None = None
) -> KeptCharge:
    return KeptCharge(
        id=identifiers.new_id(),
        subscription_id=PERIOD.subscription_id,
        billing_period_id=PERIOD.id,
        billing_run_id=None if recalculation_id else RUN,
        recalculation_id=recalculation_id,
        calculation_run_id=recalculation_id or RUN,
        charge_type=charge_type,
        component_id=None,
        description="Line",
        quantity=Decimal(1),
        unit_price=Decimal(amount_minor),
        amount_minor=amount_minor,
        currency="USD",
        created_at=NOW,
    )


def an_entry(amount_minor: int) -> ExplainedEntry:
    return ExplainedEntry(identifiers.new_id(), identifiers.new_id(), amount_minor, NOW)


def a_use(
    applied_minor: int, reversed_minor: int = 0, *, told_minor: int | None = None
) -> CreditUse:
    application = ExplainedApplication(
        identifiers.new_id(),
        CreditApplicationKind.RUN,
        None,
        None,
        None,
        applied_minor if told_minor is None else told_minor,
        reversed_minor,
        0,
        NOW,
        identifiers.new_id(),
    )
    return CreditUse(
        identifiers.new_id(),
        UsageCreditType.GRANTED_PROMO,
        "",
        None,
        applied_minor,
        reversed_minor,
        0,
        1,
        (application,),
    )


def a_deficit(amount_minor: int) -> ExplainedDeficit:
    return ExplainedDeficit(
        identifiers.new_id(),
        identifiers.new_id(),
        None,
        2 * amount_minor,
        "",
        an_entry(-amount_minor),
    )


def a_recalculation(*document_amounts: int, surplus_minor: int = 0) -> Recalculation:
    recalculation_id = identifiers.new_id()
    return Recalculation(
        recalculation_id,
        PERIOD.subscription_id,
        PERIOD.id,
        identifiers.new_id(),
        "USD",
        "wrong",
        0,
        0,
        0,
        0,
        0,
        surplus_minor,
        NOW,
        tuple(
            RecalculationDocument(
                identifiers.new_id(),
                recalculation_id,
                RecalculationDocumentKind.INVOICE,
                amount,
                "USD",
                "",
                "",
                None,
                "",
            )
            for amount in document_amounts
        ),
    )


def test_credits_are_the_line_with_the_other_sign() -> None:
    line = a_line(ChargeType.CREDIT, -30)
    assert explain_credit(line, [a_use(25), a_use(10, 5)]).credit_uses[1].paid_minor == 5
    with pytest.raises(FiguresContradict, match="line 30, applications 31"):
        explain_credit(line, [a_use(31)])


def test_applications_are_their_credits_sums_where_all_are_there() -> None:
    with pytest.raises(FiguresContradict, match="applied_minor"):
        a_use(10, told_minor=9)
    assert replace(a_use(10), applied_minor=500, application_count=21).paid_minor == 500


def test_a_deficit_has_the_first_so_many() -> None:
    first, second, later = a_deficit(5), a_deficit(7), a_deficit(9)
    line = a_line(ChargeType.CREDIT_DEFICIT, 12)
    assert explain_deficit(line, [first, second, later]).deficits == (first, second)
    for others in ([first], [first, later], [later, second]):
        with pytest.raises(FiguresContradict, match="deficits"):
            explain_deficit(line, others)


def test_what_a_run_carries_is_what_its_other_lines_are_below_zero() -> None:
    lines = [a_line(ChargeType.RECURRING, -500), a_line(ChargeType.USAGE, 200)]
    carried = a_line(ChargeType.CARRIED, 300)
    surplus = ExplainedSurplus(identifiers.new_id(), an_entry(340))
    explained = explain_carried(
        carried, [*lines, carried], surplus, paid_before_minor=40, recalculation=None
    )
    assert (explained.carried_before_minor, explained.carried_after_minor) == (0, 300)
    assert explained.surplus_minor == 340
    with pytest.raises(FiguresContradict, match="surplus"):
        explain_carried(carried, lines, surplus, paid_before_minor=0, recalculation=None)
    with pytest.raises(FiguresContradict, match="surplus"):
        explain_carried(carried, lines, None, paid_before_minor=0, recalculation=None)
    with pytest.raises(FiguresContradict, match="lines beside"):
        explain_carried(carried, lines[:1], surplus, paid_before_minor=40, recalculation=None)


def test_what_a_recalculation_carries_comes_on_top() -> None:
    recalculation = a_recalculation(surplus_minor=150)
    run = [a_line(ChargeType.RECURRING, -500), a_line(ChargeType.USAGE, 600)]
    change = a_line(ChargeType.USAGE, -600, recalculation.id)
    carried = a_line(ChargeType.CARRIED, 500, recalculation.id)
    surplus = ExplainedSurplus(identifiers.new_id(), an_entry(150))
    explained = explain_carried(
        carried,
        [*run, change, carried],
        surplus,
        paid_before_minor=0,
        recalculation=recalculation,
    )
    assert (explained.lines_before_minor, explained.lines_after_minor) == (100, -500)


def test_a_price_needs_its_entry() -> None:
    line = a_line(ChargeType.RECURRING, VERSION.base_price_minor)
    entry = an_entry(-VERSION.base_price_minor)
    assert explain_recurring(line, VERSION, [entry]).entry == entry
    for entries in ([], [an_entry(-VERSION.base_price_minor - 1)], [entry, entry]):
        with pytest.raises(FiguresContradict, match="prices"):
            explain_recurring(line, VERSION, entries)


def test_all_lines_of_a_period_come_to_its_total() -> None:
    lines = (a_line(ChargeType.USAGE, 200), a_line(ChargeType.CREDIT, -50))
    InvoicedPeriod(PERIOD, "", 150, lines, ())
    with pytest.raises(FiguresContradict, match="total 151, lines 150"):
        InvoicedPeriod(PERIOD, "", 151, lines, ())


def test_documents_come_to_the_lines_of_their_recalculation() -> None:
    explanation = explain_credit(a_line(ChargeType.CREDIT, 0), [])
    for amounts, is_sound in (((30,), True), ((40, -10), True), ((29,), False), ((), False)):
        recalculation = a_recalculation(*amounts)
        first = a_line(ChargeType.USAGE, 200)
        line = a_line(ChargeType.USAGE, 30, recalculation.id)
        invoiced = InvoicedPeriod(PERIOD, "", 230, (first, line), (recalculation,))
        assert invoiced.execution_number(first) == 0
        assert invoiced.execution_number(line) == 1
        assert invoiced.lines_up_to(first) == [first]
        assert explain_charge(first, invoiced, explanation).lines_minor == 200
        if is_sound:
            assert explain_charge(line, invoiced, explanation).lines_minor == 30
        else:
            with pytest.raises(FiguresContradict, match="documents"):
                explain_charge(line, invoiced, explanation)


def test_a_line_needs_its_recalculation() -> None:
    line = a_line(ChargeType.USAGE, 30, identifiers.new_id())
    with pytest.raises(FiguresContradict, match="recalculations"):
        InvoicedPeriod(PERIOD, "", 30, (line,), ()).execution_number(line)


def a_balance(outstanding_minor: int, credit_balance_minor: int) -> Balance:
    return Balance(
        PERIOD.subscription_id, "USD", outstanding_minor, 0, 0, credit_balance_minor, 0, NOW
    )


def a_movement(outstanding: int, credit_balance: int, *amounts: int) -> BalanceMovement:
    transactions = tuple(
        ExplainedTransaction(identifiers.new_id(), identifiers.new_id(), "", 1, amount, NOW)
        for amount in amounts
    )
    return BalanceMovement(
        LedgerEntryType.USAGE_COST,
        LedgerSourceType.USAGE_INGESTION,
        entry_count=len(amounts),
        transaction_count=2,
        amount_minor=-30,
        outstanding_change_minor=outstanding,
        credit_balance_change_minor=credit_balance,
        transactions=transactions,
    )


def test_movements_are_the_difference_of_two_balances() -> None:
    movements = (a_movement(30, 0, -10, -20), a_movement(-5, -5, -30))
    explained = BalanceExplanation(a_balance(10, 50), movements, a_balance(35, 45))
    assert [movement.net_change_minor for movement in explained.movements] == [-30, 0]
    for closing in (a_balance(36, 45), a_balance(35, 46), a_balance(36, 46)):
        with pytest.raises(FiguresContradict, match="movements of"):
            BalanceExplanation(a_balance(10, 50), movements, closing)


def test_transactions_are_their_movement_where_all_are_there() -> None:
    with pytest.raises(FiguresContradict, match="transactions of usage_cost"):
        a_movement(30, 0, -10, -21)
