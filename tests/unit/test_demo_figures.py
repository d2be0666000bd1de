"""What the demonstration foresees and prints is computed from prices and entries alone."""

import pytest

from billing.sandbox.demo_credits import CreditCustomer
from billing.sandbox.demo_report import CreditFigures, figure, net_amount
from billing.sandbox.sample_data import SampleComponent, SamplePlan
from billing.v1 import ledger_pb2

RECEIVABLE = ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
CREDIT = ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT
CLEARING = ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING
CASH = ledger_pb2.LEDGER_ACCOUNT_KIND_CASH
REVENUE = ledger_pb2.LEDGER_ACCOUNT_KIND_USAGE_REVENUE


def entry(
    amount: int,
    debit: ledger_pb2.LedgerAccountKind.ValueType,
    credit: ledger_pb2.LedgerAccountKind.ValueType,
) -> ledger_pb2.LedgerEntry:
    """An entry between two kinds of account."""
    return ledger_pb2.LedgerEntry(
        amount=amount, debit_account_kind=debit, credit_account_kind=credit
    )


def test_a_credit_that_pays_changes_no_net() -> None:
    entries = [
        entry(100, CASH, CREDIT),
        entry(-60, RECEIVABLE, REVENUE),
        entry(60, CREDIT, RECEIVABLE),
    ]
    assert net_amount(entries) == 40


def test_a_refund_counts_once_though_it_moves_through_the_clearing() -> None:
    entries = [
        entry(100, CASH, CREDIT),
        entry(-100, CLEARING, CASH),
        entry(-100, CREDIT, CLEARING),
    ]
    assert net_amount(entries) == 0


def test_the_net_is_what_there_is_less_what_is_owed() -> None:
    assert CreditFigures(credit=50, spendable=10, owed=80).net == -30


@pytest.mark.parametrize(
    ("calls", "cost"), [(0, 0), (10_000, 0), (10_045, 0), (10_046, 1), (50_000, 440)]
)
def test_calls_over_the_included_cost_their_price_halves_up(calls: int, cost: int) -> None:
    plan = SamplePlan("Plan", "EUR", 0, (SampleComponent("api_calls", "0.011", "10000"),), 1)
    assert CreditCustomer("sub_1", plan).cost_minor(calls) == cost


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (-5, "-0.05"), (123_456, "1,234.56"), (-100, "-1.00")]
)
def test_figures_are_told_in_whole_units_and_cents(amount: int, text: str) -> None:
    assert figure(amount) == text


def test_a_currency_without_cents_has_no_point() -> None:
    assert figure(1_015_252, digits=0) == "1,015,252"
