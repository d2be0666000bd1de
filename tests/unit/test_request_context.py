"""What is known of the RPC being answered."""

import pytest
from opentelemetry import trace

from billing.api import request_context
from billing.api.authentication import Principal
from billing.domain.scope import Scope
from billing.v1.ledger_pb2 import GetBalanceRequest

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736


class RecordingSpan(trace.NonRecordingSpan):
    """As an SDK would make it."""

    def is_recording(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(RecordingSpan, f"{TRACE_ID:x}"), (trace.NonRecordingSpan, "request-1")],
)
def test_an_rpc_is_found_by_its_trace_if_that_is_recorded(
    kind: type[trace.NonRecordingSpan], expected: str
) -> None:
    span = kind(trace.SpanContext(TRACE_ID, 1, is_remote=False))
    token = request_context._request_id.set("request-1")
    with trace.use_span(span):
        assert request_context.current_trace_id() == expected
    request_context._request_id.reset(token)


def test_the_scope_is_the_requests_tenant_and_the_tokens_livemode() -> None:
    ada = Principal("ada", frozenset({"*"}), livemode=True, capabilities=frozenset())
    token = request_context._principal.set(ada)
    request = GetBalanceRequest(tenant_id="acme")
    assert request_context.current_scope(request) == Scope("acme", livemode=True)
    request_context._principal.reset(token)


def test_there_is_no_scope_without_a_caller() -> None:
    with pytest.raises(LookupError):
        request_context.current_scope(GetBalanceRequest(tenant_id="acme"))
