"""The invoicing client and the reference invoicing server, over a real channel."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry import trace

from billing.clients.invoicing import InvoicingClient, InvoicingClientSettings, InvoicingTls
from billing.clients.invoicing_messages import create_invoice_request
from billing.domain.errors import InvoiceRefused, InvoicingUnavailable
from billing.domain.identifiers import from_typeid
from billing.sandbox.invoicing_server import (
    InvoicingServerSettings,
    ReferenceInvoicingServer,
)
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc
from tests.factories.certificates import LOOPBACK, Authority, Issued
from tests.factories.invoicing import (
    CLIENT_SETTINGS,
    INVOICE_REQUEST,
    invoicing_client,
    invoicing_server,
)

HOUR_MS = 3_600_000
AUTHORITY = Authority()


@pytest.fixture
async def server() -> AsyncIterator[ReferenceInvoicingServer]:
    async with invoicing_server() as server:
        yield server


@pytest.fixture
async def client(server: ReferenceInvoicingServer) -> AsyncIterator[InvoicingClient]:
    async with invoicing_client(server.address) as client:
        yield client


class TestCreateInvoice:
    async def test_the_server_keeps_exactly_what_was_asked(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        invoice_id = await client.create_invoice(INVOICE_REQUEST)

        [invoice] = server.invoices
        from_typeid("inv", invoice_id)  # raises if it is none
        assert invoice.id == invoice_id
        age = datetime.now(UTC) - invoice.created_at.ToDatetime(UTC)
        assert timedelta() <= age < timedelta(minutes=1)
        kept = json_format.MessageToDict(invoice)
        del kept["id"], kept["createdAt"]
        assert kept == json_format.MessageToDict(create_invoice_request(INVOICE_REQUEST))

    async def test_the_same_request_again_is_the_same_invoice(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        first_id = await client.create_invoice(INVOICE_REQUEST)
        server.refused_customer_ids.add(
            INVOICE_REQUEST.customer_id
        )  # changes nothing about what is done

        assert await client.create_invoice(INVOICE_REQUEST) == first_id
        assert len(server.invoices) == 1

    async def test_concurrent_calls_with_one_key_make_one_invoice(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        ids = await asyncio.gather(*(client.create_invoice(INVOICE_REQUEST) for _ in range(50)))

        assert len(set(ids)) == 1
        assert len(server.invoices) == 1

    async def test_other_content_under_a_used_key_is_refused(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        await client.create_invoice(INVOICE_REQUEST)
        [plan_line, _] = INVOICE_REQUEST.line_items
        other = dataclasses.replace(INVOICE_REQUEST, line_items=(plan_line,), total_minor=2900)

        with pytest.raises(InvoiceRefused) as refusal:
            await client.create_invoice(other)
        assert refusal.value.metadata["detail"] == (
            "ALREADY_EXISTS: idempotency_key 'invoice-period-1' has an invoice of 3050 EUR, and "
            "this request is for 2900 EUR; they differ in line_items, total_amount"
        )
        assert len(server.invoices) == 1

    async def test_a_wrong_sum_is_refused_with_both_figures(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        with pytest.raises(InvoiceRefused) as refusal:
            await client.create_invoice(dataclasses.replace(INVOICE_REQUEST, total_minor=3051))
        assert refusal.value.metadata["detail"] == (
            "INVALID_ARGUMENT: total_amount: is 3051, but the lines add up to 3050"
        )
        assert server.create_call_count == 1
        assert server.invoices == []


class TestFaults:
    async def test_a_dropped_reply_and_its_retry_make_one_invoice(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        server.drop_reply_rate = 1.0
        with pytest.raises(InvoicingUnavailable, match="UNAVAILABLE: drop_reply_rate"):
            await client.create_invoice(INVOICE_REQUEST)
        [invoice] = server.invoices

        server.drop_reply_rate = 0.0
        assert await client.create_invoice(INVOICE_REQUEST) == invoice.id
        assert server.create_call_count == CLIENT_SETTINGS.max_attempts + 1
        assert server.invoices == [invoice]

    async def test_retries_get_through_a_server_that_mostly_fails(
        self, server: ReferenceInvoicingServer
    ) -> None:
        server.error_rate = server.drop_reply_rate = 0.5
        requests = [
            dataclasses.replace(INVOICE_REQUEST, idempotency_key=f"key-{number}")
            for number in range(20)
        ]
        settings = dataclasses.replace(CLIENT_SETTINGS, max_attempts=100)
        async with invoicing_client(server.address, settings) as client:
            ids = await asyncio.gather(*(client.create_invoice(request) for request in requests))

        assert {invoice.id for invoice in server.invoices} == set(ids)
        assert len(set(ids)) == len(requests)
        assert server.create_call_count > 2 * len(requests)

    async def test_a_server_that_always_fails_is_unavailable_after_the_last_attempt(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        server.error_rate = 1.0
        with pytest.raises(InvoicingUnavailable) as failure:
            await client.create_invoice(INVOICE_REQUEST)
        assert failure.value.metadata == {
            "detail": "UNAVAILABLE: error_rate: nothing was done",
            "attempts": "4",
        }
        assert server.create_call_count == 4
        assert server.invoices == []

    async def test_a_refused_customer_is_not_tried_again(
        self, server: ReferenceInvoicingServer, client: InvoicingClient
    ) -> None:
        server.refused_customer_ids = {INVOICE_REQUEST.customer_id}
        with pytest.raises(InvoiceRefused) as refusal:
            await client.create_invoice(INVOICE_REQUEST)
        assert refusal.value.metadata["detail"] == (
            "FAILED_PRECONDITION: customer cus_1 has no billing address"
        )
        assert server.create_call_count == 1

    async def test_a_delay_beyond_the_deadline_is_unavailable(
        self, server: ReferenceInvoicingServer
    ) -> None:
        server.delay_ms = HOUR_MS
        settings = dataclasses.replace(CLIENT_SETTINGS, deadline_seconds=0.05, max_attempts=2)
        async with invoicing_client(server.address, settings) as client:
            with pytest.raises(InvoicingUnavailable) as failure:
                await client.create_invoice(INVOICE_REQUEST)
        assert failure.value.metadata["detail"].startswith("DEADLINE_EXCEEDED: ")
        assert failure.value.metadata["attempts"] == "2"
        assert server.invoices == []


class TestConnection:
    async def test_a_server_that_is_down_is_unavailable_at_once(self) -> None:
        settings = dataclasses.replace(CLIENT_SETTINGS, deadline_seconds=3600)
        async with invoicing_client("unix:/nobody/listens", settings) as client:
            async with asyncio.timeout(30):
                with pytest.raises(InvoicingUnavailable) as failure:
                    await client.create_invoice(INVOICE_REQUEST)
        assert failure.value.metadata["detail"].startswith("UNAVAILABLE: ")
        assert failure.value.metadata["attempts"] == "4"

    async def test_a_client_finds_a_server_that_comes_back(
        self, server: ReferenceInvoicingServer
    ) -> None:
        settings = dataclasses.replace(
            CLIENT_SETTINGS, max_attempts=10_000, max_backoff_seconds=0.05
        )
        async with (
            invoicing_client(server.address) as hasty,
            invoicing_client(server.address, settings) as patient,
        ):
            invoice_id = await hasty.create_invoice(INVOICE_REQUEST)
            address = server.address
            await server.stop()
            with pytest.raises(InvoicingUnavailable):
                await hasty.create_invoice(INVOICE_REQUEST)

            waiting = asyncio.create_task(patient.create_invoice(INVOICE_REQUEST))
            await server.start()
            async with asyncio.timeout(30):
                assert await waiting == invoice_id
        assert server.address == address

    async def test_a_call_under_way_when_the_server_stops_is_unavailable(self) -> None:
        server = ObservedServer(InvoicingServerSettings(delay_ms=HOUR_MS))
        await server.start()
        once = dataclasses.replace(CLIENT_SETTINGS, max_attempts=1)
        async with invoicing_client(server.address, once) as client:
            call = asyncio.create_task(client.create_invoice(INVOICE_REQUEST))
            await server.call_arrived.wait()
            await server.stop(grace_seconds=0)
            with pytest.raises(InvoicingUnavailable, match="UNAVAILABLE"):
                await call


class ObservedServer(ReferenceInvoicingServer):
    """Tells when a call has arrived."""

    def __init__(self, settings: InvoicingServerSettings) -> None:
        super().__init__(settings)
        self.call_arrived = asyncio.Event()

    async def CreateInvoice(
        self, request: invoicing_pb2.CreateInvoiceRequest, context: Any
    ) -> invoicing_pb2.CreateInvoiceResponse:
        self.call_arrived.set()
        return await super().CreateInvoice(request, context)


def test_the_backoff_doubles_up_to_its_limit() -> None:
    settings = InvoicingClientSettings(initial_backoff_seconds=0.25, max_backoff_seconds=3)
    limits = [
        settings.backoff_limit_seconds(failures_count=count) for count in (1, 2, 3, 4, 5, 9999)
    ]
    assert limits == [0.25, 0.5, 1, 2, 3, 3]


class ScriptedServicer(invoicing_pb2_grpc.InvoicingServiceServicer):
    """An invoicing service that is not the reference one: answers what the test tells it."""

    def __init__(self, respond: Callable[[invoicing_pb2.Invoice], grpc.StatusCode | None]) -> None:
        self.respond = respond
        self.headers: list[dict[str, str | bytes]] = []

    async def CreateInvoice(
        self, request: invoicing_pb2.CreateInvoiceRequest, context: Any
    ) -> invoicing_pb2.CreateInvoiceResponse:
        self.headers.append(dict(context.invocation_metadata()))
        invoice = invoicing_pb2.Invoice(
            id="inv_1",
            idempotency_key=request.idempotency_key,
            total_amount=request.total_amount,
            currency=request.currency,
        )
        if code := self.respond(invoice):
            await context.abort(code, "as told")
        return invoicing_pb2.CreateInvoiceResponse(invoice=invoice)

    async def GetInvoice(
        self, request: invoicing_pb2.GetInvoiceRequest, context: Any
    ) -> invoicing_pb2.GetInvoiceResponse:
        raise NotImplementedError

    async def CreateCreditNote(
        self, request: invoicing_pb2.CreateCreditNoteRequest, context: Any
    ) -> invoicing_pb2.CreateCreditNoteResponse:
        raise NotImplementedError

    async def VoidInvoice(
        self, request: invoicing_pb2.VoidInvoiceRequest, context: Any
    ) -> invoicing_pb2.VoidInvoiceResponse:
        raise NotImplementedError


@asynccontextmanager
async def serving(
    servicer: ScriptedServicer, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    server = grpc.aio.server()
    invoicing_pb2_grpc.add_InvoicingServiceServicer_to_server(servicer, server)
    address = "127.0.0.1:0"
    port = (
        server.add_secure_port(address, credentials)
        if credentials
        else server.add_insecure_port(address)
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class TestOtherServers:
    PASSING = frozenset(
        {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        }
    )

    @pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
    async def test_every_code_is_either_tried_again_or_final(self, code: grpc.StatusCode) -> None:
        servicer = ScriptedServicer(lambda _: code)
        async with serving(servicer) as port, invoicing_client(f"127.0.0.1:{port}") as client:
            with pytest.raises((InvoiceRefused, InvoicingUnavailable)) as failure:
                await client.create_invoice(INVOICE_REQUEST)
        passes = code in self.PASSING
        assert type(failure.value) is (InvoicingUnavailable if passes else InvoiceRefused)
        assert failure.value.metadata["detail"] == f"{code.name}: as told"
        assert len(servicer.headers) == (4 if passes else 1)

    async def test_an_answer_about_another_invoice_is_refused(self) -> None:
        def lie(invoice: invoicing_pb2.Invoice) -> None:
            invoice.total_amount += 1

        servicer = ScriptedServicer(lie)
        async with serving(servicer) as port, invoicing_client(f"127.0.0.1:{port}") as client:
            with pytest.raises(InvoiceRefused, match="total_amount 3051 instead of 3050"):
                await client.create_invoice(INVOICE_REQUEST)
        assert len(servicer.headers) == 1

    async def test_the_trace_of_the_caller_goes_with_the_call(self) -> None:
        parent = trace.NonRecordingSpan(
            trace.SpanContext(
                trace_id=0xABCDEF,
                span_id=0x123,
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
        )
        servicer = ScriptedServicer(lambda _: None)
        async with serving(servicer) as port, invoicing_client(f"127.0.0.1:{port}") as client:
            with trace.use_span(parent):
                await client.create_invoice(INVOICE_REQUEST)
        traceparent = servicer.headers[0]["traceparent"]
        assert traceparent == f"00-{0xABCDEF:032x}-{0x123:016x}-01"

    async def test_root_certificates_mean_tls(self) -> None:
        server = AUTHORITY.issue("invoicing", LOOPBACK)
        credentials = grpc.ssl_server_credentials([(server.key, server.certificate)])
        async with serving(ScriptedServicer(lambda _: None), credentials) as port:
            target = f"127.0.0.1:{port}"
            async with invoicing_client(target, trusting(AUTHORITY)) as client:
                assert await client.create_invoice(INVOICE_REQUEST) == "inv_1"
            for settings in (CLIENT_SETTINGS, trusting(Authority("another"))):
                async with invoicing_client(target, settings) as client:
                    with pytest.raises(InvoicingUnavailable):
                        await client.create_invoice(INVOICE_REQUEST)

    async def test_a_certificate_of_ours_is_presented_to_a_server_that_asks_for_one(self) -> None:
        server = AUTHORITY.issue("invoicing", LOOPBACK)
        credentials = grpc.ssl_server_credentials(
            [(server.key, server.certificate)], AUTHORITY.certificate, require_client_auth=True
        )
        ours = AUTHORITY.issue("billing-service")
        servicer = ScriptedServicer(lambda _: None)
        async with serving(servicer, credentials) as port:
            target = f"127.0.0.1:{port}"
            async with invoicing_client(target, trusting(AUTHORITY, ours)) as client:
                assert await client.create_invoice(INVOICE_REQUEST) == "inv_1"
            async with invoicing_client(target, trusting(AUTHORITY)) as client:
                with pytest.raises(InvoicingUnavailable):
                    await client.create_invoice(INVOICE_REQUEST)


def trusting(authority: Authority, ours: Issued | None = None) -> InvoicingClientSettings:
    tls = InvoicingTls(
        root_certificates=authority.certificate,
        certificate_chain=ours.certificate if ours else None,
        private_key=ours.key if ours else None,
    )
    assert b"PRIVATE" not in repr(tls).encode()
    return dataclasses.replace(CLIENT_SETTINGS, tls=tls)
