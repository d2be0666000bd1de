"""Every RPC of the contract keeps to its caller's tenant, mode and capabilities; none is forgotten.

The RPCs come from the descriptors: a new one fails here until it says what a stranger gets.
"""

import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

import billing.v1
from billing.sandbox.development_key import DevelopmentKey, mint_token
from billing.v1 import catalog_pb2, ledger_pb2, options_pb2, subscription_pb2, usage_pb2
from tests.factories.client import BillingClient, component, new_tenant
from tests.factories.clock import START, FakeClock
from tests.factories.refusals import refusal_of
from tests.factories.usage import MeteredSubscription, metered_subscription


def all_methods() -> list[MethodDescriptor]:
    """Every RPC of ``billing.v1``."""
    modules = [
        importlib.import_module(f"billing.v1.{module.name}")
        for module in pkgutil.iter_modules(billing.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    return [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


METHODS = {f"{method.containing_service.name}.{method.name}": method for method in all_methods()}
CAPABILITIES = {
    name: method.GetOptions().Extensions[options_pb2.required_capability]
    for name, method in METHODS.items()
}
EVERY_RPC = pytest.mark.parametrize("rpc", sorted(METHODS))


@dataclass(frozen=True)
class World:
    """One tenant's live things, for others to try."""

    metered: MeteredSubscription
    usage_event: usage_pb2.UsageEvent
    run_id: str
    ledger_transaction_id: str

    @property
    def client(self) -> BillingClient:
        """The owner of it all."""
        return self.metered.client

    async def everything(self) -> list[Any]:
        """All that the owner sees, to tell whether anything was touched."""
        client, subscription_id = self.client, self.metered.subscription_id
        lists = [
            ("CatalogService.ListUsageMeters", {}),
            ("CatalogService.ListPlans", {}),
            ("CatalogService.ListPlanVersions", {"plan_id": self.metered.plan_id}),
            ("SubscriptionService.ListSubscriptions", {}),
            ("UsageService.ListUsageEvents", {"subscription_id": subscription_id}),
            ("BillingRunService.ListBillingRuns", {}),
            ("LedgerService.ListLedgerEntries", {"subscription_id": subscription_id}),
            ("LedgerService.GetTrialBalance", {}),
        ]
        return [await call(client, request_of(rpc, **fields)) for rpc, fields in lists]


Fields = Mapping[str, Any]


def plan_version(world: World) -> catalog_pb2.PlanVersionInput:
    return world.client.plan_version(components=[component(world.metered.meter_id)])


def subscription_of(world: World) -> Fields:
    return {"subscription_id": world.metered.subscription_id}


# What a stranger asks for: the owner's things, wherever the request can name any.
ASKED: Mapping[str, Callable[[World], Fields]] = {
    "CatalogService.CreateUsageMeter": lambda _: {
        "code": "api_calls",
        "name": "API calls",
        "aggregation": catalog_pb2.USAGE_AGGREGATION_SUM,
        "request_id": "request-1",
    },
    "CatalogService.GetUsageMeter": lambda w: {"usage_meter_id": w.metered.meter_id},
    "CatalogService.ListUsageMeters": lambda _: {},
    "CatalogService.CreatePlan": lambda w: {"currency": "USD", "version": plan_version(w)},
    "CatalogService.UpdatePlan": lambda w: {
        "plan_id": w.metered.plan_id,
        "version": w.client.plan_version(),
    },
    "CatalogService.GetPlan": lambda w: {"plan_id": w.metered.plan_id},
    "CatalogService.ListPlans": lambda _: {},
    "CatalogService.ListPlanVersions": lambda w: {"plan_id": w.metered.plan_id},
    "SubscriptionService.CreateSubscription": lambda w: {
        "plan_id": w.metered.plan_id,
        "customer_id": "cus-1",
    },
    "SubscriptionService.GetSubscription": subscription_of,
    "SubscriptionService.ListSubscriptions": lambda _: {"customer_id": "cus-1"},
    "SubscriptionService.PauseSubscription": subscription_of,
    "SubscriptionService.ResumeSubscription": subscription_of,
    "SubscriptionService.CancelSubscription": lambda w: {
        **subscription_of(w),
        "mode": subscription_pb2.CANCELLATION_MODE_IMMEDIATELY,
        "request_id": "request-1",
    },
    "UsageService.IngestUsageEvents": lambda w: {"events": [w.metered.event()]},
    "UsageService.GetUsageEvent": lambda w: {"usage_event_id": w.usage_event.id},
    "UsageService.ListUsageEvents": subscription_of,
    "BillingRunService.RunBilling": lambda _: {"run_type": 2, "request_id": "request-1"},
    "BillingRunService.RunBillingForSubscription": lambda w: {
        **subscription_of(w),
        "request_id": "request-1",
    },
    "BillingRunService.GetBillingRun": lambda w: {"run_id": w.run_id},
    "BillingRunService.ListBillingRuns": lambda _: {},
    "BillingRunService.ListBillingRunResults": lambda w: {"run_id": w.run_id},
    "LedgerService.GetBalance": subscription_of,
    "LedgerService.ListLedgerEntries": subscription_of,
    "LedgerService.GetLedgerTransaction": lambda w: {
        "ledger_transaction_id": w.ledger_transaction_id
    },
    "LedgerService.GetTrialBalance": lambda _: {},
}

# Requests that name nothing of the owner's, or have an answer for each event: what a stranger,
# who has nothing, gets instead of NOT_FOUND.
ANSWERED: Mapping[str, Callable[[Any], bool]] = {
    "CatalogService.CreateUsageMeter": lambda answer: answer.usage_meter.code == "api_calls",
    "CatalogService.ListUsageMeters": lambda answer: not answer.usage_meters,
    "CatalogService.ListPlans": lambda answer: not answer.plans,
    "SubscriptionService.ListSubscriptions": lambda answer: not answer.subscriptions,
    "UsageService.IngestUsageEvents": lambda answer: (
        answer.results[0].reason == "SUBSCRIPTION_NOT_FOUND"
    ),
    "BillingRunService.RunBilling": lambda answer: answer.billing_run.processed_count == 0,
    "BillingRunService.ListBillingRuns": lambda answer: not answer.billing_runs,
    "LedgerService.GetTrialBalance": lambda answer: not answer.lines,
}


@dataclass(frozen=True)
class Request:
    """A request without its tenant."""

    rpc: str
    message: Any

    @property
    def path(self) -> str:
        """How gRPC names the RPC."""
        service, method = self.rpc.split(".")
        return f"/billing.v1.{service}/{method}"


def request_of(rpc: str, **fields: Any) -> Request:
    """A request of an RPC."""
    return Request(rpc, GetMessageClass(METHODS[rpc].input_type)(**fields))


async def call(
    client: BillingClient, request: Request, *, tenant_id: str = "", token: str | None = ""
) -> Any:
    """Send the request for the caller's tenant, or another; with its token, another, or none."""
    message = type(request.message)()
    message.CopyFrom(request.message)
    message.tenant_id = tenant_id or client.tenant_id
    send: Any = client.channel.unary_unary(
        request.path,
        request_serializer=type(message).SerializeToString,
        response_deserializer=GetMessageClass(METHODS[request.rpc].output_type).FromString,
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token or client.token}")]
    return await send(message, metadata=metadata)


@pytest.fixture(scope="module")
async def shared_world(
    channel: grpc.aio.Channel, signing_key: DevelopmentKey, session_clock: FakeClock
) -> World:
    """A subscription with a billed period, a due one with usage, and everything they leave."""
    session_clock.set(START)
    client = BillingClient(channel, signing_key)
    metered = await metered_subscription(
        client, base_price_amount=2000, started_at=START - timedelta(days=70)
    )
    result = await client.run_for_subscription(metered.subscription_id)
    await metered.send(metered.event("5", at=START - timedelta(days=30)))
    (usage_event,) = await metered.stored()
    entries = await client.entries(metered.subscription_id)
    assert {entry.entry_type for entry in entries} == {
        ledger_pb2.LEDGER_ENTRY_TYPE_CHARGE_BILLED,
        ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST,
    }
    return World(metered, usage_event, result.run_id, entries[0].ledger_transaction_id)


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
