"""Why a line of an invoice is what it is, down to usage events, credits and entries."""

import itertools
from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import charge_pb2, subscription_pb2, usage_credit_pb2
from tests.factories.client import BillingClient, component, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjust_credit
from tests.factories.credits import grant_credit
from tests.factories.explanations import (
    assert_adds_up,
    charges_of,
    explain,
    explain_whole,
    explained_lines,
)
from tests.factories.usage import MeteredSubscription, metered_subscription

DEFICIT = charge_pb2.CHARGE_TYPE_CREDIT_DEFICIT
PROMO = usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO
BEGAN = START - timedelta(days=40)
"""Its first period is over at START, its second began ten days ago."""


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """20.00 a month, 100 units included, then 0.015 a unit: far below a cent."""
    return await metered_subscription(
        client, unit_price="0.015", included="100", base_price_amount=2000, started_at=BEGAN
    )


async def test_the_lines_of_an_invoice_are_listed_and_explained(
    metered: MeteredSubscription, invoicing: ReferenceInvoicingServer
) -> None:
    client = metered.client
    at = BEGAN + timedelta(days=1)
    await metered.send(metered.event("60", at=at), metered.event("100.5", at=at))
    result = await client.run_for_subscription(metered.subscription_id)
    recurring, usage = await explained_lines(
        client, metered.subscription_id, result.billing_period_id
    )
    assert recurring.recurring.plan_id == metered.plan_id
    assert (recurring.recurring.plan_name, recurring.recurring.plan_version) == ("Pro Plan", 1)
    assert recurring.charge.amount == 2000
    assert usage.lines_amount == recurring.lines_amount == result.total_amount == 2001
    assert {line.invoice_id for line in (recurring, usage)} == {result.invoice_id}
    assert usage.charge.description == "API Calls (60.5 over 100 included)"
    rating = usage.usage.rating
    included, charged = rating.tiers
    assert [t.units.value for t in (included, charged)] == ["100", "60.5"]
    assert [t.unit_price.value for t in (included, charged)] == ["0", "0.015"]
    assert (rating.unrounded_amount.value, rating.rounding_residue_amount.value) == (
        "0.9075",
        "0.0925",
    )
    assert [event.cost_amount for event in usage.usage.usage_events] == [0, 1]
    assert usage.usage.component.name == "API Calls"
    assert not usage.usage.superseding_calculations


async def test_a_line_without_usage_is_explained_by_nothing(metered: MeteredSubscription) -> None:
    await metered.client.run_for_subscription(metered.subscription_id)
    _, usage = await explained_lines(metered.client, metered.subscription_id)
    assert usage.charge.amount == usage.usage.totals.event_count == 0
    assert [tier.units.value for tier in usage.usage.rating.tiers] == ["0", "0"]


async def test_thousands_of_events_come_in_pages_and_their_totals_on_each(
    metered: MeteredSubscription,
) -> None:
    client = metered.client
    moments = (BEGAN + timedelta(minutes=minute) for minute in itertools.count())
    for _ in range(3):
        events = [metered.event("7.003", at=next(moments)) for _ in range(1000)]
        await metered.send(*events)
    await client.run_for_subscription(metered.subscription_id)
    usage = next(c for c in await charges_of(client, metered.subscription_id) if c.component_id)
    first = await explain(client, usage.id, page_size=1000)
    assert len(first.explanation.usage.usage_events) == 1000
    assert first.explanation.usage.totals.event_count == 3000
    assert first.explanation.usage.totals.event_quantity.value == "21009"
    whole = await explain_whole(client, usage.id, page_size=700)
    assert_adds_up(whole)
    # (21009 - 100) * 0.015 = 313.635
    assert usage.amount == 314
    costs = [event.cost_amount for event in whole.usage.usage_events]
    assert set(costs) == {0, 1}
    stored = await metered.stored()
    assert [event.id for event in whole.usage.usage_events] == [event.id for event in stored]


