"""Events that cannot be taken: a stable reason, the field and the figures, and nothing written."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain.money import MAX_AMOUNT_MINOR
from billing.v1 import catalog_pb2
from billing.v1 import usage_pb2 as pb
from tests.factories.client import BillingClient, component, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.usage import (
    SUBSCRIBED_AT,
    MeteredSubscription,
    metered_subscription,
    outcomes_of,
)

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_METER = "meter_01h455vb4pex5vsknk084sn02q"
AN_HOUR = timedelta(hours=1)
A_MOMENT = timedelta(microseconds=1)


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription whose plan costs 2 for each unit."""
    return await metered_subscription(client)


async def rejection_of(
    metered: MeteredSubscription, event: pb.UsageEventInput
) -> pb.UsageEventResult:
    """Return why the event is not taken; fails if it is, or if anything is counted."""
    before = await metered.client.balance(metered.subscription_id)
    answer = await metered.client.ingest([event])
    (result,) = answer.results
    assert outcomes_of([result]) == ["rejected"]
    assert answer.rejected_count == 1
    assert result.usage_event_id == ""
    after = await metered.client.balance(metered.subscription_id)
    assert after.outstanding_amount == before.outstanding_amount
    return result


def changed(event: pb.UsageEventInput, **fields: Any) -> pb.UsageEventInput:
    """The event with other fields; None clears one."""
    for field, value in fields.items():
        event.ClearField(field)  # type: ignore[arg-type]
        if isinstance(value, Timestamp):
            getattr(event, field).CopyFrom(value)
        elif isinstance(value, dict):
            getattr(event, field).update(value)
        elif value is not None:
            setattr(event, field, value)
    return event


@pytest.mark.parametrize(
    "quantity",
    [
        "",
        "-1",
        "-0",
        "+1",
        "NaN",
        "Infinity",
        "1e5",
        "1E5",
        "0x10",
        "1_000",
        "1,000",
        "1.",
        ".5",
        " 1",
        "1\n",
        "\u0661",
        "1" * 19,
        "0." + "1" * 13,
        "1" * 10_000,
        "1\0",
    ],
)
async def test_a_malformed_quantity_is_rejected(
    metered: MeteredSubscription, quantity: str
) -> None:
    result = await rejection_of(metered, metered.event(quantity))
    assert result.reason == "FIELD_INVALID"
    assert result.message.startswith("quantity: ")
    assert len(result.message) < 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("idempotency_key", ""),
        ("idempotency_key", "x" * 256),
        ("idempotency_key", "nul\0"),
        ("subscription_id", ""),
        ("subscription_id", "sub_1"),
        ("subscription_id", UNKNOWN_METER),
        ("subscription_id", UNKNOWN_SUBSCRIPTION + "\n"),
        ("subscription_id", "sub_8zzzzzzzzzzzzzzzzzzzzzzzzz"),
        ("usage_meter_id", ""),
        ("usage_meter_id", "api_calls"),
        ("usage_meter_id", UNKNOWN_SUBSCRIPTION),
        ("quantity", None),
        ("event_timestamp", None),
        ("event_timestamp", Timestamp(seconds=10**15)),
        ("event_timestamp", Timestamp(seconds=-(10**15))),
        ("event_timestamp", Timestamp(seconds=1_773_500_000, nanos=-1)),
        ("properties", {f"key-{number}": "" for number in range(51)}),
        ("properties", {"x" * 129: ""}),
        ("properties", {"": "no key"}),
        ("properties", {"key": "x" * 1025}),
        ("properties", {"nul\0": ""}),
        ("properties", {"key": "\0"}),
    ],
)
async def test_a_malformed_event_is_rejected_with_its_field(
    metered: MeteredSubscription, field: str, value: object
) -> None:
    result = await rejection_of(metered, changed(metered.event(), **{field: value}))
    assert result.reason == "FIELD_INVALID"
    assert result.message.startswith(field)


