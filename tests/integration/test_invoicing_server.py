"""The reference invoicing server: what it refuses, keeps and tells, over a real channel."""

import asyncio
import dataclasses
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.type.date_pb2 import Date
from google.type.decimal_pb2 import Decimal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from billing.clients.invoicing_messages import create_invoice_request
from billing.sandbox.invoice_file import InvoiceFileDamaged, InvoiceFileInUse
from billing.sandbox.invoicing_server import (
    SERVICE_NAME,
    InvoicingServerSettings,
    ListenAddressNotLocal,
    ReferenceInvoicingServer,
)
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc
from tests.factories.invoicing import INVOICE_REQUEST, invoicing_client, invoicing_server

HOUR_MS = 3_600_000


# gRPC takes even loopback calls to the proxy that a machine names in https_proxy.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)


@pytest.fixture
async def server() -> AsyncIterator[ReferenceInvoicingServer]:
    async with invoicing_server() as server:
        yield server


@pytest.fixture
async def stub(
    server: ReferenceInvoicingServer,
) -> AsyncIterator[invoicing_pb2_grpc.InvoicingServiceStub]:
    async with grpc.aio.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel:
        yield invoicing_pb2_grpc.InvoicingServiceStub(channel)


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """Like tmp_path, but short enough for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="billing-test-") as directory:
        yield Path(directory)


async def failure_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


class TestSettings:
    async def test_switches_can_be_set_at_the_start(self) -> None:
        server = ReferenceInvoicingServer(
            InvoicingServerSettings(
                error_rate=0.25,
                delay_ms=5,
                drop_reply_rate=0.5,
                refused_customer_ids=frozenset({"cus_1"}),
            )
        )
        assert (server.error_rate, server.delay_ms, server.drop_reply_rate) == (0.25, 5, 0.5)
        assert server.refused_customer_ids == {"cus_1"}

    @pytest.mark.parametrize(
        "switch", [{"error_rate": 1.1}, {"drop_reply_rate": -0.1}, {"delay_ms": -1}]
    )
    def test_a_switch_outside_its_range_is_refused(self, switch: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(switch))):
            InvoicingServerSettings(**switch)


class TestListening:
    async def test_a_unix_socket_serves_too(self, socket_dir: Path) -> None:
        address = f"unix:{socket_dir}/invoicing"
        settings = InvoicingServerSettings(listen_address=address)
        async with invoicing_server(settings) as server, invoicing_client(address) as client:
            assert await client.create_invoice(INVOICE_REQUEST) == server.invoices[0].id

    async def test_a_taken_port_is_an_error(self, server: ReferenceInvoicingServer) -> None:
        second = ReferenceInvoicingServer(InvoicingServerSettings(listen_address=server.address))
        with pytest.raises(RuntimeError, match="Failed to bind"):
            await second.start()

    @pytest.mark.parametrize(
        "address", ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "127.0.0.1", "unix:", "example.com:1", ""]
    )
    def test_only_this_machine_can_reach_the_server(self, address: str) -> None:
        with pytest.raises(ListenAddressNotLocal):
            InvoicingServerSettings(listen_address=address)

    @pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:7", "localhost:7", "unix:/run/x"])
    def test_every_form_of_this_machine_is_taken(self, address: str) -> None:
        assert InvoicingServerSettings(listen_address=address).listen_address == address


class TestReferenceServer:
    async def test_an_invoice_is_found_by_its_tenant_only(
        self,
        server: ReferenceInvoicingServer,
        stub: invoicing_pb2_grpc.InvoicingServiceStub,
    ) -> None:
        made = await stub.CreateInvoice(create_invoice_request(INVOICE_REQUEST))
        invoice_id = made.invoice.id
        found = await stub.GetInvoice(
            invoicing_pb2.GetInvoiceRequest(tenant_id="acme", invoice_id=invoice_id)
        )
        assert found.invoice == made.invoice == server.invoices[0]
        for tenant_id, asked_id in (("other", invoice_id), ("acme", "inv_unknown")):
            request = invoicing_pb2.GetInvoiceRequest(tenant_id=tenant_id, invoice_id=asked_id)
            failure = await failure_of(stub.GetInvoice(request))
            assert failure.code() is grpc.StatusCode.NOT_FOUND

    @pytest.mark.parametrize(
        ("field", "value", "details"),
        [
            ("currency", "eur", "currency: does not match regex pattern `^[A-Z]{3}$`"),
            ("tenant_id", "", "tenant_id: must be at least 1 characters"),
            ("issue_date", None, "issue_date: value is required"),
            ("issue_date", Date(year=2026, month=2, day=30), "issue_date: day is out of range"),
            (
                "due_date",
                Date(year=2026, month=1, day=31),
                "due_date: 2026-01-31 is before the issue_date 2026-02-01",
            ),
            (
                "line_items",
                [invoicing_pb2.InvoiceLineItem(description="x")],
                "line_items[0].quantity: value is required; "
                "line_items[0].unit_price: value is required",
            ),
            (
                "line_items",
                [
                    invoicing_pb2.InvoiceLineItem(
                        description="x",
                        quantity=Decimal(value="1"),
                        unit_price=Decimal(value="NaN"),
                    )
                ],
                "line_items[0].unit_price: 'NaN' is no decimal",
            ),
        ],
    )
    async def test_a_malformed_request_is_refused(
        self,
        server: ReferenceInvoicingServer,
        stub: invoicing_pb2_grpc.InvoicingServiceStub,
        field: str,
        value: Any,
        details: str,
    ) -> None:
        fields = {
            descriptor.name: kept
            for descriptor, kept in create_invoice_request(INVOICE_REQUEST).ListFields()
        }
        request = invoicing_pb2.CreateInvoiceRequest(**{**fields, field: value})
        failure = await failure_of(stub.CreateInvoice(request))
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (failure.details() or "").startswith(details)
        assert server.invoices == []

    async def test_health_and_reflection_answer(self, server: ReferenceInvoicingServer) -> None:
        async with grpc.aio.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel:
            # These two stubs are typed for synchronous channels, or not at all.
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", SERVICE_NAME):
                checked = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert checked.status == health_pb2.HealthCheckResponse.SERVING
            reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub
            listing = reflection_stub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            answers = [answer async for answer in listing]
        names = {service.name for service in answers[0].list_services_response.service}
        assert SERVICE_NAME in names

    async def test_stopping_twice_and_without_a_start_does_nothing(self) -> None:
        server = ReferenceInvoicingServer(InvoicingServerSettings())
        await server.stop()
        await server.start()
        await server.stop()
        await server.stop()


class TestInvoiceFile:
    async def test_one_file_belongs_to_one_server(self, tmp_path: Path) -> None:
        settings = InvoicingServerSettings(data_file=tmp_path / "invoices.jsonl")
        first, second = ReferenceInvoicingServer(settings), ReferenceInvoicingServer(settings)
        await first.start()
        with pytest.raises(InvoiceFileInUse):
            await second.start()
        await first.stop()
        await second.start()
        await second.stop()

    async def test_a_line_that_was_never_finished_is_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "invoices.jsonl"
        server = ReferenceInvoicingServer(InvoicingServerSettings(data_file=path))
        await server.start()
        async with invoicing_client(server.address) as client:
            await client.create_invoice(INVOICE_REQUEST)
            await server.stop()
            [kept] = server.invoices
            with path.open("a") as file:
                file.write('{"id": "inv_torn')

            await server.start()
            assert server.invoices == [kept]
            second = dataclasses.replace(INVOICE_REQUEST, idempotency_key="invoice-period-2")
            await client.create_invoice(second)
        await server.stop()
        await server.start()
        assert [invoice.idempotency_key for invoice in server.invoices] == [
            "invoice-period-1",
            "invoice-period-2",
        ]
        await server.stop()

    @pytest.mark.parametrize("line", ["no JSON", "5", '{"unknown": 1}', '{"totalAmount": "x"}'])
    async def test_a_damaged_line_is_named(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "invoices.jsonl"
        path.write_text(f'{{"id": "inv_1"}}\n{line}\n')
        server = ReferenceInvoicingServer(InvoicingServerSettings(data_file=path))
        with pytest.raises(InvoiceFileDamaged, match=r"invoices\.jsonl, line 2: "):
            await server.start()


SERVE = """
import asyncio, pathlib, sys
from billing.sandbox.invoicing_server import InvoicingServerSettings, serve_invoicing

settings = InvoicingServerSettings(data_file=pathlib.Path(sys.argv[1]))
asyncio.run(serve_invoicing(settings, started=lambda address: print(address, flush=True)))
"""


class TestProcess:
    @asynccontextmanager
    async def process(
        self, data_file: Path
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(data_file), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                yield process, (await process.stdout.readline()).decode().strip()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_ends_it_and_its_invoices_survive(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        data_file = tmp_path / "invoices.jsonl"
        async with self.process(data_file) as (process, address):
            async with invoicing_client(address) as client:
                invoice_id = await client.create_invoice(INVOICE_REQUEST)
            process.send_signal(number)
            output, _ = await process.communicate()
            assert output == b""
            assert process.returncode == 0

        async with self.process(data_file) as (_, address), invoicing_client(address) as client:
            assert await client.create_invoice(INVOICE_REQUEST) == invoice_id
        assert len(data_file.read_text().splitlines()) == 1
