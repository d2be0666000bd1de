"""Calls the invoicing service: deadline, retry with backoff, and a check of what it answers."""

import asyncio
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import propagate, trace

from billing.clients.invoicing_messages import create_invoice_request, created_invoice_id
from billing.domain.errors import InvoiceRefused, InvoicingUnavailable
from billing.domain.invoices import InvoiceRequest
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Room for an invoice of about 25,000 lines."""

# The idempotency key makes it safe to send again whatever became of the attempt, so every code that
# can pass by itself is retried. All others say something about the invoice that will stay true.
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
    # invoicing service is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A sibling service is reached directly. gRPC would take even loopback calls to the proxy that
    # a machine names in https_proxy.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)

_TRACER: Final = trace.get_tracer(__name__)
_SPAN_NAME: Final = "invoicing.v1.InvoicingService/CreateInvoice"
_SPAN_ATTRIBUTES: Final = {
    "rpc.system": "grpc",
    "rpc.service": "invoicing.v1.InvoicingService",
    "rpc.method": "CreateInvoice",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicingClientSettings:
    """How long and how often to try.

    ``deadline_seconds`` is for one attempt. ``tls_root_certificates`` is a PEM file; None means
    plaintext.
    """

    deadline_seconds: float = 5.0
    max_attempts: int = 4
    initial_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 2.0
    tls_root_certificates: Path | None = None

    def __post_init__(self) -> None:
        assert self.max_attempts >= 1, self
        assert self.deadline_seconds > 0, self
        assert 0 <= self.initial_backoff_seconds <= self.max_backoff_seconds, self

    def backoff_limit_seconds(self, *, failures_count: int) -> float:
        """Return the longest wait after so many failures in a row: twice the last one, capped."""
        doublings_count = min(failures_count - 1, 64)  # beyond a thousand a float overflows
        limit_seconds = math.ldexp(self.initial_backoff_seconds, doublings_count)
        return min(limit_seconds, self.max_backoff_seconds)


class InvoicingClient:
    """One channel to the invoicing service, for any number of concurrent calls.

    To be made inside the event loop that uses it, and closed in it.
    """

    def __init__(
        self, channel_target: str, *, settings: InvoicingClientSettings | None = None
    ) -> None:
        """``channel_target`` is a gRPC name: ``host:port``, ``dns:///host:port``, ``unix:/path``.

        Raises OSError if the file of root certificates cannot be read. Connects at the first call.
        """
        self._settings = settings or InvoicingClientSettings()
        self._channel = _open_channel(channel_target, self._settings.tls_root_certificates)
        self._stub = invoicing_pb2_grpc.InvoicingServiceStub(self._channel)
        self._span_attributes = {**_SPAN_ATTRIBUTES, "server.address": channel_target}
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def create_invoice(self, request: InvoiceRequest) -> str:
        """Create the invoice, or find the one made before with the key, and return its id.

        Raises InvoicingUnavailable after the last attempt (whether the invoice was made is then
        unknown: send the same request again), and InvoiceRefused at once where a retry is useless.
        """
        message = create_invoice_request(request)
        last_error: grpc.aio.AioRpcError | None = None
        for failures_count in range(self._settings.max_attempts):
            if failures_count:
                await self._back_off(failures_count)
            try:
                response = await self._attempt(message)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _PASSING_CODES:
                    raise InvoiceRefused(detail=_described(error)) from error
                last_error = error
            else:
                return created_invoice_id(response, request)
        assert last_error is not None  # there is at least one attempt
        raise InvoicingUnavailable(
            detail=_described(last_error), attempts_count=self._settings.max_attempts
        ) from last_error

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def _attempt(
        self, message: invoicing_pb2.CreateInvoiceRequest
    ) -> invoicing_pb2.CreateInvoiceResponse | None:
        with _TRACER.start_as_current_span(
            _SPAN_NAME, kind=trace.SpanKind.CLIENT, attributes=self._span_attributes
        ) as span:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            try:
                # Without wait_for_ready: a channel that cannot connect fails the attempt at once.
                return await self._stub.CreateInvoice(
                    message,
                    timeout=self._settings.deadline_seconds,
                    metadata=tuple(headers.items()),
                )
            except grpc.aio.AioRpcError as error:
                span.set_attribute("rpc.response.status_code", error.code().name)
                raise

    async def _back_off(self, failures_count: int) -> None:
        # Full jitter, so that the calls of one batch do not all come back at the same moment:
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        limit_seconds = self._settings.backoff_limit_seconds(failures_count=failures_count)
        await asyncio.sleep(self._jitter.uniform(0, limit_seconds))


def _open_channel(channel_target: str, tls_root_certificates: Path | None) -> grpc.aio.Channel:
    if tls_root_certificates is None:
        return grpc.aio.insecure_channel(channel_target, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls_root_certificates.read_bytes())
    return grpc.aio.secure_channel(channel_target, credentials, options=_CHANNEL_OPTIONS)


def _described(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
