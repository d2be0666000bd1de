"""Every RPC of the contract keeps to its caller's tenant, mode and capabilities; none is forgotten.

The RPCs come from the descriptors: a new one fails here until it says what a stranger gets.
"""

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc.aio
import pytest

from billing.sandbox.development_key import DevelopmentKey, mint_token
from tests.factories.client import BillingClient, new_tenant
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of
from tests.factories.stranger_requests import ANSWERED, ASKED
from tests.factories.tenant_world import (
    CAPABILITIES,
    METHODS,
    World,
    call,
    make_world,
    request_of,
)
from tests.factories.usage import metered_subscription

EVERY_RPC = pytest.mark.parametrize("rpc", sorted(METHODS))


@pytest.fixture(scope="module")
async def shared_world(
    channel: grpc.aio.Channel, signing_key: DevelopmentKey, session_clock: FakeClock
) -> World:
    """One tenant's live things, for others to try."""
    return await make_world(BillingClient(channel, signing_key), session_clock)


@pytest.fixture
async def world(shared_world: World, clock: FakeClock) -> AsyncIterator[World]:
    """The owner's things, which nothing in a test may have touched."""
    before = await shared_world.everything()
    yield shared_world
    assert await shared_world.everything() == before


@pytest.fixture(params=["another tenant", "test mode"])
def stranger(request: pytest.FixtureRequest, shared_world: World) -> BillingClient:
    """A caller who has nothing: of another tenant, or with the owner's token for test data."""
    if request.param == "test mode":
        return shared_world.client.in_test_mode()
    return shared_world.client.for_tenant(new_tenant())


def test_every_rpc_says_what_a_stranger_asks_for() -> None:
    assert set(ASKED) == set(METHODS)
    assert set(ANSWERED) < set(METHODS)
    assert all(CAPABILITIES.values())


@EVERY_RPC
async def test_a_strangers_own_credentials_find_nothing(
    world: World, stranger: BillingClient, rpc: str
) -> None:
    if rpc in {"CatalogService.CreateUsageMeter", "BillingRunService.RunBilling"}:
        # What they create stays theirs; test data of one tenant is shared by these tests.
        stranger = stranger.for_tenant(new_tenant())
    asked = call(stranger, request_of(rpc, **ASKED[rpc](world)))
    if rpc in ANSWERED:
        assert ANSWERED[rpc](await asked)
    else:
        refusal = await refusal_of(asked)
        assert refusal.code == "NOT_FOUND"
        assert refusal.reason.endswith("_NOT_FOUND")


@EVERY_RPC
async def test_the_owner_finds_what_a_stranger_does_not(world: World, rpc: str) -> None:
    if CAPABILITIES[rpc].endswith(":read"):
        answer = await call(world.client, request_of(rpc, **ASKED[rpc](world)))
        assert answer.ByteSize() > 0


@EVERY_RPC
async def test_another_tenants_token_is_refused_before_existence_is_looked_at(
    world: World, rpc: str
) -> None:
    stranger = world.client.for_tenant(new_tenant())
    for owner in (world.client.tenant_id, new_tenant()):
        for fields in (ASKED[rpc](world), {}):
            asked = call(stranger, request_of(rpc, **fields), tenant_id=owner)
            refusal = await refusal_of(asked)
            assert refusal.kind == ("PERMISSION_DENIED", "TENANT_DENIED")
            assert refusal.metadata["tenant_id"] == owner


@EVERY_RPC
async def test_without_its_capability_an_rpc_is_refused_by_the_capabilitys_name(
    world: World, rpc: str
) -> None:
    others = set(CAPABILITIES.values()) - {CAPABILITIES[rpc]}
    caller = world.client.with_capabilities(*sorted(others))
    for fields in (ASKED[rpc](world), {}):
        refusal = await refusal_of(call(caller, request_of(rpc, **fields)))
        assert refusal.kind == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
        assert refusal.metadata["capability"] == CAPABILITIES[rpc]
        assert CAPABILITIES[rpc] in refusal.message


@EVERY_RPC
async def test_its_capability_is_all_that_an_rpc_needs(world: World, rpc: str) -> None:
    stranger = world.client.for_tenant(new_tenant()).with_capabilities(CAPABILITIES[rpc])
    asked = call(stranger, request_of(rpc, **ASKED[rpc](world)))
    if rpc in ANSWERED:
        assert ANSWERED[rpc](await asked)
    else:
        assert (await refusal_of(asked)).code == "NOT_FOUND"


@EVERY_RPC
async def test_nobody_gets_in_without_a_token(world: World, rpc: str) -> None:
    request = request_of(rpc, **ASKED[rpc](world))
    refusal = await refusal_of(call(world.client, request, token=None))
    assert refusal.kind == ("UNAUTHENTICATED", "CREDENTIALS_MISSING")
    forged = world.client.token[:-4] + "AAAA"
    refusal = await refusal_of(call(world.client, request, token=forged))
    assert refusal.kind == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")


@EVERY_RPC
async def test_a_caller_of_all_tenants_still_names_a_possible_one(world: World, rpc: str) -> None:
    token = mint_token(
        world.client.key,
        subject="tests",
        tenants="*",
        livemode=True,
        capabilities="*",
        ttl_seconds=600,
    )
    request = request_of(rpc, **ASKED[rpc](world))
    refusal = await refusal_of(
        call(world.client, request, tenant_id="no/tenant' OR true", token=token)
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["tenant_id"]


async def test_a_mutation_of_test_data_leaves_live_data_alone(world: World) -> None:
    test_mode = world.client.in_test_mode()
    metered = await metered_subscription(
        test_mode,
        base_price_amount=1,
        started_at=START - timedelta(days=70),
        code=new_tenant(),
    )
    await metered.send(metered.event("3", key=world.usage_event.idempotency_key))
    run = await test_mode.run_billing("request-of-test-data")
    assert {result.subscription_id for result in run.results} == {metered.subscription_id}
    assert (await test_mode.balance(metered.subscription_id)).outstanding_amount == 8
