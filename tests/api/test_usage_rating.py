"""Usage is rated as it arrives, and adds up to the invoice line to the cent, whatever the order."""

import asyncio
import random
from datetime import datetime, timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import usage_pb2 as pb
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.usage import (
    SUBSCRIBED_AT,
    MeteredSubscription,
    metered_subscription,
    outcomes_of,
)

A_MOMENT = timedelta(microseconds=1)
RATED = pb.USAGE_EVENT_DISPOSITION_RATED
RATED_LATE = pb.USAGE_EVENT_DISPOSITION_RATED_LATE


async def costs_of(metered: MeteredSubscription) -> list[int]:
    return [event.cost_amount for event in await metered.stored()]


async def period_end(metered: MeteredSubscription) -> datetime:
    subscription = await metered.client.get_subscription(metered.subscription_id)
    return moment(subscription.current_period_end)


@pytest.mark.parametrize(
    ("unit_price", "included", "quantities", "costs"),
    [
        ("2", "0", ["3", "0", "0.25"], [6, 0, 1]),
        ("0.5", "0", ["1", "1", "1", "1"], [1, 0, 1, 0]),
        ("0.015", "0", ["33", "1", "66"], [0, 1, 1]),
        ("1.5", "1000", ["999", "1", "1", "1", "10"], [0, 0, 2, 1, 15]),
        ("0", "0", ["1000000"], [0]),
        ("1", "0.5", ["0.5", "0.49", "0.01"], [0, 0, 1]),
    ],
)
async def test_an_event_costs_what_it_adds_to_the_charge(
    client: BillingClient,
    unit_price: str,
    included: str,
    quantities: list[str],
    costs: list[int],
) -> None:
    metered = await metered_subscription(client, unit_price=unit_price, included=included)
    half = len(quantities) // 2
    for part in (quantities[:half], quantities[half:]):
        if part:
            await metered.send(*[metered.event(quantity) for quantity in part])
    assert await costs_of(metered) == costs
    entries = await client.entries(metered.subscription_id)
    assert [-entry.amount for entry in entries] == costs
    assert (await client.balance(metered.subscription_id)).unbilled_amount == sum(costs)


@pytest.mark.parametrize("seed", range(3))
async def test_sub_cent_costs_add_up_in_any_order_of_arrival(
    client: BillingClient, seed: int
) -> None:
    rng = random.Random(seed)
    quantities = [f"{rng.randint(0, 9)}.{rng.randint(0, 999):03}" for _ in range(60)]
    thousandths = sum(int(quantity.replace(".", "")) for quantity in quantities)
    charge = (thousandths * 37 + 500_000) // 1_000_000  # at 0.037, rounded half-up
    metered = await metered_subscription(client, unit_price="0.037")
    events = [
        metered.event(quantity, at=START - timedelta(hours=rng.randint(0, 200)))
        for quantity in quantities
    ]
    rng.shuffle(events)
    while events:
        size = rng.randint(1, 20)
        sent, events = events[:size], events[size:]
        await metered.send(*sent)
    costs = await costs_of(metered)
    assert sum(costs) == charge
    assert min(costs) >= 0
    assert (await client.balance(metered.subscription_id)).unbilled_amount == charge


