"""Usage meters and plans: what is created is what is told, and published versions never change."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.type.decimal_pb2 import Decimal

from billing.v1 import catalog_pb2 as pb
from tests.factories.client import (
    MONTHLY,
    BillingClient,
    component,
    new_tenant,
)
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of

UNKNOWN_METER = "meter_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PLAN = "plan_01h455vb4pex5vsknk084sn02q"


def meter_request(client: BillingClient, **fields: Any) -> pb.CreateUsageMeterRequest:
    usual = {"code": "api_calls", "name": "API calls", "aggregation": pb.USAGE_AGGREGATION_SUM}
    return pb.CreateUsageMeterRequest(tenant_id=client.tenant_id, **{**usual, **fields})


def plan_request(
    client: BillingClient, *, request_id: str = "", currency: str = "USD", **version: Any
) -> pb.CreatePlanRequest:
    return pb.CreatePlanRequest(
        tenant_id=client.tenant_id,
        currency=currency,
        version=client.plan_version(**version),
        request_id=request_id,
    )


async def update(
    client: BillingClient, plan_id: str, *, request_id: str = "", **version: Any
) -> pb.Plan:
    request = pb.UpdatePlanRequest(
        tenant_id=client.tenant_id,
        plan_id=plan_id,
        version=client.plan_version(**version),
        request_id=request_id,
    )
    return (await client.catalog.UpdatePlan(request)).plan  # type: ignore[no-any-return]


async def get_plan(client: BillingClient, plan_id: str) -> pb.Plan:
    request = pb.GetPlanRequest(tenant_id=client.tenant_id, plan_id=plan_id)
    return (await client.catalog.GetPlan(request)).plan  # type: ignore[no-any-return]


async def versions_of(client: BillingClient, plan_id: str) -> list[pb.PlanVersion]:
    request = pb.ListPlanVersionsRequest(tenant_id=client.tenant_id, plan_id=plan_id)
    return list((await client.catalog.ListPlanVersions(request)).plan_versions)


async def plans_of(client: BillingClient) -> list[pb.Plan]:
    request = pb.ListPlansRequest(tenant_id=client.tenant_id)
    return list((await client.catalog.ListPlans(request)).plans)


async def meters_of(client: BillingClient) -> list[pb.UsageMeter]:
    request = pb.ListUsageMetersRequest(tenant_id=client.tenant_id)
    return list((await client.catalog.ListUsageMeters(request)).usage_meters)


async def test_a_meter_is_told_as_it_was_created(client: BillingClient, clock: FakeClock) -> None:
    created = (await client.catalog.CreateUsageMeter(meter_request(client))).usage_meter
    assert created.id.startswith("meter_")
    assert (created.code, created.name) == ("api_calls", "API calls")
    assert created.aggregation == pb.USAGE_AGGREGATION_SUM
    assert created.created_at.ToDatetime() == clock.now.replace(tzinfo=None)
    request = pb.GetUsageMeterRequest(tenant_id=client.tenant_id, usage_meter_id=created.id)
    assert (await client.catalog.GetUsageMeter(request)).usage_meter == created
    assert await meters_of(client) == [created]


async def test_a_code_is_unique_in_its_tenant_and_mode(client: BillingClient) -> None:
    await client.create_meter()
    refusal = await refusal_of(client.create_meter())
    assert refusal.kind == ("ALREADY_EXISTS", "USAGE_METER_CODE_TAKEN")
    assert refusal.metadata["code"] == "api_calls"
    assert len(await meters_of(client)) == 1
    for elsewhere in (client.in_test_mode(), client.for_tenant(new_tenant())):
        await elsewhere.create_meter()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", ""),
        ("code", "1st"),
        ("code", "two words"),
        ("code", "api_calls\n"),
        ("code", "x" * 65),
        ("name", ""),
        ("name", "x" * 201),
        ("name", "nul\0"),
        ("aggregation", pb.USAGE_AGGREGATION_UNSPECIFIED),
        ("aggregation", 99),
        ("request_id", "x" * 129),
        ("request_id", "nul\0"),
    ],
)
async def test_a_malformed_meter_is_refused_with_its_field(
    client: BillingClient, field: str, value: object
) -> None:
    refusal = await refusal_of(
        client.catalog.CreateUsageMeter(meter_request(client, **{field: value}))
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]
    assert await meters_of(client) == []


async def test_a_plan_is_told_as_it_was_created(client: BillingClient) -> None:
    first, second = [await client.create_meter(code) for code in ("api_calls", "storage")]
    created = (
        await client.catalog.CreatePlan(
            plan_request(
                client,
                currency="JPY",
                base_price_amount=2900,
                interval=pb.BillingInterval(unit=pb.BILLING_INTERVAL_UNIT_YEAR, count=2),
                components=[
                    component(second, name="Storage", unit_price="12.500", included="1000"),
                    pb.ComponentInput(
                        usage_meter_id=first, name="Calls", unit_price=Decimal(value="0.015")
                    ),
                ],
            )
        )
    ).plan
    version = created.latest_version
    assert (created.currency, version.version, version.plan_id) == ("JPY", 1, created.id)
    assert (version.name, version.base_price_amount) == ("Pro Plan", 2900)
    assert (version.interval.unit, version.interval.count) == (pb.BILLING_INTERVAL_UNIT_YEAR, 2)
    priced = [
        (c.usage_meter_id, c.name, c.unit_price.value, c.included_units.value)
        for c in version.components
    ]
    assert priced == [(second, "Storage", "12.5", "1000"), (first, "Calls", "0.015", "0")]
    assert await get_plan(client, created.id) == created
    assert await plans_of(client) == [created]
    assert await versions_of(client, created.id) == [version]


async def test_an_update_publishes_the_next_version_and_changes_no_other(
    client: BillingClient,
) -> None:
    meter_id = await client.create_meter()
    plan_id = await client.create_plan(components=[component(meter_id)])
    (first,) = await versions_of(client, plan_id)
    second = await update(client, plan_id, name="Pro Plan 2", base_price_amount=2500)
    third = await update(client, plan_id, components=[component(meter_id, unit_price="0.01")])
    assert [plan.latest_version.version for plan in (second, third)] == [2, 3]
    published = [first, second.latest_version, third.latest_version]
    assert await versions_of(client, plan_id) == published
    assert len({version.id for version in published}) == 3
    assert await get_plan(client, plan_id) == third
    assert third.created_at == second.created_at


async def test_subscriptions_take_a_version_from_their_next_period(
    client: BillingClient, clock: FakeClock
) -> None:
    meter_id = await client.create_meter()
    plan_id = await client.create_plan(
        base_price_amount=100, components=[component(meter_id, unit_price="1")]
    )
    subscription = await client.subscribe(plan_id, started_at=START - timedelta(days=1))
    await update(
        client, plan_id, base_price_amount=200, components=[component(meter_id, unit_price="10")]
    )
    await client.use(subscription.id, meter_id, "1", START)
    clock.advance(days=40)
    await client.use(subscription.id, meter_id, "1", clock.now)
    run = await client.run_billing()
    assert [result.total_amount for result in run.results] == [101]
    versions = await versions_of(client, plan_id)
    moved = await client.get_subscription(subscription.id)
    assert subscription.plan_version_id == versions[0].id
    assert moved.plan_version_id == versions[1].id
    assert (await client.balance(subscription.id)).unbilled_amount == 10


async def test_concurrent_updates_count_up_without_a_gap(client: BillingClient) -> None:
    plan_id = await client.create_plan()
    names = [f"Plan {number}" for number in range(6)]
    plans = await asyncio.gather(*[update(client, plan_id, name=name) for name in names])
    assert sorted(plan.latest_version.version for plan in plans) == [2, 3, 4, 5, 6, 7]
    listed = await versions_of(client, plan_id)
    assert [version.version for version in listed] == [1, 2, 3, 4, 5, 6, 7]
    assert {version.name for version in listed[1:]} == set(names)


async def test_a_meter_has_one_component_in_a_plan(client: BillingClient) -> None:
    first, second = [await client.create_meter(code) for code in ("api_calls", "storage")]
    twice = [component(first), component(second), component(first)]
    plan_id = await client.create_plan()
    for refused in (
        client.create_plan(components=twice),
        update(client, plan_id, components=twice),
    ):
        refusal = await refusal_of(refused)
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["version.components[2].usage_meter_id"]


async def test_an_unknown_meter_or_plan_is_not_found_and_nothing_is_written(
    client: BillingClient,
) -> None:
    known = await client.create_meter()
    mixed = [component(known), component(UNKNOWN_METER)]
    refusal = await refusal_of(client.create_plan(components=mixed))
    assert refusal.kind == ("NOT_FOUND", "USAGE_METER_NOT_FOUND")
    assert refusal.metadata["resource_id"] == UNKNOWN_METER
    assert await plans_of(client) == []
    plan_id = await client.create_plan()
    assert (await refusal_of(update(client, plan_id, components=mixed))).code == "NOT_FOUND"
    assert len(await versions_of(client, plan_id)) == 1
    for call in (
        get_plan(client, UNKNOWN_PLAN),
        update(client, UNKNOWN_PLAN),
        versions_of(client, UNKNOWN_PLAN),
    ):
        assert (await refusal_of(call)).kind == ("NOT_FOUND", "PLAN_NOT_FOUND")


def interval(unit: Any, count: int) -> pb.BillingInterval:
    return pb.BillingInterval(unit=unit, count=count)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("version.name", {"name": ""}),
        ("version.name", {"name": "x" * 201}),
        ("version.name", {"name": "nul\0"}),
        ("version.base_price_amount", {"base_price_amount": -1}),
        ("version.base_price_amount", {"base_price_amount": 10**15 + 1}),
        ("version.interval", {"interval": None}),
        ("version.interval.unit", {"interval": interval(0, 1)}),
        ("version.interval.unit", {"interval": interval(9, 1)}),
        ("version.interval.count", {"interval": interval(MONTHLY.unit, 0)}),
        ("version.interval.count", {"interval": interval(MONTHLY.unit, 367)}),
        ("version.components", {"components": [component(UNKNOWN_METER)] * 101}),
    ],
)
async def test_a_malformed_version_is_refused_with_its_field(
    client: BillingClient, field: str, changes: dict[str, Any]
) -> None:
    refusal = await refusal_of(client.create_plan(**changes))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDT", "U$D", "USD\n"])
async def test_a_malformed_currency_is_refused(client: BillingClient, currency: str) -> None:
    refusal = await refusal_of(client.create_plan(currency=currency))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["currency"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit_price", ""),
        ("unit_price", "-1"),
        ("unit_price", "NaN"),
        ("unit_price", "1e5"),
        ("unit_price", ".5"),
        ("unit_price", "1,5"),
        ("unit_price", "\u0661"),
        ("unit_price", "1\n"),
        ("unit_price", "1" * 13),
        ("unit_price", "0." + "1" * 13),
        ("included_units", ""),
        ("included_units", "Infinity"),
        ("included_units", "-0"),
        ("included_units", "1" * 19),
        ("usage_meter_id", "api_calls"),
        ("usage_meter_id", UNKNOWN_PLAN),
        ("name", ""),
        ("name", "nul\0"),
    ],
)
async def test_a_malformed_component_is_refused_with_its_field(
    client: BillingClient, field: str, value: str
) -> None:
    bad = component(UNKNOWN_METER)
    if field in {"unit_price", "included_units"}:
        getattr(bad, field).value = value
    else:
        setattr(bad, field, value)
    refusal = await refusal_of(client.create_plan(components=[component(UNKNOWN_METER), bad]))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [f"version.components[1].{field}"]
