"""What every RPC passes through, over a real channel. Only the servicer behind it is canned."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from billing.api.authentication import JwtAuthenticator
from billing.api.signing_keys import SigningKeys, SigningKeysUnavailable
from billing.domain.errors import DatabaseUnavailable, FieldInvalid, ResourceNotFound
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_pb2_grpc
from tests.factories.api_server import KEY, SUBSCRIPTION, ApiUnderTest, bearer
from tests.factories.tokens import IssuerKey

REQUEST = pb.GetBalanceRequest(tenant_id="acme", subscription_id=SUBSCRIPTION)
GOOD = bearer(KEY.token())
GET_BALANCE = "/billing.v1.LedgerService/GetBalance"
MAX_MESSAGE_BYTES = 2048


@pytest.fixture
def api(tmp_path: Path) -> ApiUnderTest:
    return ApiUnderTest(tmp_path, max_message_bytes=MAX_MESSAGE_BYTES)


@pytest.fixture
async def channel(api: ApiUnderTest) -> AsyncIterator[grpc.aio.Channel]:
    async with api.running() as connected:
        yield connected


@pytest.fixture
def ledger(channel: grpc.aio.Channel) -> ledger_pb2_grpc.LedgerServiceStub:
    return ledger_pb2_grpc.LedgerServiceStub(channel)


class Refusal:
    """What a caller learns of a failed RPC."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        call: Any = error
        status: status_pb2.Status | None = rpc_status.from_call(call)
        assert status is not None, f"no status in {error}"
        self.code = error.code().name
        self.message = error.details() or ""
        self.trailing_metadata = dict(error.trailing_metadata())
        self.info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(self.info), "every error carries ErrorInfo"
        self.details = status.details[1:]

    @property
    def reason(self) -> tuple[str, str]:
        return self.code, self.info.reason

    @property
    def fields(self) -> list[str]:
        bad_request = error_details_pb2.BadRequest()
        assert self.details[-1].Unpack(bad_request)
        return [violation.field for violation in bad_request.field_violations]


async def refusal_of(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    refusal = Refusal(failed.value)
    assert refusal.info.domain == "billing-service"
    assert refusal.info.metadata["x-request-id"] == refusal.trailing_metadata["x-request-id"]
    return refusal


async def test_a_good_call_reaches_the_servicer_with_its_scope(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    for livemode in (True, False):
        token = KEY.token(sub="grace", livemode=livemode, capabilities=["billing.ledger:read"])
        answer = await ledger.GetBalance(REQUEST, metadata=[bearer(token)])
        assert answer.balance.outstanding_amount == 7
    assert [(scope.tenant_id, scope.livemode) for scope in api.ledger.scopes] == [
        ("acme", True),
        ("acme", False),
    ]
    assert api.ledger.principals[0].subject == "grace"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "CREDENTIALS_MISSING"),
        ([("authorization", "Basic YTpi")], "CREDENTIALS_INVALID"),
        ([bearer("nonsense")], "CREDENTIALS_INVALID"),
        ([bearer(KEY.token(exp=1))], "CREDENTIALS_EXPIRED"),
        ([bearer(IssuerKey(KEY.kid).token())], "CREDENTIALS_INVALID"),
        ([GOOD, bearer(KEY.token(sub="eve"))], "CREDENTIALS_INVALID"),
    ],
    ids=["none", "basic", "nonsense", "expired", "forged", "two"],
)
async def test_callers_who_prove_nothing_are_refused(
    api: ApiUnderTest,
    ledger: ledger_pb2_grpc.LedgerServiceStub,
    metadata: list[tuple[str, str]],
    reason: str,
) -> None:
    refusal = await refusal_of(ledger.GetBalance(REQUEST, metadata=metadata))
    assert refusal.reason == ("UNAUTHENTICATED", reason)
    assert api.ledger.scopes == []


