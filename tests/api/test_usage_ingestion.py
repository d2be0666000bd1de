"""Sending usage: every event has its own outcome, and is counted once however often it is sent."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from billing.v1 import ledger_pb2
from billing.v1 import usage_pb2 as pb
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of
from tests.factories.usage import MeteredSubscription, metered_subscription, outcomes_of

MAX_EVENTS = 5000


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription whose plan costs 2 for each unit."""
    return await metered_subscription(client)


async def facts(metered: MeteredSubscription) -> tuple[Any, ...]:
    """All that ingestion could have written; the moment of the balance is none of it."""
    balance = await metered.client.balance(metered.subscription_id)
    balance.ClearField("as_of")
    return (
        balance,
        await metered.client.entries(metered.subscription_id),
        await metered.stored(),
        await metered.client.get_subscription(metered.subscription_id),
        await metered.client.trial_balance(),
    )


async def test_an_accepted_event_is_stored_and_rated(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    answer = await metered.client.ingest([metered.event("3", at=START - timedelta(hours=2))])
    (result,) = answer.results
    assert outcomes_of([result]) == ["accepted"]
    assert (result.reason, result.message) == ("", "")
    counts = (answer.accepted_count, answer.duplicate_count, answer.conflict_count)
    assert (*counts, answer.rejected_count) == (1, 0, 0, 0)
    event = await metered.get(result.usage_event_id)
    assert event.cost_amount == 6
    (entry,) = await metered.client.entries(metered.subscription_id)
    assert entry.entry_type == ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST
    assert (entry.amount, entry.source_usage_event_id) == (-6, event.id)
    assert event.ledger_entry_id == entry.id
    assert moment(event.received_at) <= clock.now
    balance = await metered.client.balance(metered.subscription_id)
    assert (balance.unbilled_amount, balance.outstanding_amount) == (6, 6)


async def test_a_duplicate_writes_nothing(metered: MeteredSubscription) -> None:
    event = metered.event("1.5", key="key-1", properties={"a": "1", "b": "2"})
    first, _ = await metered.send(event, metered.event("7"))
    before = await facts(metered)
    again = metered.event("1.500", key="key-1", properties={"b": "2", "a": "1"})
    answer = await metered.client.ingest([event, again])
    assert outcomes_of(answer.results) == ["duplicate", "duplicate"]
    assert answer.duplicate_count == 2
    assert {result.usage_event_id for result in answer.results} == {first.usage_event_id}
    assert await facts(metered) == before


async def test_a_duplicate_stays_one_whatever_became_of_the_subscription(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    event = metered.event(key="key-1")
    (first,) = await metered.send(event)
    await metered.client.pause(metered.subscription_id)
    (while_paused,) = await metered.send(event)
    await metered.client.cancel(metered.subscription_id, immediately=True)
    clock.advance(days=400)
    (when_over,) = await metered.send(event)
    for result in (while_paused, when_over):
        assert outcomes_of([result]) == ["duplicate"]
        assert result.usage_event_id == first.usage_event_id


async def test_duplicates_within_one_call_are_counted_once(metered: MeteredSubscription) -> None:
    event = metered.event("4", key="key-1")
    results = await metered.send(event, metered.event("1"), event, event)
    assert outcomes_of(results) == ["accepted", "accepted", "duplicate", "duplicate"]
    assert len({results[n].usage_event_id for n in (0, 2, 3)}) == 1
    assert (await metered.client.balance(metered.subscription_id)).outstanding_amount == 10


@pytest.mark.parametrize("in_one_call", [True, False])
async def test_another_event_with_the_key_is_a_conflict_that_names_both(
    metered: MeteredSubscription, in_one_call: bool
) -> None:
    stored = metered.event("1.5", key="key-1")
    other = metered.event("2.5", key="key-1", at=START - timedelta(hours=1))
    if in_one_call:
        first, conflict = await metered.send(stored, other)
        before = await facts(metered)
    else:
        (first,) = await metered.send(stored)
        before = await facts(metered)
        (conflict,) = await metered.send(other)
    assert outcomes_of([first, conflict]) == ["accepted", "conflict"]
    assert conflict.usage_event_id == first.usage_event_id
    assert conflict.reason == "IDEMPOTENCY_KEY_REUSED"
    for part in (
        "idempotency_key: 'key-1'",
        first.usage_event_id,
        "quantity 1.5 at 2026-03-15T12:00:00+00:00",
        "quantity 2.5 at 2026-03-15T11:00:00+00:00",
    ):
        assert part in conflict.message
    assert await facts(metered) == before


async def test_every_field_tells_events_apart(metered: MeteredSubscription) -> None:
    client = metered.client
    other_meter = await client.create_meter("storage")
    other = await client.subscribe(metered.plan_id, started_at=START - timedelta(days=10))
    stored = metered.event(key="key-1", properties={"region": "eu"})
    different = [
        metered.event("1.000000000001", key="key-1", properties={"region": "eu"}),
        metered.event(
            key="key-1", at=START + timedelta(microseconds=1), properties={"region": "eu"}
        ),
        metered.event(key="key-1"),
        metered.event(key="key-1", properties={"region": "us"}),
        metered.event(key="key-1", properties={"region": "eu", "tier": ""}),
    ]
    for field, value in (("usage_meter_id", other_meter), ("subscription_id", other.id)):
        event = pb.UsageEventInput()
        event.CopyFrom(stored)
        setattr(event, field, value)
        different.append(event)
    results = await metered.send(stored, *different)
    assert outcomes_of(results) == ["accepted"] + ["conflict"] * len(different)


async def test_keys_belong_to_the_tenant_and_mode(metered: MeteredSubscription) -> None:
    test_mode = await metered_subscription(metered.client.in_test_mode())
    results = [
        *await metered.send(metered.event(key="key-1")),
        *await test_mode.send(test_mode.event(key="key-1")),
    ]
    assert outcomes_of(results) == ["accepted", "accepted"]


async def test_a_mixed_call_has_its_results_in_order(metered: MeteredSubscription) -> None:
    (known,) = await metered.send(metered.event("1", key="known"))
    mixed = [
        (metered.event("2"), "accepted"),
        (metered.event("-1"), "rejected"),
        (metered.event("1", key="known"), "duplicate"),
        (pb.UsageEventInput(), "rejected"),
        (metered.event("9", key="known"), "conflict"),
        (metered.event("3", at=START + timedelta(days=1)), "rejected"),
        (metered.event("4", properties={"": "x"}), "rejected"),
        (metered.event("5", key="twice"), "accepted"),
        (metered.event("5", key="twice"), "duplicate"),
        (metered.event("6", key="nul\0"), "rejected"),
        (metered.event("7", properties={"nul": "\0"}), "rejected"),
        (metered.event("8"), "accepted"),
    ]
    answer = await metered.client.ingest([event for event, _ in mixed])
    assert outcomes_of(answer.results) == [expected for _, expected in mixed]
    counts = Counter(outcomes_of(answer.results))
    assert answer.accepted_count == counts["accepted"]
    assert answer.duplicate_count == counts["duplicate"]
    assert answer.conflict_count == counts["conflict"]
    assert answer.rejected_count == counts["rejected"]
    assert answer.results[4].usage_event_id == known.usage_event_id
    stored = await metered.stored()
    assert [event.quantity.value for event in stored] == ["1", "2", "5", "8"]
    assert [event.id for event in stored[1:]] == [
        answer.results[n].usage_event_id for n in (0, 7, 11)
    ]


async def test_a_call_has_1_to_5000_events(metered: MeteredSubscription) -> None:
    for events in ([], [metered.event("1", key="same")] * (MAX_EVENTS + 1)):
        refusal = await refusal_of(metered.client.ingest(events))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["events"]
    assert await metered.stored() == []


async def test_an_oversized_call_is_refused(metered: MeteredSubscription) -> None:
    properties = {f"property-{number}": "x" * 1000 for number in range(50)}
    events = [metered.event(properties=properties) for _ in range(100)]
    refusal = await refusal_of(metered.client.ingest(events))
    assert refusal.kind == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert int(refusal.metadata["size_bytes"]) > int(refusal.metadata["limit_bytes"])
    assert await metered.stored() == []


async def test_a_call_may_be_about_many_subscriptions_and_meters(client: BillingClient) -> None:
    meters = [await client.create_meter(code) for code in ("api_calls", "storage")]
    plan_id = await client.create_plan(
        components=[component(meters[0], unit_price="1"), component(meters[1], unit_price="10")]
    )
    subscribed_at = START - timedelta(days=1)
    ids = [(await client.subscribe(plan_id, started_at=subscribed_at)).id for _ in range(20)]
    events = [
        usage_event(subscription_id, meter_id, str(number), START)
        for number, subscription_id in enumerate(ids)
        for meter_id in meters
    ]
    random.Random(7).shuffle(events)
    assert (await client.ingest(events)).accepted_count == 40
    owed = [(await client.balance(subscription_id)).outstanding_amount for subscription_id in ids]
    assert owed == [11 * number for number in range(20)]


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_calls_with_the_same_keys_count_each_once(
    client: BillingClient, seed: int
) -> None:
    metered = await metered_subscription(client, unit_price="0.3")
    keys = [f"key-{number}" for number in range(40)]
    rng = random.Random(seed)
    calls = [
        metered.send(*[metered.event(key=key) for key in rng.sample(keys, 30)]) for _ in range(8)
    ]
    results = [result for answer in await asyncio.gather(*calls) for result in answer]
    stored = await metered.stored()
    counts = Counter(outcomes_of(results))
    assert counts["accepted"] == len(stored)
    assert counts["accepted"] + counts["duplicate"] == len(results)
    assert {event.id for event in stored} == {result.usage_event_id for result in results}
    assert len({event.idempotency_key for event in stored}) == len(stored)
    charge = (3 * len(stored) + 5) // 10
    assert sum(event.cost_amount for event in stored) == charge
    assert (await client.balance(metered.subscription_id)).outstanding_amount == charge


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_calls_of_other_subscriptions_count_a_key_once(
    client: BillingClient, seed: int
) -> None:
    metered = await metered_subscription(client, unit_price="0.3")
    ids = [(await client.subscribe(metered.plan_id, started_at=START)).id for _ in range(6)]
    keys = [f"key-{number}" for number in range(40)]
    rng = random.Random(seed)
    calls = [
        client.ingest(
            [
                usage_event(subscription_id, metered.meter_id, "1", START, key=key)
                for key in rng.sample(keys, 30)
            ]
        )
        for subscription_id in ids
    ]
    results = [result for answer in await asyncio.gather(*calls) for result in answer.results]
    counts = Counter(outcomes_of(results))
    assert counts["accepted"] + counts["conflict"] == len(results)
    stored = []
    for subscription_id in ids:
        events = await metered.stored(subscription_id=subscription_id)
        stored.extend(events)
        charge = (3 * len(events) + 5) // 10
        assert sum(event.cost_amount for event in events) == charge
        assert (await client.balance(subscription_id)).outstanding_amount == charge
    assert counts["accepted"] == len(stored) == len({e.idempotency_key for e in stored})
    assert {event.id for event in stored} == {result.usage_event_id for result in results}
