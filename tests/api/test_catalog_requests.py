"""The catalog's mutations are safe to repeat, one after the other and at the same time."""

import asyncio
from typing import Any

import pytest

from billing.v1 import catalog_pb2 as pb
from tests.factories.client import BillingClient, new_tenant
from tests.factories.refusals import refusal_of

CONCURRENT_CALLS = 6


async def create_meter(client: BillingClient, request_id: str, code: str = "api_calls") -> str:
    answer = await client.catalog.CreateUsageMeter(
        pb.CreateUsageMeterRequest(
            tenant_id=client.tenant_id,
            code=code,
            name=code,
            aggregation=pb.USAGE_AGGREGATION_SUM,
            request_id=request_id,
        )
    )
    return str(answer.usage_meter.id)


async def create_plan(client: BillingClient, request_id: str, **version: Any) -> pb.Plan:
    answer = await client.catalog.CreatePlan(
        pb.CreatePlanRequest(
            tenant_id=client.tenant_id,
            currency="USD",
            version=client.plan_version(**version),
            request_id=request_id,
        )
    )
    return answer.plan  # type: ignore[no-any-return]


async def update_plan(
    client: BillingClient, plan_id: str, request_id: str, **version: Any
) -> pb.Plan:
    answer = await client.catalog.UpdatePlan(
        pb.UpdatePlanRequest(
            tenant_id=client.tenant_id,
            plan_id=plan_id,
            version=client.plan_version(**version),
            request_id=request_id,
        )
    )
    return answer.plan  # type: ignore[no-any-return]


async def count_of_plans(client: BillingClient) -> int:
    request = pb.ListPlansRequest(tenant_id=client.tenant_id)
    return len((await client.catalog.ListPlans(request)).plans)


async def test_a_repeat_is_answered_as_the_first_call_was(client: BillingClient) -> None:
    meter_ids = {await create_meter(client, "request-1") for _ in range(2)}
    assert len(meter_ids) == 1
    first = await create_plan(client, "request-1")
    second = await update_plan(client, first.id, "request-1", name="Second")
    third = await update_plan(client, first.id, "request-2", name="Third")
    assert third.latest_version.version == 3
    assert await create_plan(client, "request-1") == first
    assert await update_plan(client, first.id, "request-1", name="Second") == second
    assert await count_of_plans(client) == 1


async def test_without_a_request_id_every_call_is_new(client: BillingClient) -> None:
    plans = [await create_plan(client, "") for _ in range(2)]
    assert plans[0].id != plans[1].id


async def test_a_request_id_stands_for_one_content(client: BillingClient) -> None:
    await create_meter(client, "request-1")
    plan = await create_plan(client, "request-1")
    await update_plan(client, plan.id, "request-1")
    refused = [
        (create_meter(client, "request-1", "storage"), "CreateUsageMeter"),
        (create_plan(client, "request-1", base_price_amount=2001), "CreatePlan"),
        (update_plan(client, plan.id, "request-1", name="Other"), "UpdatePlan"),
    ]
    for call, method in refused:
        refusal = await refusal_of(call)
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        assert refusal.fields == ["request_id"]
        assert refusal.metadata["request_id"] == "request-1"
        assert refusal.metadata["method"] == method
    assert await count_of_plans(client) == 1


async def test_a_request_id_belongs_to_its_tenant_mode_and_method(client: BillingClient) -> None:
    plan_ids = {(await create_plan(client, "request-1")).id}
    for elsewhere in (client.in_test_mode(), client.for_tenant(new_tenant())):
        plan_ids.add((await create_plan(elsewhere, "request-1")).id)
    assert len(plan_ids) == 3
    assert await create_meter(client, "request-1")


async def test_only_successes_are_kept(client: BillingClient) -> None:
    await create_meter(client, "request-1")
    refusal = await refusal_of(create_meter(client, "request-2"))
    assert refusal.code == "ALREADY_EXISTS"
    assert await create_meter(client, "request-2", "storage")


@pytest.mark.parametrize("attempt", range(3))
async def test_concurrent_repeats_make_one_thing(client: BillingClient, attempt: int) -> None:
    plans = await asyncio.gather(
        *[create_plan(client, "request-1") for _ in range(CONCURRENT_CALLS)]
    )
    assert all(plan == plans[0] for plan in plans)
    assert await count_of_plans(client) == 1
    meter_ids = await asyncio.gather(
        *[create_meter(client, "request-1") for _ in range(CONCURRENT_CALLS)]
    )
    assert len(set(meter_ids)) == 1
    updates = await asyncio.gather(
        *[update_plan(client, plans[0].id, "request-1") for _ in range(CONCURRENT_CALLS)]
    )
    assert {plan.latest_version.version for plan in updates} == {2}


async def test_of_concurrent_contents_one_wins(client: BillingClient) -> None:
    outcomes = await asyncio.gather(
        *[
            create_plan(client, "request-1", base_price_amount=number)
            for number in range(CONCURRENT_CALLS)
        ],
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, pb.Plan) for outcome in outcomes) == 1
    assert await count_of_plans(client) == 1
