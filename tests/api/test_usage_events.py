"""Reading usage: every event can be asked for, with what became of it."""

from datetime import timedelta

import pytest

from billing.v1 import usage_pb2 as pb
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of
from tests.factories.usage import SUBSCRIBED_AT, MeteredSubscription, metered_subscription

UNKNOWN_EVENT = "usage_01h455vb4pex5vsknk084sn02q"
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
UNKNOWN_METER = "meter_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription whose plan costs 2 for each unit."""
    return await metered_subscription(client)


async def walk(metered: MeteredSubscription, page_size: int) -> list[list[pb.UsageEvent]]:
    """Return the events page by page."""
    pages, token = [], ""
    while True:
        rows, token = await metered.page(page_size=page_size, page_token=token)
        pages.append(rows)
        if not token:
            return pages


async def test_an_event_is_told_as_it_was_sent_with_what_became_of_it(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client = metered.client
    properties = {"region": "eu-west", "empty": "", "unicode \u00fc": "\U0001f4b6\n"}
    at = START - timedelta(days=1, microseconds=7)
    (result,) = await metered.send(metered.event("3.50", at=at, key="key-1", properties=properties))
    event = await metered.get(result.usage_event_id)
    subscription = await client.get_subscription(metered.subscription_id)
    assert event.id == result.usage_event_id
    assert event.idempotency_key == "key-1"
    assert (event.subscription_id, event.usage_meter_id) == (subscription.id, metered.meter_id)
    assert event.component_id.startswith("component_")
    assert event.billing_period_id == subscription.current_period_id
    assert event.quantity.value == "3.5"
    assert moment(event.event_timestamp) == at
    assert event.properties == properties
    assert event.disposition == pb.USAGE_EVENT_DISPOSITION_RATED
    assert (event.cost_amount, event.currency) == (7, "USD")
    (entry,) = await client.entries(subscription.id)
    assert event.ledger_entry_id == entry.id
    assert event.received_at == entry.entry_timestamp
    assert await metered.stored() == [event]


async def test_events_are_listed_in_the_order_of_their_arrival(
    metered: MeteredSubscription,
) -> None:
    sent: list[str] = []
    for call in range(4):
        moments = [SUBSCRIBED_AT + timedelta(hours=(7 * n + call) % 20) for n in range(5)]
        results = await metered.send(*[metered.event(at=at) for at in moments])
        sent.extend(result.usage_event_id for result in results)
    stored = await metered.stored()
    assert [event.id for event in stored] == sent
    received = [moment(event.received_at) for event in stored]
    assert received == sorted(received)


async def test_pages_hold_every_event_once_in_order(metered: MeteredSubscription) -> None:
    for _ in range(3):
        await metered.send(*[metered.event() for _ in range(4)])
    stored = await metered.stored()
    for size in (1, 3, 4, 5, 12, 13):
        pages = await walk(metered, size)
        assert [event for page in pages for event in page] == stored
        assert all(len(page) == size for page in pages[:-1])
        assert 0 < len(pages[-1]) <= size


async def test_page_sizes_have_a_default_and_a_maximum(metered: MeteredSubscription) -> None:
    await metered.send(*[metered.event() for _ in range(1001)])
    assert [len(page) for page in await walk(metered, 5000)] == [1000, 1]
    assert [len(page) for page in await walk(metered, 1000)] == [1000, 1]
    rows, token = await metered.page()
    assert len(rows) == 50
    assert token
    refusal = await refusal_of(metered.page(page_size=-1))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["page_size"]


async def test_events_that_arrive_between_pages_come_last(metered: MeteredSubscription) -> None:
    await metered.send(metered.event(), metered.event(), metered.event())
    first, token = await metered.page(page_size=2)
    # Consumed earlier, arrived later: the order is that of arrival.
    await metered.send(metered.event("9", at=SUBSCRIBED_AT))
    rest, end = await metered.page(page_size=5, page_token=token)
    assert [event.quantity.value for event in first + rest] == ["1", "1", "1", "9"]
    assert end == ""


async def test_a_token_belongs_to_its_list_and_filters(metered: MeteredSubscription) -> None:
    client = metered.client
    await metered.send(metered.event(), metered.event())
    other = await client.subscribe(metered.plan_id)
    _, token = await metered.page(page_size=1)
    for filters in (
        {"subscription_id": other.id},
        {"usage_meter_id": metered.meter_id},
        {"billing_period_id": UNKNOWN_PERIOD},
    ):
        refusal = await refusal_of(metered.page(page_token=token, **filters))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    for garbled in ("x", token[:-3], token[::-1]):
        refusal = await refusal_of(metered.page(page_token=garbled))
        assert refusal.fields == ["page_token"]


async def test_lists_are_filtered_by_period_and_meter(
    client: BillingClient, clock: FakeClock
) -> None:
    meters = [await client.create_meter(code) for code in ("api_calls", "storage")]
    plan_id = await client.create_plan(components=[component(meter_id) for meter_id in meters])
    subscription = await client.subscribe(plan_id, started_at=SUBSCRIBED_AT)
    end = moment(subscription.current_period_end)
    clock.set(end)
    await client.ingest(
        [
            usage_event(subscription.id, meter_id, quantity, at)
            for meter_id, quantity, at in (
                (meters[0], "1", START),
                (meters[1], "2", START),
                (meters[0], "3", end),
                (meters[1], "4", end),
            )
        ]
    )
    metered = MeteredSubscription(client, plan_id, subscription.id, meters[0])
    first = subscription.current_period_id
    (second,) = {event.billing_period_id for event in await metered.stored()} - {first}
    expected = {
        (): ["1", "2", "3", "4"],
        (("usage_meter_id", meters[1]),): ["2", "4"],
        (("billing_period_id", first),): ["1", "2"],
        (("billing_period_id", second),): ["3", "4"],
        (("billing_period_id", second), ("usage_meter_id", meters[0])): ["3"],
        (("billing_period_id", UNKNOWN_PERIOD),): [],
        (("usage_meter_id", UNKNOWN_METER),): [],
    }
    for filters, quantities in expected.items():
        events = await metered.stored(**dict(filters))
        assert [event.quantity.value for event in events] == quantities


async def test_the_costs_of_a_period_and_component_are_its_charge(
    client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, unit_price="0.29", included="3")
    for number in range(30):
        await metered.send(metered.event(f"0.{number:02}"))
    clock.advance(days=40)
    (result,) = (await client.run_billing()).results
    events = await metered.stored(billing_period_id=result.billing_period_id)
    total = sum(number for number in range(30)) - 300
    assert sum(event.cost_amount for event in events) == result.total_amount
    assert result.total_amount == (total * 29 + 5000) // 10_000


async def test_what_does_not_exist_is_not_found(metered: MeteredSubscription) -> None:
    refusal = await refusal_of(metered.get(UNKNOWN_EVENT))
    assert refusal.kind == ("NOT_FOUND", "USAGE_EVENT_NOT_FOUND")
    assert refusal.metadata["resource_id"] == UNKNOWN_EVENT
    refusal = await refusal_of(metered.page(subscription_id=UNKNOWN_SUBSCRIPTION))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")


async def test_malformed_ids_are_refused_with_their_fields(metered: MeteredSubscription) -> None:
    refusal = await refusal_of(metered.get("usage_1"))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["usage_event_id"]
    refusal = await refusal_of(
        metered.page(subscription_id="", billing_period_id="period", usage_meter_id="meter_1")
    )
    assert refusal.fields == ["subscription_id", "billing_period_id", "usage_meter_id"]