async def test_every_broken_field_is_named(metered: MeteredSubscription) -> None:
    result = await rejection_of(metered, pb.UsageEventInput())
    for field in (
        "idempotency_key",
        "subscription_id",
        "usage_meter_id",
        "quantity",
        "event_timestamp",
    ):
        assert f"{field}: " in result.message


@pytest.mark.parametrize(
    "event",
    [
        {"idempotency_key": "x" * 255},
        {"idempotency_key": "\U0001f4b6" * 255},
        {"idempotency_key": " '\"\\;\n\t--"},
        {"properties": {f"{number:0128}": "x" * 1024 for number in range(50)}},
        {"properties": {"\U0001f4b6'\"\\": "\U0001f4b6\n\t'\"\\{}"}},
    ],
    ids=["longest key", "widest key", "quoted key", "most properties", "any text"],
)
async def test_what_the_rules_allow_is_taken_and_comes_back(
    metered: MeteredSubscription, event: dict[str, Any]
) -> None:
    sent = changed(metered.event(), **event)
    (result,) = await metered.send(sent)
    assert outcomes_of([result]) == ["accepted"]
    stored = await metered.get(result.usage_event_id)
    assert stored.idempotency_key == sent.idempotency_key
    assert stored.properties == sent.properties


@pytest.mark.parametrize("quantity", ["0", "0.000000000001", "00012.50", "1" * 18])
async def test_quantities_of_all_sizes_are_taken(client: BillingClient, quantity: str) -> None:
    metered = await metered_subscription(client, unit_price="0.000001")
    (result,) = await metered.send(metered.event(quantity))
    assert outcomes_of([result]) == ["accepted"]
    normal = quantity.lstrip("0") or "0"
    if "." in quantity:
        whole, fraction = quantity.split(".")
        normal = f"{int(whole)}.{fraction.rstrip('0')}"
    assert (await metered.get(result.usage_event_id)).quantity.value == normal


async def test_an_unknown_subscription_is_rejected(metered: MeteredSubscription) -> None:
    event = changed(metered.event(), subscription_id=UNKNOWN_SUBSCRIPTION)
    result = await rejection_of(metered, event)
    assert result.reason == "SUBSCRIPTION_NOT_FOUND"
    assert UNKNOWN_SUBSCRIPTION in result.message


async def test_a_meter_that_is_not_priced_is_rejected(metered: MeteredSubscription) -> None:
    unpriced = await metered.client.create_meter("storage")
    for meter_id in (unpriced, UNKNOWN_METER):
        result = await rejection_of(metered, changed(metered.event(), usage_meter_id=meter_id))
        assert result.reason == "USAGE_METER_NOT_PRICED"
        assert result.message.startswith("usage_meter_id: ")