async def test_a_caller_without_the_capability_is_refused(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    token = KEY.token(capabilities=["billing.run:read", "billing.usage:write"])
    refusal = await refusal_of(ledger.GetBalance(REQUEST, metadata=[bearer(token)]))
    assert refusal.reason == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
    assert refusal.info.metadata["capability"] == "billing.ledger:read"
    assert "'billing.ledger:read'" in refusal.message


@pytest.mark.parametrize("tenant_id", ["umbrella", "", "acme ", "x" * 1000])
async def test_a_foreign_tenant_is_refused_before_the_request_is_judged(
    ledger: ledger_pb2_grpc.LedgerServiceStub, tenant_id: str
) -> None:
    request = pb.GetBalanceRequest(tenant_id=tenant_id, subscription_id="not an id")
    refusal = await refusal_of(ledger.GetBalance(request, metadata=[GOOD]))
    assert refusal.reason == ("PERMISSION_DENIED", "TENANT_DENIED")


async def test_a_caller_with_all_tenants_still_needs_a_possible_one(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    everywhere = bearer(KEY.token(tenants="*"))
    await ledger.GetBalance(REQUEST, metadata=[everywhere])
    request = pb.GetBalanceRequest(subscription_id=SUBSCRIPTION)
    refusal = await refusal_of(ledger.GetBalance(request, metadata=[everywhere]))
    assert refusal.reason == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["tenant_id"]


async def test_every_field_that_breaks_a_rule_is_named(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    request = pb.ListLedgerEntriesRequest(tenant_id="acme", subscription_id="plan_1", page_size=-1)
    refusal = await refusal_of(ledger.ListLedgerEntries(request, metadata=[GOOD]))
    assert refusal.reason == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["subscription_id", "page_size"]
    assert refusal.message.startswith("subscription_id: ")


async def test_an_oversized_message_is_refused_with_its_size(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    request = pb.GetBalanceRequest(tenant_id="acme", subscription_id="x" * MAX_MESSAGE_BYTES)
    refusal = await refusal_of(ledger.GetBalance(request, metadata=[GOOD]))
    assert refusal.reason == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert refusal.info.metadata["size_bytes"] == str(request.ByteSize())
    assert refusal.info.metadata["limit_bytes"] == str(MAX_MESSAGE_BYTES)


async def test_a_message_far_too_large_is_refused_by_grpc_itself(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    request = pb.GetBalanceRequest(tenant_id="acme", subscription_id="x" * MAX_MESSAGE_BYTES * 4)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ledger.GetBalance(request, metadata=[GOOD])
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_bytes_that_are_no_message_are_refused(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary(GET_BALANCE)
    refusal = await refusal_of(call(b"\xff\xff\xff", metadata=[GOOD]))
    assert refusal.reason == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


async def test_strangers_get_nothing_parsed(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary(GET_BALANCE)
    refusal = await refusal_of(call(b"\xff" * (MAX_MESSAGE_BYTES + 1)))
    assert refusal.reason == ("UNAUTHENTICATED", "CREDENTIALS_MISSING")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ResourceNotFound(kind="subscription", resource_id="sub_1"), "NOT_FOUND", None),
        (FieldInvalid("as_of", "lies in the future"), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (DatabaseUnavailable(), "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
    ],
    ids=["not found", "field", "database"],
)
async def test_errors_of_the_domain_get_their_code(
    api: ApiUnderTest,
    ledger: ledger_pb2_grpc.LedgerServiceStub,
    error: Exception,
    code: str,
    reason: str | None,
) -> None:
    api.ledger.failure = error
    refusal = await refusal_of(ledger.GetBalance(REQUEST, metadata=[GOOD]))
    assert refusal.reason == (code, reason or "SUBSCRIPTION_NOT_FOUND")
    assert refusal.message == str(error)


@pytest.mark.parametrize(
    "failure", [ValueError("hunter2"), NotImplementedError("hunter2"), TimeoutError("hunter2")]
)
async def test_an_unknown_error_tells_a_trace_id_and_is_logged(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub, failure: Exception
) -> None:
    api.ledger.failure = failure
    call = ledger.GetBalance(REQUEST, metadata=[GOOD, ("x-request-id", "request-1")])
    with structlog.testing.capture_logs() as logged:
        refusal = await refusal_of(call)
    assert refusal.reason == ("INTERNAL", "INTERNAL")
    assert refusal.message == "internal error; quote trace id request-1"
    assert "hunter2" not in str(refusal.trailing_metadata)
    assert [(line["event"], line["exc_info"]) for line in logged] == [("rpc_failed", failure)]


async def test_keys_out_of_reach_are_our_failure_and_not_the_callers(tmp_path: Path) -> None:
    class KeysOutOfReach:
        async def current(self) -> SigningKeys:
            raise SigningKeysUnavailable

        renewed = current

    api = ApiUnderTest(tmp_path, authenticator=JwtAuthenticator(KeysOutOfReach()))
    async with api.running() as channel:
        stub = ledger_pb2_grpc.LedgerServiceStub(channel)
        refusal = await refusal_of(stub.GetBalance(REQUEST, metadata=[GOOD]))
    assert refusal.reason == ("UNAVAILABLE", "SIGNING_KEYS_UNAVAILABLE")
    assert refusal.details[0].Unpack(error_details_pb2.RetryInfo())


async def test_health_needs_no_token(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "billing.v1.LedgerService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Check(health_pb2.HealthCheckRequest(service="billing.v1.Nothing"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_needs_no_token(channel: grpc.aio.Channel) -> None:
    connected: Any = channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(connected)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="billing.v1.LedgerService"),
    ]
    listed, file = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    assert [service.name for service in listed.list_services_response.service] == [
        "billing.v1.LedgerService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    assert file.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    "path",
    [
        "/billing.v1.LedgerService/Forget",
        "/billing.v1.Nothing/GetBalance",
        "/grpc.health.v1.Health/../../billing.v1.LedgerService/GetBalance",
        "//GetBalance",
    ],
)
async def test_an_unknown_method_is_unimplemented_for_anyone(
    channel: grpc.aio.Channel, path: str
) -> None:
    call: Any = channel.unary_unary(path)
    for metadata in ([], [GOOD]):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"", metadata=metadata)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_callers_request_id_comes_back(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    call = ledger.GetBalance(REQUEST, metadata=[GOOD, ("x-request-id", "request-1")])
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "request-1"
    assert api.ledger.request_ids == ["request-1"]

    call = ledger.GetBalance(REQUEST, metadata=[("x-request-id", "request-2")])
    refusal = await refusal_of(call)
    assert refusal.trailing_metadata["x-request-id"] == "request-2"


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129])
async def test_a_request_id_is_made_where_there_is_none_to_use(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub, given: str | None
) -> None:
    metadata = [GOOD] if given is None else [GOOD, ("x-request-id", given)]
    made = set()
    for _ in range(2):
        call = ledger.GetBalance(REQUEST, metadata=metadata)
        await call
        made.add(dict(await call.trailing_metadata())["x-request-id"])
    assert made == set(api.ledger.request_ids)
    assert all(len(request_id) == 32 for request_id in made)
    assert len(made) == 2


async def test_rpcs_at_a_time_do_not_mix(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    api.ledger.waits = True
    names = [f"request-{number}" for number in range(20)]
    calls = [ledger.GetBalance(REQUEST, metadata=[GOOD, ("x-request-id", n)]) for n in names]
    await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
    api.ledger.may_end.set()
    await asyncio.gather(*calls)
    assert sorted(api.ledger.request_ids) == sorted(names)
    echoed = [dict(await call.trailing_metadata())["x-request-id"] for call in calls]
    assert echoed == names


async def test_the_callers_trace_goes_on(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = ("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")
    await ledger.GetBalance(REQUEST, metadata=[GOOD, parent])
    assert api.ledger.trace_ids == [int(trace_id, 16)]


async def test_rpcs_are_counted_by_code(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    await ledger.GetBalance(REQUEST, metadata=[GOOD])
    await refusal_of(ledger.GetBalance(REQUEST))
    api.ledger.failure = ValueError()
    await refusal_of(ledger.GetBalance(REQUEST, metadata=[GOOD]))
    assert api.rpcs_counted("OK") == 1
    assert api.rpcs_counted("UNAUTHENTICATED") == 1
    assert api.rpcs_counted("INTERNAL") == 1
    labels = {"grpc_service": "billing.v1.LedgerService", "grpc_method": "GetBalance"}
    assert api.metrics.registry.get_sample_value("billing_rpcs_in_flight", labels) == 0


async def test_a_caller_who_leaves_cancels_the_rpc_and_is_no_error(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    api.ledger.waits = True
    with structlog.testing.capture_logs() as logged:
        call = ledger.GetBalance(REQUEST, metadata=[GOOD])
        await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
        call.cancel()
        await asyncio.wait_for(api.ledger.was_cancelled.wait(), timeout=30)
    assert api.rpcs_counted("CANCELLED") == 1
    assert logged == []


async def test_a_deadline_that_passes_is_counted_as_such(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    api.ledger.waits = True
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ledger.GetBalance(REQUEST, metadata=[GOOD], timeout=0.05)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(api.ledger.was_cancelled.wait(), timeout=30)
    assert api.rpcs_counted("DEADLINE_EXCEEDED") == 1


async def test_log_lines_of_an_rpc_name_it_and_its_caller(
    ledger: ledger_pb2_grpc.LedgerServiceStub,
) -> None:
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        request = pb.GetBalanceRequest(tenant_id="acme", subscription_id="x")
        call = ledger.GetBalance(request, metadata=[GOOD, ("x-request-id", "request-1")])
        await refusal_of(call)
    finally:
        structlog.reset_defaults()
    (line,) = capture.entries
    assert line == {
        "event": "rpc_refused",
        "log_level": "info",
        "code": "INVALID_ARGUMENT",
        "error": line["error"],
        "request_id": "request-1",
        "rpc": GET_BALANCE,
        "subject": "ada",
        "livemode": False,
        "tenant_id": "acme",
    }