async def test_late_events_stand_with_the_period_that_counts_them(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client = metered.client
    await client.run_for_subscription(metered.subscription_id)
    await metered.send(
        metered.event("200", at=BEGAN + timedelta(days=3)), metered.event("50", at=clock.now)
    )
    clock.advance(days=31)
    result = await client.run_for_subscription(metered.subscription_id, "single-2")
    _, usage = await explained_lines(client, metered.subscription_id, result.billing_period_id)
    assert [event.is_late for event in usage.usage.usage_events] == [True, False]
    assert usage.charge.amount == 2  # 150 * 0.015 = 2.25


async def test_each_component_has_its_own_events_and_credits(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    calls, bytes_ = await client.create_meter("calls"), await client.create_meter("bytes")
    plan_id = await client.create_plan(
        base_price_amount=0,
        components=[
            component(calls, name="Calls", unit_price="3"),
            component(bytes_, name="Bytes", unit_price="0.5"),
        ],
    )
    subscription = await client.subscribe(plan_id, started_at=BEGAN)
    promo = await grant_credit(
        client,
        subscription.id,
        10,
        usage_meter_id=bytes_,
        effective_at=BEGAN,
        expires_at=START + timedelta(days=90),
        source_reference_id="campaign-7",
    )
    general = await grant_credit(client, subscription.id, 8, effective_at=BEGAN)
    at = BEGAN + timedelta(days=2)
    await client.ingest(
        [
            usage_event(subscription.id, calls, "4", at),
            usage_event(subscription.id, bytes_, "25", at),
            usage_event(subscription.id, calls, "1", at),
        ]
    )
    await client.run_for_subscription(subscription.id)
    of_calls, of_bytes, of_credits = await explained_lines(client, subscription.id)
    assert [event.quantity.value for event in of_calls.usage.usage_events] == ["4", "1"]
    assert [event.quantity.value for event in of_bytes.usage.usage_events] == ["25"]
    assert of_calls.usage.rating.tiers[0].units.value == "5"  # nothing is included: one tier
    assert len(of_calls.usage.rating.tiers) == 1
    (by_general,) = of_calls.usage.credit_uses
    assert (by_general.usage_credit_id, by_general.paid_amount) == (general.id, 8)
    assert of_calls.usage.net_amount == 15 - 8
    (by_promo,) = of_bytes.usage.credit_uses
    assert by_promo.usage_credit_id == promo.id
    assert (by_promo.credit_type, by_promo.source_reference_id) == (PROMO, "campaign-7")
    assert by_promo.expires_at == promo.expires_at
    assert of_bytes.usage.net_amount == 13 - 10
    assert of_credits.charge.amount == -18
    assert {use.usage_credit_id: use.paid_amount for use in of_credits.credit.credit_uses} == {
        promo.id: 10,
        general.id: 8,
    }


async def test_credits_that_pay_at_once_are_summed_and_the_first_are_told(
    client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, started_at=BEGAN)
    plan_subscription = await client.subscribe(
        metered.plan_id,
        started_at=BEGAN,
        credit_application=subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME,
    )
    await grant_credit(client, plan_subscription.id, 1000, effective_at=BEGAN)
    for minute in range(30):
        await client.use(
            plan_subscription.id, metered.meter_id, "1", BEGAN + timedelta(minutes=minute)
        )
    await client.run_for_subscription(plan_subscription.id)
    usage, credit = await explained_lines(client, plan_subscription.id)
    (use,) = usage.usage.credit_uses
    assert (use.application_count, len(use.applications), use.paid_amount) == (30, 20, 60)
    assert credit.charge.amount == -60


async def test_a_deficit_is_explained_by_the_adjustments_that_found_too_little(
    client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, started_at=BEGAN, base_price_amount=500)
    spent = await grant_credit(client, metered.subscription_id, 40, effective_at=BEGAN)
    await metered.send(metered.event("30", at=BEGAN + timedelta(days=1)))
    await client.run_for_subscription(metered.subscription_id)
    other = await grant_credit(client, metered.subscription_id, 5, effective_at=BEGAN)
    await adjust_credit(client, spent.id, -40, allow_deficit=True)
    await adjust_credit(client, other.id, -7, allow_deficit=True)
    clock.advance(days=31)
    result = await client.run_for_subscription(metered.subscription_id, "single-2")
    explained = await explained_lines(client, metered.subscription_id, result.billing_period_id)
    deficit = next(e for e in explained if e.charge.charge_type == DEFICIT)
    assert deficit.charge.amount == 42
    told = [
        (each.usage_credit_id, each.adjusted_amount, each.deficit_amount)
        for each in deficit.credit_deficit.deficits
    ]
    assert told == [(spent.id, 40, 40), (other.id, 7, 2)]


async def test_a_deficit_after_the_last_invoice_is_on_no_line(
    client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, started_at=BEGAN, base_price_amount=500)
    spent = await grant_credit(client, metered.subscription_id, 40, effective_at=BEGAN)
    await metered.send(metered.event("30", at=BEGAN + timedelta(days=1)))
    await client.run_for_subscription(metered.subscription_id)
    await adjust_credit(client, spent.id, -15, allow_deficit=True)
    await client.cancel(metered.subscription_id, immediately=True)
    clock.advance(minutes=1)
    await adjust_credit(client, spent.id, -25, allow_deficit=True)
    explained = await explained_lines(client, metered.subscription_id)
    (deficit,) = [e for e in explained if e.charge.charge_type == DEFICIT]
    assert deficit.charge.amount == 15


@pytest.mark.parametrize("page_size", [1, 2, 5])
async def test_pages_of_events_go_on_where_they_ended(
    metered: MeteredSubscription, page_size: int
) -> None:
    client = metered.client
    for number in range(5):
        await metered.send(metered.event(str(100 + number), at=BEGAN + timedelta(hours=number)))
    await client.run_for_subscription(metered.subscription_id)
    usage = next(c for c in await charges_of(client, metered.subscription_id) if c.component_id)
    whole = await explain_whole(client, usage.id, page_size=page_size)
    assert_adds_up(whole)
    quantities = [event.quantity.value for event in whole.usage.usage_events]
    assert quantities == ["100", "101", "102", "103", "104"]
