"""Subscriptions: what is created is what is told, and billing periods count from the start."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dateutil.relativedelta import relativedelta
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import catalog_pb2
from billing.v1 import subscription_pb2 as pb
from tests.factories.client import BillingClient, moment, new_tenant, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of

UNKNOWN_PLAN = "plan_01h455vb4pex5vsknk084sn02q"
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
A_MINUTE = timedelta(minutes=1)


async def create(client: BillingClient, plan_id: str, **fields: Any) -> pb.Subscription:
    request = pb.CreateSubscriptionRequest(
        tenant_id=client.tenant_id, plan_id=plan_id, **{"customer_id": "cus-1", **fields}
    )
    return (await client.subscriptions.CreateSubscription(request)).subscription  # type: ignore[no-any-return]


async def list_page(client: BillingClient, **fields: Any) -> tuple[Sequence[pb.Subscription], str]:
    request = pb.ListSubscriptionsRequest(tenant_id=client.tenant_id, **fields)
    answer = await client.subscriptions.ListSubscriptions(request)
    return list(answer.subscriptions), answer.next_page_token


async def listed_ids(client: BillingClient, **fields: Any) -> list[str]:
    rows, token = await list_page(client, **fields)
    assert token == ""
    return [row.id for row in rows]


async def test_a_subscription_starts_now_unless_told_otherwise(
    client: BillingClient, clock: FakeClock
) -> None:
    plan_id = await client.create_plan(currency="EUR")
    before = clock.now
    subscription = await create(client, plan_id)
    started_at = moment(subscription.started_at)
    assert before < started_at <= clock.now
    assert subscription.status == pb.SUBSCRIPTION_STATUS_ACTIVE
    assert (subscription.customer_id, subscription.plan_id) == ("cus-1", plan_id)
    assert subscription.currency == "EUR"
    assert moment(subscription.current_period_start) == started_at
    assert moment(subscription.current_period_end) == started_at + relativedelta(months=1)
    assert subscription.created_at == subscription.updated_at == subscription.started_at
    for field in ("cancel_at", "paused_at", "cancelled_at"):
        assert not subscription.HasField(field)
    for summary in ("current_period_usage_summary", "available_credits_summary"):
        assert summary not in {field.name for field, _ in subscription.ListFields()}
    # Read alone, it tells what can be spent: nothing, and its plan meters nothing.
    subscription.available_credits_summary.currency = "EUR"
    assert await client.get_subscription(subscription.id) == subscription


async def test_a_start_may_lie_in_the_past(client: BillingClient) -> None:
    started_at = datetime(2025, 11, 5, 8, 30, 0, 250, tzinfo=UTC)
    subscription = await create(
        client, await client.create_plan(), started_at=timestamp(started_at)
    )
    assert moment(subscription.started_at) == started_at
    assert moment(subscription.current_period_start) == started_at
    assert moment(subscription.current_period_end) == started_at + relativedelta(months=1)
    assert moment(subscription.created_at) > START


async def test_a_start_lies_at_most_ten_years_back_and_never_ahead(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    ten_years_ago = START - relativedelta(years=10)
    for started_at in (START + A_MINUTE, ten_years_ago - A_MINUTE):
        refusal = await refusal_of(create(client, plan_id, started_at=timestamp(started_at)))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["started_at"]
        assert started_at.isoformat() in refusal.message
    oldest = await create(client, plan_id, started_at=timestamp(ten_years_ago + A_MINUTE))
    assert await listed_ids(client) == [oldest.id]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customer_id", ""),
        ("customer_id", "x" * 201),
        ("customer_id", "nul\0"),
        ("plan_id", ""),
        ("plan_id", "plan_1"),
        ("plan_id", UNKNOWN_SUBSCRIPTION),
        ("request_id", "x" * 129),
        ("request_id", "nul\0"),
        ("started_at", Timestamp(seconds=10**15)),
        ("started_at", Timestamp(seconds=-(10**12))),
        ("started_at", Timestamp(seconds=1_700_000_000, nanos=-1)),
        ("started_at", Timestamp(seconds=1_700_000_000, nanos=10**9)),
    ],
)
async def test_a_malformed_subscription_is_refused_with_its_field(
    client: BillingClient, field: str, value: object
) -> None:
    fields = {"plan_id": UNKNOWN_PLAN, field: value}
    refusal = await refusal_of(create(client, **fields))  # type: ignore[arg-type]
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]


async def test_an_unknown_plan_or_subscription_is_not_found(client: BillingClient) -> None:
    refusal = await refusal_of(create(client, UNKNOWN_PLAN))
    assert refusal.kind == ("NOT_FOUND", "PLAN_NOT_FOUND")
    assert await listed_ids(client) == []
    for call in (
        client.get_subscription(UNKNOWN_SUBSCRIPTION),
        client.pause(UNKNOWN_SUBSCRIPTION),
        client.resume(UNKNOWN_SUBSCRIPTION),
        client.cancel(UNKNOWN_SUBSCRIPTION),
        client.cancel(UNKNOWN_SUBSCRIPTION, immediately=True),
    ):
        refusal = await refusal_of(call)
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        assert refusal.metadata["resource_id"] == UNKNOWN_SUBSCRIPTION


async def test_a_malformed_id_is_refused_with_its_field(client: BillingClient) -> None:
    for text in ("", "sub_1", UNKNOWN_PLAN, UNKNOWN_SUBSCRIPTION.upper()):
        refusal = await refusal_of(client.get_subscription(text))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["subscription_id"]


async def test_a_repeat_returns_the_first_answer(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    first = await create(client, plan_id, request_id="request-1")
    await client.pause(first.id)
    assert await create(client, plan_id, request_id="request-1") == first
    refusal = await refusal_of(create(client, plan_id, request_id="request-1", customer_id="cus-2"))
    assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert refusal.fields == ["request_id"]
    assert await listed_ids(client) == [first.id]


async def test_concurrent_repeats_create_one_subscription(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    answers = await asyncio.gather(
        *[create(client, plan_id, request_id="request-1") for _ in range(6)]
    )
    assert all(answer == answers[0] for answer in answers)
    assert await listed_ids(client) == [answers[0].id]


async def test_lists_are_filtered_by_state_and_customer(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    active, paused, other, over = [
        await client.subscribe(plan_id, customer_id=customer)
        for customer in ("cus-1", "cus-1", "cus-2", "cus-1")
    ]
    await client.pause(paused.id)
    await client.cancel(over.id, immediately=True)
    by_status = {
        status: await listed_ids(client, status=status) for status in pb.SubscriptionStatus.values()
    }
    assert by_status == {
        pb.SUBSCRIPTION_STATUS_UNSPECIFIED: [active.id, paused.id, other.id, over.id],
        pb.SUBSCRIPTION_STATUS_ACTIVE: [active.id, other.id],
        pb.SUBSCRIPTION_STATUS_PAUSED: [paused.id],
        pb.SUBSCRIPTION_STATUS_CANCELLED: [over.id],
    }
    assert await listed_ids(client, customer_id="cus-2") == [other.id]
    assert await listed_ids(client, customer_id="cus") == []
    active_of_one = {"status": pb.SUBSCRIPTION_STATUS_ACTIVE, "customer_id": "cus-1"}
    assert await listed_ids(client, **active_of_one) == [active.id]
    refusal = await refusal_of(list_page(client, status=9))
    assert refusal.fields == ["status"]
    assert (await refusal_of(list_page(client, customer_id="nul\0"))).fields == ["customer_id"]


async def test_pages_keep_to_their_filters(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    ids = [
        (await client.subscribe(plan_id, customer_id=f"cus-{number % 2}")).id for number in range(6)
    ]
    walked, token = [], ""
    while True:
        rows, token = await list_page(client, customer_id="cus-1", page_size=2, page_token=token)
        walked.append([row.id for row in rows])
        if not token:
            break
    assert walked == [[ids[1], ids[3]], [ids[5]]]
    _, token = await list_page(client, customer_id="cus-1", page_size=1)
    for fields in ({}, {"customer_id": "cus-0"}, {"customer_id": "cus-1", "status": 1}):
        refusal = await refusal_of(list_page(client, page_token=token, **fields))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    elsewhere = client.for_tenant(new_tenant())
    refusal = await refusal_of(list_page(elsewhere, customer_id="cus-1", page_token=token))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    assert (await refusal_of(list_page(client, page_size=-1))).fields == ["page_size"]
    rows, token = await list_page(client, page_size=2**31 - 1)
    assert ([row.id for row in rows], token) == (ids, "")


@pytest.mark.parametrize(
    ("unit", "count", "started_at", "boundaries"),
    [
        ("MONTH", 1, "2025-10-31", ["2025-11-30", "2025-12-31", "2026-01-31", "2026-02-28"]),
        ("MONTH", 3, "2025-05-31", ["2025-08-31", "2025-11-30", "2026-02-28"]),
        ("WEEK", 1, "2026-02-26", ["2026-03-05", "2026-03-12"]),
        ("DAY", 10, "2026-02-20", ["2026-03-02", "2026-03-12"]),
        ("YEAR", 1, "2024-02-29", ["2025-02-28", "2026-02-28"]),
    ],
)
async def test_periods_count_from_the_start_of_the_subscription(
    client: BillingClient, unit: str, count: int, started_at: str, boundaries: list[str]
) -> None:
    interval = catalog_pb2.BillingInterval(
        unit=catalog_pb2.BillingIntervalUnit.Value(f"BILLING_INTERVAL_UNIT_{unit}"), count=count
    )
    plan_id = await client.create_plan(base_price_amount=0, interval=interval)
    start, *ends = [
        datetime.fromisoformat(f"{text}T09:30:00+00:00") for text in (started_at, *boundaries)
    ]
    subscription = await client.subscribe(plan_id, started_at=start)
    assert moment(subscription.current_period_end) == ends[0]
    run = await client.run_billing()
    billed = [(moment(r.period_start), moment(r.period_end)) for r in run.results]
    assert billed == list(zip([start, *ends], ends, strict=False))
    following = await client.get_subscription(subscription.id)
    assert moment(following.current_period_start) == ends[-1]
    assert moment(following.current_period_end) > START


async def test_month_ends_and_leap_days_come_back(client: BillingClient, clock: FakeClock) -> None:
    yearly = catalog_pb2.BillingInterval(unit=catalog_pb2.BILLING_INTERVAL_UNIT_YEAR, count=1)
    by_month = await client.create_plan(base_price_amount=0)
    by_year = await client.create_plan(base_price_amount=0, interval=yearly)
    leap_day = datetime(2024, 2, 29, tzinfo=UTC)
    monthly = await client.subscribe(by_month, started_at=datetime(2025, 12, 31, tzinfo=UTC))
    leaping = await client.subscribe(by_year, started_at=leap_day)
    clock.set(datetime(2028, 3, 1, tzinfo=UTC))
    run = await client.run_billing()
    ends = {monthly.id: set[datetime](), leaping.id: set[datetime]()}
    for result in run.results:
        ends[result.subscription_id].add(moment(result.period_end))
    assert {end.day for end in ends[monthly.id]} == {28, 29, 30, 31}
    assert {end.day for end in ends[monthly.id] if end.month in {1, 3, 5, 7, 8, 10, 12}} == {31}
    assert len(ends[monthly.id]) == 26
    assert max(ends[leaping.id]) == leap_day.replace(year=2028)
    assert len(ends[leaping.id]) == 4
