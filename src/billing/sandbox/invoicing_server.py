"""The reference invoicing server: keeps invoices as the contract says, and fails on demand."""

import asyncio
import ipaddress
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from billing.sandbox.invoice_book import InvoiceBook
from billing.sandbox.invoicing_rules import (
    broken_rules,
    conflict_of,
    credit_note_refusal,
    problem_of_credit_note,
    problem_of_invoice,
    void_conflict_of,
    void_refusal,
)
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc

SERVICE_NAME: Final = "invoicing.v1.InvoicingService"
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
STOP_GRACE_SECONDS: Final = 2.0

_SERVER_OPTIONS: Final = (
    # Two servers on one port would share the calls, and each would know half of the invoices.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)

# Only the stubs know these types as generic, hence the quotes.
_CreateInvoiceContext: TypeAlias = (
    "grpc.aio.ServicerContext[invoicing_pb2.CreateInvoiceRequest, Any]"
)
_GetInvoiceContext: TypeAlias = "grpc.aio.ServicerContext[invoicing_pb2.GetInvoiceRequest, Any]"
_CreateCreditNoteContext: TypeAlias = (
    "grpc.aio.ServicerContext[invoicing_pb2.CreateCreditNoteRequest, Any]"
)
_VoidInvoiceContext: TypeAlias = "grpc.aio.ServicerContext[invoicing_pb2.VoidInvoiceRequest, Any]"
_AnyContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ListenAddressNotLocal(ValueError):
    """The server has no authentication, so it listens on loopback or a unix socket only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicingServerSettings:
    """Where to listen, where to keep invoices, and which faults to start with.

    ``listen_address`` is ``127.0.0.1:port`` (0: any free port) or ``unix:/path``. Without a
    ``data_file`` (JSON lines) invoices are forgotten when the process ends. Rates are shares of
    the calls from 0 to 1, drawn from a generator that ``seed`` makes repeatable.
    Raises ValueError, for an address that others can reach ListenAddressNotLocal.
    """

    listen_address: str = "127.0.0.1:0"
    data_file: Path | None = None
    error_rate: float = 0.0
    delay_ms: int = 0
    drop_reply_rate: float = 0.0
    refused_customer_ids: frozenset[str] = frozenset()
    seed: int | None = None

    def __post_init__(self) -> None:
        if not _is_local(self.listen_address):
            raise ListenAddressNotLocal(
                f"{self.listen_address!r} is neither a loopback address with a port nor unix:/path"
            )
        for name, rate in (
            ("error_rate", self.error_rate),
            ("drop_reply_rate", self.drop_reply_rate),
        ):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {rate}")
        if self.delay_ms < 0:
            raise ValueError(f"delay_ms is 0 or more, not {self.delay_ms}")


class ReferenceInvoicingServer(invoicing_pb2_grpc.InvoicingServiceServicer):
    """The server, for use in this process. The fault switches may be changed while it runs.

    ``error_rate``: share of calls that fail UNAVAILABLE before anything is done.
    ``delay_ms``: how long every call waits before anything is done.
    ``drop_reply_rate``: share of the calls that make or void something, then fail UNAVAILABLE.
    ``refused_customer_ids``: customers for whom anything new is FAILED_PRECONDITION.
    ``create_call_count``: how many CreateInvoice calls arrived, whatever became of them; likewise
    ``credit_note_call_count`` and ``void_call_count``.
    """

    def __init__(self, settings: InvoicingServerSettings) -> None:
        self.error_rate = settings.error_rate
        self.delay_ms = settings.delay_ms
        self.drop_reply_rate = settings.drop_reply_rate
        self.refused_customer_ids: set[str] = set(settings.refused_customer_ids)
        self.create_call_count = 0
        self.credit_note_call_count = 0
        self.void_call_count = 0
        self._random = random.Random(settings.seed)  # noqa: S311 - repeatable on purpose
        self._address = settings.listen_address
        self._book = InvoiceBook(settings.data_file)
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()

    @property
    def address(self) -> str:
        """The target for a channel; stays the same when the server is stopped and started again."""
        return self._address

    @property
    def invoices(self) -> list[invoicing_pb2.Invoice]:
        """All invoices as they stand, oldest first."""
        return self._book.invoices

    @property
    def credit_notes(self) -> list[invoicing_pb2.CreditNote]:
        """All credit notes, oldest first."""
        return self._book.credit_notes

    async def start(self) -> None:
        """Listen.

        Raises RuntimeError if the address is taken, InvoiceFileInUse, InvoiceFileDamaged, OSError.
        """
        assert self._server is None, "already started"
        self._book.open()
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        try:
            self._health = await _add_services(server, self)
            port = server.add_insecure_port(self._address)
            await server.start()
        except BaseException:
            await server.stop(None)
            self._book.close()
            raise
        if not self._address.startswith("unix:"):
            self._address = f"{self._address.rpartition(':')[0]}:{port}"
        self._server = server

    async def stop(self, *, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Refuse new calls, give those under way so long, then cancel them; idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.enter_graceful_shutdown()
        await server.stop(grace_seconds)
        self._book.close()

    async def CreateInvoice(
        self, request: invoicing_pb2.CreateInvoiceRequest, context: _CreateInvoiceContext
    ) -> invoicing_pb2.CreateInvoiceResponse:
        """Create an invoice, or return the one made before with the key."""
        self.create_call_count += 1
        await self._pass_switches(context)
        await _refuse_malformed(problem_of_invoice(request), context)
        # From here to the stored invoice nothing waits, so concurrent calls take turns.
        invoice = self._book.find_invoice_by_key(request.idempotency_key)
        if invoice is None:
            await self._refuse_customer(request.customer_id, context)
            invoice = self._book.add_invoice(request)
        elif conflict := conflict_of(invoice, request):
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, conflict)
        await self._drop_reply(context)
        return invoicing_pb2.CreateInvoiceResponse(invoice=invoice)

    async def GetInvoice(
        self, request: invoicing_pb2.GetInvoiceRequest, context: _GetInvoiceContext
    ) -> invoicing_pb2.GetInvoiceResponse:
        """Return one invoice of the tenant."""
        await self._pass_switches(context)
        await _refuse_malformed(broken_rules(request), context)
        invoice = await self._invoice(
            request.invoice_id, tenant_id=request.tenant_id, context=context
        )
        return invoicing_pb2.GetInvoiceResponse(invoice=invoice)

    async def CreateCreditNote(
        self, request: invoicing_pb2.CreateCreditNoteRequest, context: _CreateCreditNoteContext
    ) -> invoicing_pb2.CreateCreditNoteResponse:
        """Create a credit note, or return the one made before with the key."""
        self.credit_note_call_count += 1
        await self._pass_switches(context)
        await _refuse_malformed(problem_of_credit_note(request), context)
        # From here to the stored credit note nothing waits, so concurrent calls take turns.
        credit_note = self._book.find_credit_note_by_key(request.idempotency_key)
        if credit_note is None:
            invoice = await self._invoice(
                request.invoice_id, tenant_id=request.tenant_id, context=context
            )
            if invoice.livemode != request.livemode:
                await _refuse_unknown(request.invoice_id, request.tenant_id, context)
            await self._refuse_customer(request.customer_id, context)
            if refusal := credit_note_refusal(invoice, request):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)
            credit_note = self._book.add_credit_note(request)
        elif conflict := conflict_of(credit_note, request):
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, conflict)
        await self._drop_reply(context)
        return invoicing_pb2.CreateCreditNoteResponse(credit_note=credit_note)

    async def VoidInvoice(
        self, request: invoicing_pb2.VoidInvoiceRequest, context: _VoidInvoiceContext
    ) -> invoicing_pb2.VoidInvoiceResponse:
        """Void an invoice, or return the one that is void already."""
        self.void_call_count += 1
        await self._pass_switches(context)
        await _refuse_malformed(broken_rules(request), context)
        # From here to the void nothing waits, so concurrent calls take turns.
        void = self._book.find_void_by_key(request.idempotency_key)
        if void is not None and (conflict := void_conflict_of(void, request)):
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, conflict)
        invoice = await self._invoice(
            request.invoice_id, tenant_id=request.tenant_id, context=context
        )
        if void is None:
            await self._refuse_customer(invoice.customer_id, context)
            if refusal := void_refusal(invoice):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)
            invoice = self._book.void_invoice(request)
        await self._drop_reply(context)
        return invoicing_pb2.VoidInvoiceResponse(invoice=invoice)

    async def _invoice(
        self, invoice_id: str, *, tenant_id: str, context: _AnyContext
    ) -> invoicing_pb2.Invoice:
        invoice = self._book.find_invoice(invoice_id)
        if invoice is None or invoice.tenant_id != tenant_id:
            return await _refuse_unknown(invoice_id, tenant_id, context)
        return invoice

    async def _pass_switches(self, context: _AnyContext) -> None:
        if self.delay_ms:
            await asyncio.sleep(self.delay_ms / 1000)
        if self._happens(self.error_rate):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "error_rate: nothing was done")

    async def _refuse_customer(self, customer_id: str, context: _AnyContext) -> None:
        if customer_id in self.refused_customer_ids:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"customer {customer_id} has no billing address",
            )

    async def _drop_reply(self, context: _AnyContext) -> None:
        if self._happens(self.drop_reply_rate):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "drop_reply_rate: the reply is lost")

    def _happens(self, rate: float) -> bool:
        return self._random.random() < rate


async def serve_invoicing(
    settings: InvoicingServerSettings, *, started: Callable[[str], None]
) -> None:
    """Run the reference server until SIGTERM or SIGINT; ``started`` is given its address.

    Raises what ``ReferenceInvoicingServer.start`` raises.
    """
    loop = asyncio.get_running_loop()
    stop_asked = asyncio.Event()
    server = ReferenceInvoicingServer(settings)
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop_asked.set)
    try:
        await server.start()
        started(server.address)
        await stop_asked.wait()
    finally:
        await server.stop()
        for number in signals:
            loop.remove_signal_handler(number)


async def _add_services(
    server: grpc.aio.Server, servicer: invoicing_pb2_grpc.InvoicingServiceServicer
) -> health.aio.HealthServicer:
    invoicing_pb2_grpc.add_InvoicingServiceServicer_to_server(servicer, server)
    health_servicer = health.aio.HealthServicer()
    await health_servicer.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return health_servicer


async def _refuse_malformed(problem: str | None, context: _AnyContext) -> None:
    if problem:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)


async def _refuse_unknown(invoice_id: str, tenant_id: str, context: _AnyContext) -> NoReturn:
    await context.abort(
        grpc.StatusCode.NOT_FOUND, f"invoice {invoice_id} does not exist in tenant {tenant_id}"
    )


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return len(address) > len("unix:")
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
