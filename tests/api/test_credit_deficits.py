"""Deficits: what of a credit cannot be taken back, the subscription owes."""

from datetime import timedelta
from typing import Any

import pytest

from billing.domain.money import MAX_AMOUNT_MINOR
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.billing_runs import APRIL, MAY
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import Adjusted, adjust_credit
from tests.factories.customers import Customer, Owed, lines_of, new_customer
from tests.factories.ledger_moves import Move, moves, nothing_written, sources_of
from tests.factories.refusals import refusal_of

DAY = timedelta(days=1)


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def given(customer: Customer) -> str:
    """The id of a granted credit of 1000."""
    return (await customer.grant()).id


async def paid(customer: Customer) -> str:
    """The id of the credit of a top-up of 1000."""
    return (await customer.pay()).usage_credit_id


async def take(customer: Customer, usage_credit_id: str, amount: int) -> Adjusted:
    """Decrease a credit, at the cost of the subscription if there is not enough of it."""
    return await adjust_credit(customer.client, usage_credit_id, -amount, allow_deficit=True)


@pytest.mark.parametrize(
    ("make", "taker"), [(given, "promotional_expense"), (paid, "breakage")], ids=["given", "paid"]
)
async def test_a_deficit_is_charged_to_the_open_period_and_on_its_invoice(
    customer: Customer,
    make: Any,
    taker: str,
    invoicing: ReferenceInvoicingServer,
) -> None:
    usage_credit_id = await make(customer)
    adjustment, after = await take(customer, usage_credit_id, 1400)
    _, taken, deficit = await customer.entries()
    assert moves([taken, deficit]) == [
        Move("credit_balance_adjusted", -1000, "credit", taker),
        Move("credit_deficit_charged", -400, "receivable", "promotional_expense"),
    ]
    assert taken.ledger_transaction_id == deficit.ledger_transaction_id
    assert sources_of(deficit) == sources_of(taken)
    assert (taken.billing_period_id, deficit.billing_period_id) == ("", customer.period_id)
    assert (adjustment.amount_adjusted, adjustment.deficit_amount) == (1400, 400)
    assert after.remaining_amount == 0
    assert await customer.owed() == Owed(unbilled=400)
    await customer.bill()
    (invoice,) = customer.invoices(invoicing)
    lines = lines_of(invoice)
    assert lines["Credit taken back"] == 400
    assert invoice.total_amount == 1400
    assert await customer.owed() == Owed(invoiced=1400)
    await customer.bill(MAY + DAY)
    assert "Credit taken back" not in lines_of(customer.invoices(invoicing)[-1])


async def test_a_credit_of_which_nothing_is_left_has_a_deficit_alone(customer: Customer) -> None:
    usage_credit_id = await given(customer)
    await take(customer, usage_credit_id, 1000)
    adjustment, _ = await take(customer, usage_credit_id, 50)
    assert (adjustment.amount_adjusted, adjustment.deficit_amount) == (50, 50)
    assert moves(await customer.entries(since=2)) == [
        Move("credit_deficit_charged", -50, "receivable", "promotional_expense")
    ]


async def test_deficits_of_one_period_are_one_line_and_paid_credit_covers_them(
    customer: Customer, invoicing: ReferenceInvoicingServer
) -> None:
    for _ in range(2):
        usage_credit_id = await given(customer)
        await take(customer, usage_credit_id, 1030)
    await customer.pay(1020)
    assert (await customer.owed()).unbilled == 60
    await customer.bill()
    lines = lines_of(customer.invoices(invoicing)[0])
    assert (lines["Credit taken back"], lines["Credits applied"]) == (60, -1020)
    assert await customer.owed() == Owed(invoiced=40)


async def test_while_a_run_is_late_a_deficit_is_for_the_period_that_waits(
    customer: Customer, invoicing: ReferenceInvoicingServer
) -> None:
    usage_credit_id = await given(customer)
    customer.clock.set(APRIL + 3 * DAY)
    await customer.use(1)
    await take(customer, usage_credit_id, 1007)
    assert (await customer.entries())[-1].billing_period_id == customer.period_id
    await customer.bill(APRIL + 4 * DAY)
    assert lines_of(customer.invoices(invoicing)[0])["Credit taken back"] == 7


async def test_of_a_cancelled_subscription_a_deficit_is_owed_for_the_last_period(
    customer: Customer, invoicing: ReferenceInvoicingServer
) -> None:
    usage_credit_id = await given(customer)
    await customer.client.cancel(customer.subscription_id, immediately=True)
    before = await customer.owed()
    (invoice,) = customer.invoices(invoicing)
    await take(customer, usage_credit_id, 1070)
    assert (await customer.entries())[-1].billing_period_id == customer.period_id
    assert await customer.owed() == before._replace(
        invoiced=before.invoiced + 70, credit_balance=0, available_credit=0
    )
    assert customer.invoices(invoicing) == [invoice], "an invoice never changes"


async def test_a_deficit_that_no_invoice_can_hold_is_refused(customer: Customer) -> None:
    usage_credit_id = await given(customer)
    await take(customer, usage_credit_id, 1000)
    await take(customer, usage_credit_id, MAX_AMOUNT_MINOR)
    async with nothing_written(customer.client, customer.subscription_id):
        refusal = await refusal_of(take(customer, usage_credit_id, 1))
    assert refusal.kind == ("FAILED_PRECONDITION", "AMOUNT_OUT_OF_RANGE")
    assert refusal.metadata["amount"] == str(MAX_AMOUNT_MINOR + 1)