async def test_ten_thousand_events_at_a_fraction_of_a_cent_are_an_exact_line(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await metered_subscription(client, unit_price="0.015")
    for _ in range(2):
        answer = await client.ingest([metered.event() for _ in range(5000)])
        assert answer.accepted_count == 5000
    entries = await client.entries(metered.subscription_id)
    assert len(entries) == 10_000
    assert sum(entry.amount for entry in entries) == -150
    clock.advance(days=40)
    await client.run_billing()
    (invoice,) = invoices_of(invoicing, client)
    (line,) = invoice.line_items
    assert (line.description, line.amount) == ("API Calls (10,000)", 150)
    rows, token = await metered.page(page_size=2**31 - 1)
    assert len(rows) == 1000
    assert token


async def test_concurrent_calls_telescope_exactly(client: BillingClient) -> None:
    metered = await metered_subscription(client, unit_price="0.37", included="10")
    calls = [metered.send(*[metered.event("0.7") for _ in range(25)]) for _ in range(12)]
    await asyncio.gather(*calls)
    charge = 74  # 300 x 0.7 = 210 units, 200 of them at 0.37
    assert sum(await costs_of(metered)) == charge
    assert (await client.balance(metered.subscription_id)).unbilled_amount == charge


async def test_components_and_periods_count_for_themselves(
    client: BillingClient, clock: FakeClock
) -> None:
    meters = [await client.create_meter(code) for code in ("api_calls", "storage")]
    plan_id = await client.create_plan(
        components=[
            component(meters[0], unit_price="1", included="10"),
            component(meters[1], unit_price="1", included="10"),
        ]
    )
    subscription = await client.subscribe(plan_id, started_at=SUBSCRIBED_AT)
    end = moment(subscription.current_period_end)
    clock.set(end)
    results = (
        await client.ingest(
            [
                usage_event(subscription.id, meter_id, "11", at)
                for meter_id in meters
                for at in (end - A_MOMENT, end)
            ]
        )
    ).results
    assert outcomes_of(results) == ["accepted"] * 4
    entries = await client.entries(subscription.id)
    assert [entry.amount for entry in entries] == [-1] * 4
    assert len({(entry.billing_period_id, entry.usage_meter_id) for entry in entries}) == 4


async def test_an_event_ahead_of_the_servers_clock_opens_nothing(
    client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, included="1", unit_price="2")
    end = await period_end(metered)
    clock.set(end - timedelta(minutes=30))
    results = await metered.send(
        metered.event("5", at=end - A_MOMENT), metered.event("5", at=end + timedelta(minutes=10))
    )
    now, ahead = [await metered.get(result.usage_event_id) for result in results]
    assert now.billing_period_id == ahead.billing_period_id
    assert (now.disposition, ahead.disposition) == (RATED, RATED)
    assert (now.cost_amount, ahead.cost_amount) == (8, 10)
    cancelled = await client.cancel(metered.subscription_id)
    assert moment(cancelled.subscription.cancel_at) == end
    clock.set(end)
    (result,) = (await client.run_billing()).results
    assert (result.billing_period_id, result.total_amount) == (now.billing_period_id, 18)


async def test_events_open_every_period_up_to_their_own(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await metered_subscription(client, base_price_amount=100)
    clock.advance(days=100)
    moments = [clock.now, SUBSCRIBED_AT, SUBSCRIBED_AT + timedelta(days=40)]
    results = await metered.send(*[metered.event(at=at) for at in moments])
    assert outcomes_of(results) == ["accepted"] * 3
    events = await metered.stored()
    assert {event.disposition for event in events} == {RATED}
    assert len({event.billing_period_id for event in events}) == 3
    totals = [result.total_amount for result in (await client.run_billing()).results]
    assert totals == [102, 102, 100]
    assert (await client.balance(metered.subscription_id)).unbilled_amount == 2
    await assert_ledger_explains(client, invoicing, metered.subscription_id)


async def test_a_late_event_is_counted_in_the_oldest_open_period(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await metered_subscription(client, unit_price="1", included="2")
    end = await period_end(metered)
    await metered.send(metered.event("3", at=START))
    clock.set(end + timedelta(days=5))
    await client.run_billing()
    (billed,) = invoices_of(invoicing, client)
    results = await metered.send(
        metered.event("2", at=end - A_MOMENT),
        metered.event("1", at=end),
        metered.event("1", at=SUBSCRIBED_AT),
    )
    late, on_time, oldest = [await metered.get(result.usage_event_id) for result in results]
    open_period = (await client.get_subscription(metered.subscription_id)).current_period_id
    assert {event.billing_period_id for event in (late, on_time, oldest)} == {open_period}
    assert [event.disposition for event in (late, on_time, oldest)] == [
        RATED_LATE,
        RATED,
        RATED_LATE,
    ]
    assert [event.cost_amount for event in (late, on_time, oldest)] == [0, 1, 1]
    assert moment(late.event_timestamp) == end - A_MOMENT
    assert invoices_of(invoicing, client) == [billed]
    await assert_ledger_explains(client, invoicing, metered.subscription_id)
    clock.advance(days=40)
    await client.run_billing("run-2")
    assert [invoice.total_amount for invoice in invoices_of(invoicing, client)] == [1, 2]


async def test_usage_beside_a_billing_run_is_billed_once(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await metered_subscription(client, unit_price="1")
    end = await period_end(metered)
    clock.set(end + timedelta(hours=1))
    moments = [end - timedelta(minutes=number) for number in range(1, 21)]
    running = asyncio.create_task(client.run_billing())
    answers = await asyncio.gather(*[metered.send(metered.event(at=at)) for at in moments])
    assert (await running).failed_count == 0
    assert outcomes_of(result for (result,) in answers) == ["accepted"] * 20
    balance = await client.balance(metered.subscription_id)
    assert balance.outstanding_amount == 20
    (invoice,) = invoices_of(invoicing, client)
    assert invoice.total_amount == balance.invoiced_amount == 20 - balance.unbilled_amount
    await assert_ledger_explains(client, invoicing, metered.subscription_id)