async def test_a_paused_or_cancelled_subscription_takes_nothing(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    await metered.client.pause(metered.subscription_id)
    paused = await rejection_of(metered, metered.event())
    assert paused.reason == "SUBSCRIPTION_PAUSED"
    await metered.client.resume(metered.subscription_id)
    await metered.send(metered.event("1"))
    await metered.client.cancel(metered.subscription_id, immediately=True)
    cancelled = await rejection_of(metered, metered.event())
    assert cancelled.reason == "SUBSCRIPTION_CANCELLED"
    for result in (paused, cancelled):
        assert metered.subscription_id in result.message


async def test_an_event_may_be_an_hour_ahead_of_the_clock(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    ahead = clock.now + AN_HOUR
    result = await rejection_of(metered, metered.event(at=ahead + timedelta(seconds=1)))
    assert result.reason == "EVENT_IN_FUTURE"
    assert result.message.startswith("event_timestamp: ")
    far = changed(metered.event(), event_timestamp=Timestamp(seconds=253_402_300_799))
    assert (await rejection_of(metered, far)).reason == "EVENT_IN_FUTURE"
    assert outcomes_of(await metered.send(metered.event(at=ahead))) == ["accepted"]


async def test_an_event_lies_in_the_life_of_the_subscription(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    early = await rejection_of(metered, metered.event(at=SUBSCRIBED_AT - A_MOMENT))
    assert early.reason == "EVENT_BEFORE_SUBSCRIPTION"
    oldest = changed(metered.event(), event_timestamp=Timestamp(seconds=-62_135_596_800))
    assert (await rejection_of(metered, oldest)).reason == "EVENT_BEFORE_SUBSCRIPTION"
    cancelling = (await metered.client.cancel(metered.subscription_id)).subscription
    end = cancelling.cancel_at.ToDatetime(tzinfo=SUBSCRIBED_AT.tzinfo)
    clock.set(end + AN_HOUR)
    late = await rejection_of(metered, metered.event(at=end))
    assert late.reason == "EVENT_AFTER_CANCELLATION"
    assert end.isoformat() in late.message
    inside = [metered.event(at=moment) for moment in (SUBSCRIBED_AT, end - A_MOMENT)]
    assert outcomes_of(await metered.send(*inside)) == ["accepted", "accepted"]


async def test_an_event_of_a_pause_that_outlived_its_period_is_rejected(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    paused = await metered.client.pause(metered.subscription_id)
    end = paused.current_period_end.ToDatetime(tzinfo=SUBSCRIBED_AT.tzinfo)
    clock.set(end + timedelta(days=20))
    await metered.client.resume(metered.subscription_id)
    resumed_at = clock.now
    for billed in (False, True):
        for moment in (end, resumed_at - A_MOMENT):
            result = await rejection_of(metered, metered.event(at=moment))
            assert result.reason == "EVENT_WHILE_PAUSED"
            assert moment.isoformat() in result.message
        results = await metered.send(metered.event(at=end - A_MOMENT), metered.event(at=resumed_at))
        assert outcomes_of(results) == ["accepted", "accepted"]
        if not billed:
            assert len((await metered.client.run_billing()).results) == 1


async def test_a_cost_that_the_ledger_cannot_hold_is_rejected(client: BillingClient) -> None:
    metered = await metered_subscription(client, unit_price="1000")
    limit = MAX_AMOUNT_MINOR // 1000
    result = await rejection_of(metered, metered.event(str(limit + 1)))
    assert result.reason == "AMOUNT_OUT_OF_RANGE"
    assert result.message.startswith("quantity: ")
    assert str(MAX_AMOUNT_MINOR) in result.message
    results = await metered.send(
        metered.event(str(limit - 1)), metered.event("2"), metered.event("1")
    )
    assert outcomes_of(results) == ["accepted", "rejected", "accepted"]
    assert results[1].reason == "AMOUNT_OUT_OF_RANGE"
    assert (await client.balance(metered.subscription_id)).unbilled_amount == limit * 1000


async def test_a_rejected_key_is_free_for_the_mended_event(metered: MeteredSubscription) -> None:
    await rejection_of(metered, metered.event("-1", key="key-1"))
    await rejection_of(metered, metered.event(key="key-1", at=START + timedelta(days=9)))
    assert outcomes_of(await metered.send(metered.event(key="key-1"))) == ["accepted"]


async def test_an_event_of_the_next_version_is_priced_by_it(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client = metered.client
    storage = await client.create_meter("storage")
    await client.catalog.UpdatePlan(
        catalog_pb2.UpdatePlanRequest(
            tenant_id=client.tenant_id,
            plan_id=metered.plan_id,
            version=client.plan_version(components=[component(storage, unit_price="5")]),
        )
    )
    subscription = await client.get_subscription(metered.subscription_id)
    end = subscription.current_period_end.ToDatetime(tzinfo=SUBSCRIBED_AT.tzinfo)
    clock.set(end)
    by_meter = {
        meter_id: [
            changed(metered.event(), usage_meter_id=meter_id, event_timestamp=timestamp(at))
            for at in (end - A_MOMENT, end)
        ]
        for meter_id in (metered.meter_id, storage)
    }
    outcomes = {meter: outcomes_of(await metered.send(*sent)) for meter, sent in by_meter.items()}
    assert outcomes == {
        metered.meter_id: ["accepted", "rejected"],
        storage: ["rejected", "accepted"],
    }
