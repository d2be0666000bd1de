"""What is known of the RPC being answered. Every RPC runs in a context of its own."""

from contextvars import ContextVar
from typing import Any, Final, Protocol

import grpc.aio
import structlog
from opentelemetry import trace

from billing.api.authentication import Principal
from billing.domain.scope import Scope

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata that names an RPC, in requests, answers and errors."""

Context = grpc.aio.ServicerContext[Any, Any]

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_principal: ContextVar[Principal] = ContextVar("principal")


class TenantRequest(Protocol):
    """A request of one tenant: every request of the API."""

    @property
    def tenant_id(self) -> str: ...


def current_request_id() -> str:
    """Return the id of the RPC being answered; empty outside one."""
    return _request_id.get()


def current_trace_id() -> str:
    """Return what finds the RPC: the trace id if it is recorded, else the request id."""
    span = trace.get_current_span()
    if span.is_recording():
        return trace.format_trace_id(span.get_span_context().trace_id)
    return current_request_id()


def current_principal() -> Principal:
    """Return the verified caller; raises LookupError where none was asked for."""
    return _principal.get()


def current_scope(request: TenantRequest) -> Scope:
    """Return the data that the RPC is about: the request's tenant, the token's livemode."""
    return Scope(tenant_id=request.tenant_id, livemode=current_principal().livemode)


def set_request_id(request_id: str, *, method: str) -> None:
    """Name the RPC, here and in its log lines."""
    _request_id.set(request_id)
    structlog.contextvars.bind_contextvars(request_id=request_id, rpc=method)


def set_principal(principal: Principal) -> None:
    """Set the verified caller, here and in the log lines."""
    _principal.set(principal)
    structlog.contextvars.bind_contextvars(subject=principal.subject, livemode=principal.livemode)
