"""Calls the invoicing service: deadline, retry with backoff, and a check of what it answers."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry import propagate, trace

from billing.clients import invoicing_messages as messages
from billing.domain.errors import InvoiceRefused, InvoicingUnavailable
from billing.domain.invoices import CreditNoteRequest, FoundInvoice, InvoiceRequest, VoidRequest
from invoicing.v1 import invoicing_pb2_grpc

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Room for an invoice of about 25,000 lines."""

# The idempotency key makes it safe to send again whatever became of the attempt (a look-up needs
# none), so every code that can pass by itself is retried. All others say something about the
# invoice that will stay true.
_SILENT_CODES: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What is said of a service that says nothing; other codes are its answers about one invoice."""
_PASSING_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

_CHANNEL_OPTIONS: Final = (
    # Pings go out only while a call waits: more would break the ping policy of most servers. On
    # Linux the timeout also bounds how long written bytes may stay unacknowledged, which is what
    # finds a connection that a firewall dropped between two billing runs.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # gRPC's own two minutes between connection attempts would fail runs long after the
    # invoicing service is back. With four attempts at an invoice (0.35 s and more) and a quarter of
    # a second between connections, the first run after that delivers.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # A sibling service is reached directly. gRPC would take even loopback calls to the proxy that
    # a machine names in https_proxy.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)

_TRACER: Final = trace.get_tracer(__name__)
_RPC_SERVICE: Final = "invoicing.v1.InvoicingService"

_Asked = TypeVar("_Asked", bound=Message)
_Answered = TypeVar("_Answered", bound=Message)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicingTls:
    """PEM texts: whom to trust, and what to be known by, if anything."""

    root_certificates: bytes
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicingClientSettings:
    """How long and how often to try.

    ``deadline_seconds`` is for one attempt. ``tls`` None means plaintext.
    """

    deadline_seconds: float = 5.0
    max_attempts: int = 4
    initial_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 2.0
    tls: InvoicingTls | None = None

    def __post_init__(self) -> None:
        assert self.max_attempts >= 1, self
        assert self.deadline_seconds > 0, self
        assert 0 <= self.initial_backoff_seconds <= self.max_backoff_seconds, self

    def backoff_limit_seconds(self, *, failures_count: int) -> float:
        """Return the longest wait after so many failures in a row: twice the last one, capped."""
        doublings_count = min(failures_count - 1, 64)  # beyond a thousand a float overflows
        limit_seconds = math.ldexp(self.initial_backoff_seconds, doublings_count)
        return min(limit_seconds, self.max_backoff_seconds)


class InvoicingMetering(Protocol):
    """Counts what is asked of the invoicing service."""

    def record_invoice_attempt(self, code: str, *, seconds: float) -> None:
        """Time an attempt at a call, by the name of its status code."""
        ...

    def record_invoice_delivery(self, outcome: str) -> None:
        """Count an invoice, credit note or void asked for: "created", "unavailable", "refused"."""
        ...


@dataclass(frozen=True, slots=True)
class _Call(Generic[_Asked, _Answered]):
    """One RPC with its message. ``asked_for`` is what errors call it."""

    method: str
    rpc: "grpc.aio.UnaryUnaryMultiCallable[_Asked, _Answered]"
    message: _Asked
    asked_for: str


class InvoicingClient:
    """One channel to the invoicing service, for any number of concurrent calls.

    To be made inside the event loop that uses it, and closed in it.
    """

    def __init__(
        self,
        channel_target: str,
        *,
        settings: InvoicingClientSettings | None = None,
        metering: InvoicingMetering | None = None,
    ) -> None:
        """``channel_target`` is a gRPC name: ``host:port``, ``dns:///host:port``, ``unix:/path``.

        Connects at the first call.
        """
        self._settings = settings or InvoicingClientSettings()
        self._channel = _open_channel(channel_target, self._settings.tls)
        self._stub = invoicing_pb2_grpc.InvoicingServiceStub(self._channel)
        self._metering = metering
        self._server_address = channel_target
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def create_invoice(self, request: InvoiceRequest) -> str:
        """Create the invoice, or find the one made before with the key, and return its id.

        Raises InvoicingUnavailable after the last attempt (whether the invoice was made is then
        unknown: send the same request again), and InvoiceRefused at once where a retry is useless.
        """
        call = _Call(
            "CreateInvoice",
            self._stub.CreateInvoice,
            messages.create_invoice_request(request),
            messages.INVOICE,
        )
        return await self._deliver(call, lambda it: messages.created_invoice_id(it, request))

    async def create_credit_note(self, request: CreditNoteRequest) -> str:
        """Create the credit note, or find the one made before with the key, and return its id.

        Raises what ``create_invoice`` raises.
        """
        call = _Call(
            "CreateCreditNote",
            self._stub.CreateCreditNote,
            messages.create_credit_note_request(request),
            messages.CREDIT_NOTE,
        )
        return await self._deliver(call, lambda it: messages.created_credit_note_id(it, request))

    async def void_invoice(self, request: VoidRequest) -> None:
        """Void the invoice; nothing happens where it is void already.

        Raises what ``create_invoice`` raises.
        """
        call = _Call(
            "VoidInvoice",
            self._stub.VoidInvoice,
            messages.void_invoice_request(request),
            messages.VOID,
        )
        await self._deliver(call, lambda it: messages.expect_voided(it, request))

    async def find_invoice(self, *, tenant_id: str, invoice_id: str) -> FoundInvoice | None:
        """Return how the invoice stands, None if the tenant has no such invoice.

        Raises InvoicingUnavailable after the last attempt, InvoiceRefused for an answer of no use.
        """
        message = messages.get_invoice_request(tenant_id=tenant_id, invoice_id=invoice_id)
        call = _Call("GetInvoice", self._stub.GetInvoice, message, messages.LOOK_UP)
        try:
            response = await self._send(call)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _refusal(call, error) from error
        return messages.found_invoice(response, message)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def _deliver(
        self, call: _Call[_Asked, _Answered], read: Callable[[_Answered | None], _Result]
    ) -> _Result:
        """Send the call and count what came of it; ``read`` raises for an answer of no use."""
        try:
            result = read(await self._send(call))
        except InvoicingUnavailable:
            self._count("unavailable")
            raise
        except InvoiceRefused:
            self._count("refused")
            raise
        except grpc.aio.AioRpcError as error:
            self._count("refused")
            raise _refusal(call, error) from error
        self._count("created")
        return result

    async def _send(self, call: _Call[_Asked, _Answered]) -> _Answered | None:
        """Return the answer of the first attempt that has one.

        Raises InvoicingUnavailable after the last attempt, AioRpcError where a retry is useless.
        """
        last_error: grpc.aio.AioRpcError | None = None
        for failures_count in range(self._settings.max_attempts):
            if failures_count:
                await self._back_off(failures_count)
            try:
                return await self._attempt(call)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _PASSING_CODES:
                    raise
                last_error = error
        assert last_error is not None  # there is at least one attempt
        raise InvoicingUnavailable(
            detail=_described(last_error),
            attempts_count=self._settings.max_attempts,
            answered=last_error.code() not in _SILENT_CODES,
            asked_for=call.asked_for,
        ) from last_error

    async def _attempt(self, call: _Call[_Asked, _Answered]) -> _Answered | None:
        with _TRACER.start_as_current_span(
            f"{_RPC_SERVICE}/{call.method}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": _RPC_SERVICE,
                "rpc.method": call.method,
                "server.address": self._server_address,
            },
        ) as span:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            began_at = time.monotonic()
            try:
                # Without wait_for_ready: a channel that cannot connect fails the attempt at once.
                response = await call.rpc(
                    call.message,
                    timeout=self._settings.deadline_seconds,
                    metadata=tuple(headers.items()),
                )
            except grpc.aio.AioRpcError as error:
                span.set_attribute("rpc.response.status_code", error.code().name)
                self._time(error.code().name, began_at)
                raise
            self._time("OK", began_at)
            return response

    def _time(self, code: str, began_at: float) -> None:
        if self._metering is not None:
            self._metering.record_invoice_attempt(code, seconds=time.monotonic() - began_at)

    def _count(self, outcome: str) -> None:
        if self._metering is not None:
            self._metering.record_invoice_delivery(outcome)

    async def _back_off(self, failures_count: int) -> None:
        # "Equal jitter": the calls of one batch do not all come back at the same moment, and none
        # uses up its attempts before the channel has tried to connect again.
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        limit_seconds = self._settings.backoff_limit_seconds(failures_count=failures_count)
        await asyncio.sleep(self._jitter.uniform(limit_seconds / 2, limit_seconds))


def _open_channel(channel_target: str, tls: InvoicingTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(channel_target, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        tls.root_certificates, tls.private_key, tls.certificate_chain
    )
    return grpc.aio.secure_channel(channel_target, credentials, options=_CHANNEL_OPTIONS)


def _refusal(call: _Call[_Asked, _Answered], error: grpc.aio.AioRpcError) -> InvoiceRefused:
    return InvoiceRefused(detail=_described(error), asked_for=call.asked_for)


def _described(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
