"""What the invoicing service is asked for, line by line."""

from datetime import date

import pytest
from google.type.date_pb2 import Date

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import catalog_pb2, ledger_pb2
from invoicing.v1 import invoicing_pb2
from tests.factories.billing_runs import (
    COMPLETED,
    FEBRUARY,
    MARCH,
    SUCCEEDED,
    due_subscriptions,
    metered_plan,
)
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

MID_FEBRUARY = FEBRUARY.replace(day=14)


def lines_of(invoice: invoicing_pb2.Invoice) -> list[tuple[str, str, str, int]]:
    """Description, quantity, unit price and amount of each line."""
    return [
        (line.description, line.quantity.value, line.unit_price.value, line.amount)
        for line in invoice.line_items
    ]


def day(message: Date) -> date:
    return date(message.year, message.month, message.day)


async def only_invoice(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> invoicing_pb2.Invoice:
    [invoice] = invoices_of(invoicing, client)
    return invoice


async def test_an_invoice_shows_the_recurring_and_the_usage_charge(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "Charge Calculation", to the word."""
    plan = await metered_plan(client, unit_price="0.5", included="1000")
    subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY, customer_id="cus-9")
    await client.use(subscription.id, plan.meter_id, "2500", MID_FEBRUARY)

    run = await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert lines_of(invoice) == [
        ("Monthly subscription - Pro Plan", "1", "2000", 2000),
        ("API Calls (1,500 over 1,000 included)", "1500", "0.5", 750),
    ]
    assert (invoice.total_amount, invoice.currency) == (2750, "USD")
    assert invoice.customer_id == "cus-9"
    assert (invoice.tenant_id, invoice.livemode) == (client.tenant_id, True)
    assert invoice.subscription_id == subscription.id
    assert (moment(invoice.period_start), moment(invoice.period_end)) == (FEBRUARY, MARCH)
    [result] = run.results
    assert invoice.idempotency_key == result.billing_period_id
    assert (result.invoice_id, result.total_amount) == (invoice.id, invoice.total_amount)
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_an_invoice_is_due_30_days_from_its_issue(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "due_date: calculate_due_date(30), // 30 days from issue"."""
    await due_subscriptions(client, 1)

    await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert day(invoice.issue_date) == date(2026, 3, 15)
    assert day(invoice.due_date) == date(2026, 4, 14)


async def test_usage_lines_are_shown_even_at_zero(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    included = await metered_plan(client, unit_price="2", included="1000")
    within = await client.subscribe(included.plan_id, started_at=FEBRUARY)
    await client.use(within.id, included.meter_id, "1000", MID_FEBRUARY)
    unused = await client.subscribe(included.plan_id, started_at=FEBRUARY)

    await client.run_billing()

    for subscription in (within, unused):
        [invoice] = invoices_of(invoicing, client, subscription.id)
        assert lines_of(invoice)[1] == ("API Calls (0 over 1,000 included)", "0", "2", 0)
        assert invoice.total_amount == 2000
    await assert_ledger_explains(client, invoicing, within.id, unused.id)


async def test_without_a_base_price_usage_alone_is_invoiced_even_at_zero(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    plan = await metered_plan(client, base_price_amount=0, included="0")
    subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)

    run = await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert lines_of(invoice) == [("API Calls (0)", "0", "2", 0)]
    assert invoice.total_amount == 0
    assert run.results[0].invoice_id == invoice.id
    assert await client.entries(subscription.id) == []
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_with_no_lines_there_is_no_invoice_and_the_period_still_closes(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1, base_price_amount=0)

    run = await client.run_billing("run-1")

    assert run.status == COMPLETED
    [result] = run.results
    assert (result.status, result.invoice_id, result.total_amount) == (SUCCEEDED, "", 0)
    assert result.calculation_run_id
    assert invoices_of(invoicing, client) == []
    moved = await client.get_subscription(subscription.id)
    assert moment(moved.current_period_start) == MARCH
    assert list((await client.run_billing("run-2")).results) == []
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_components_come_in_the_order_of_the_plan_with_their_own_prices(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    meters = [await client.create_meter(code) for code in ("calls", "tokens", "storage")]
    plan_id = await client.create_plan(
        name="Scale",
        base_price_amount=9900,
        components=[
            component(meters[2], name="Storage", unit_price="1.25", included="10.5"),
            component(meters[0], name="Calls", unit_price="0.015", included="0"),
            component(meters[1], name="Tokens", unit_price="0.000001", included="250000"),
        ],
    )
    subscription = await client.subscribe(plan_id, started_at=FEBRUARY)
    await client.ingest(
        [
            usage_event(subscription.id, meters[0], "1234567", MID_FEBRUARY),
            usage_event(subscription.id, meters[2], "12.75", MID_FEBRUARY),
            usage_event(subscription.id, meters[1], "250001", MID_FEBRUARY),
        ]
    )

    await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert lines_of(invoice) == [
        ("Monthly subscription - Scale", "1", "9900", 9900),
        ("Storage (2.25 over 10.5 included)", "2.25", "1.25", 3),  # 2.8125
        ("Calls (1,234,567)", "1234567", "0.015", 18519),  # 18518.505
        ("Tokens (1 over 250,000 included)", "1", "0.000001", 0),
    ]
    assert invoice.total_amount == 9900 + 3 + 18519
    await assert_ledger_explains(client, invoicing, subscription.id)


UNIT = catalog_pb2.BillingIntervalUnit


@pytest.mark.parametrize(
    ("unit", "count", "label"),
    [
        (UNIT.BILLING_INTERVAL_UNIT_DAY, 1, "Daily"),
        (UNIT.BILLING_INTERVAL_UNIT_WEEK, 1, "Weekly"),
        (UNIT.BILLING_INTERVAL_UNIT_YEAR, 1, "Yearly"),
        (UNIT.BILLING_INTERVAL_UNIT_MONTH, 3, "3-month"),
    ],
)
async def test_the_recurring_line_names_the_interval(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    unit: catalog_pb2.BillingIntervalUnit.ValueType,
    count: int,
    label: str,
) -> None:
    interval = catalog_pb2.BillingInterval(unit=unit, count=count)
    [subscription] = await due_subscriptions(client, 1, started_at=clock.now, interval=interval)
    clock.set(moment(subscription.current_period_end))

    await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert lines_of(invoice) == [(f"{label} subscription - Pro Plan", "1", "2000", 2000)]


async def test_currencies_go_their_own_ways_in_one_run(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    subscriptions = []
    for currency, price in (("USD", 2000), ("EUR", 1800), ("JPY", 300)):
        subscriptions += await due_subscriptions(
            client, 1, currency=currency, base_price_amount=price
        )

    run = await client.run_billing()

    assert {(r.currency, r.total_amount) for r in run.results} == {
        ("USD", 2000),
        ("EUR", 1800),
        ("JPY", 300),
    }
    assert {(i.currency, i.total_amount) for i in invoices_of(invoicing, client)} == {
        (r.currency, r.total_amount) for r in run.results
    }
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_prices_far_below_a_cent_lose_nothing(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """The issue: 10,000 events of 1 unit at 0.015 cents are 150 cents, and so says the ledger."""
    plan = await metered_plan(client, base_price_amount=0, unit_price="0.015", included="0")
    subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
    for _ in range(5):
        answer = await client.ingest(
            [usage_event(subscription.id, plan.meter_id, "1", MID_FEBRUARY) for _ in range(2000)]
        )
        assert answer.accepted_count == 2000

    await client.run_billing()

    invoice = await only_invoice(client, invoicing)
    assert lines_of(invoice) == [("API Calls (10,000)", "10000", "0.015", 150)]
    assert invoice.total_amount == 150
    entries = await client.entries(subscription.id)
    assert len(entries) == 10_000
    assert {entry.entry_type for entry in entries} == {ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST}
    assert {entry.amount for entry in entries} == {0, -1}
    assert sum(entry.amount for entry in entries) == -150
    await assert_ledger_explains(client, invoicing, subscription.id)
