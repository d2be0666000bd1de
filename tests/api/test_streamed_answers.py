"""An RPC that streams its answer is guarded, named, counted and ended as all others are."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from billing.api.interceptors.method import RequestStreamNotGuarded
from billing.api.interceptors.validation import ValidationInterceptor
from billing.domain.errors import DatabaseUnavailable
from billing.v1 import ledger_export_pb2 as pb
from billing.v1 import ledger_pb2_grpc
from tests.factories.api_server import KEY, ApiUnderTest, bearer
from tests.factories.refusals import Refusal, refusal_of

REQUEST = pb.ExportLedgerRequest(tenant_id="acme", format=pb.LEDGER_EXPORT_FORMAT_CSV)
GOOD = bearer(KEY.token())
PATH = "/billing.v1.LedgerService/ExportLedger"
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


async def counts_of(call: AsyncIterable[pb.ExportLedgerResponse]) -> list[int]:
    return [answer.entry_count async for answer in call]


async def refused(call: AsyncIterable[pb.ExportLedgerResponse]) -> Refusal:
    return await refusal_of(counts_of(call))


async def test_all_parts_arrive_and_the_servicer_knows_the_caller(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = ("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")
    token = KEY.token(sub="grace", livemode=True, capabilities=["billing.ledger:read"])
    metadata = [bearer(token), ("x-request-id", "request-1"), parent]
    call = ledger.ExportLedger(REQUEST, metadata=metadata)
    assert await counts_of(call) == [1, 2, 3]
    assert dict(await call.trailing_metadata())["x-request-id"] == "request-1"
    [scope] = api.ledger.scopes
    assert (scope.tenant_id, scope.livemode) == ("acme", True)
    assert api.ledger.principals[0].subject == "grace"
    assert api.ledger.request_ids == ["request-1"]
    assert api.ledger.trace_ids == [int(trace_id, 16)]
    assert api.ledger.stream_closed.is_set()
    assert api.rpcs_counted("OK", "ExportLedger") == 1


@pytest.mark.parametrize(
    ("metadata", "request_fields", "kind"),
    [
        ([], {}, ("UNAUTHENTICATED", "CREDENTIALS_MISSING")),
        ([bearer(KEY.token(exp=1))], {}, ("UNAUTHENTICATED", "CREDENTIALS_EXPIRED")),
        (
            [bearer(KEY.token(capabilities=["billing.run:read"]))],
            {},
            ("PERMISSION_DENIED", "CAPABILITY_MISSING"),
        ),
        ([GOOD], {"tenant_id": "umbrella"}, ("PERMISSION_DENIED", "TENANT_DENIED")),
        ([GOOD], {"format": 0}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ([GOOD], {"subscription_id": "sub_x"}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ([GOOD], {"subscription_id": "x" * 3000}, ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")),
    ],
    ids=["no token", "expired", "capability", "tenant", "format", "id", "size"],
)
async def test_who_may_not_and_what_is_wrong_gets_nothing(
    api: ApiUnderTest,
    ledger: ledger_pb2_grpc.LedgerServiceStub,
    metadata: Sequence[tuple[str, str]],
    request_fields: dict[str, Any],
    kind: tuple[str, str],
) -> None:
    request = pb.ExportLedgerRequest()
    request.CopyFrom(REQUEST)
    for name, value in request_fields.items():
        setattr(request, name, value)
    refusal = await refused(ledger.ExportLedger(request, metadata=metadata))
    assert refusal.kind == kind
    assert api.ledger.scopes == []
    assert api.rpcs_counted(kind[0], "ExportLedger") == 1


async def test_bytes_that_are_no_message_are_refused(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_stream(PATH)
    refusal = await refused(call(b"\xff\xff\xff", metadata=[GOOD]))
    assert refusal.kind == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (DatabaseUnavailable(), ("UNAVAILABLE", "DATABASE_UNAVAILABLE")),
        (ValueError("hunter2"), ("INTERNAL", "INTERNAL")),
    ],
)
async def test_a_failure_in_the_middle_ends_the_stream_with_its_status(
    api: ApiUnderTest,
    ledger: ledger_pb2_grpc.LedgerServiceStub,
    failure: Exception,
    kind: tuple[str, str],
) -> None:
    api.ledger.failure = failure
    call = ledger.ExportLedger(REQUEST, metadata=[GOOD, ("x-request-id", "request-1")])
    received: list[int] = []

    async def receive() -> None:
        async for answer in call:
            received.append(answer.entry_count)  # noqa: PERF401  kept when the stream fails

    with structlog.testing.capture_logs() as logged:
        refusal = await refusal_of(receive())
    assert refusal.kind == kind
    assert refusal.metadata["x-request-id"] == "request-1"
    assert "hunter2" not in refusal.message
    assert received == [1, 2]
    assert [line["event"] for line in logged] == ["rpc_failed"]
    assert api.rpcs_counted(kind[0], "ExportLedger") == 1
    assert api.ledger.stream_closed.is_set()


async def test_a_caller_who_leaves_in_the_middle_ends_the_work(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    api.ledger.waits = True
    with structlog.testing.capture_logs() as logged:
        call = ledger.ExportLedger(REQUEST, metadata=[GOOD])
        await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
        call.cancel()
        await asyncio.wait_for(api.ledger.was_cancelled.wait(), timeout=30)
    assert api.ledger.stream_closed.is_set()
    assert api.rpcs_counted("CANCELLED", "ExportLedger") == 1
    assert logged == []


async def test_a_caller_who_leaves_without_reading_ends_the_work(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    """The server waits to write then, and not in the servicer."""
    api.ledger.floods = True
    call = ledger.ExportLedger(REQUEST, metadata=[GOOD])
    await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
    call.cancel()
    await asyncio.wait_for(api.ledger.stream_closed.wait(), timeout=30)
    assert api.rpcs_counted("CANCELLED", "ExportLedger") == 1


async def test_a_deadline_that_passes_in_the_middle_is_counted_as_such(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    api.ledger.waits = True
    call = ledger.ExportLedger(REQUEST, metadata=[GOOD], timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await counts_of(call)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(api.ledger.was_cancelled.wait(), timeout=30)
    assert api.rpcs_counted("DEADLINE_EXCEEDED", "ExportLedger") == 1


async def test_streams_at_a_time_do_not_mix(
    api: ApiUnderTest, ledger: ledger_pb2_grpc.LedgerServiceStub
) -> None:
    names = [f"request-{number}" for number in range(20)]
    calls = [ledger.ExportLedger(REQUEST, metadata=[GOOD, ("x-request-id", n)]) for n in names]
    assert await asyncio.gather(*map(counts_of, calls)) == [[1, 2, 3]] * 20
    assert sorted(api.ledger.request_ids) == sorted(names)
    echoed = [dict(await call.trailing_metadata())["x-request-id"] for call in calls]
    assert echoed == names


async def test_an_rpc_that_takes_a_stream_has_no_handler() -> None:
    async def answer(requests: object, context: object) -> None:
        """Answer nothing."""

    handler: Any = grpc.stream_unary_rpc_method_handler(answer)

    async def found(details: object) -> object:
        return handler

    details: Any = type("Details", (), {"method": "/open.v1.OpenService/Send"})
    with pytest.raises(RequestStreamNotGuarded):
        await ValidationInterceptor().intercept_service(found, details)
