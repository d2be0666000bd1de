"""Credit notes, voids and look-ups of invoices when calls fail, are watched, or must be kept."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing.clients.invoicing import InvoicingClient
from billing.domain.errors import InvoiceRefused, InvoicingUnavailable
from billing.observability.metrics import Metrics
from billing.sandbox.invoice_file import InvoiceFileDamaged
from billing.sandbox.invoicing_server import InvoicingServerSettings, ReferenceInvoicingServer
from billing.services.ports import InvoiceCorrections
from tests.factories.invoicing import (
    CLIENT_SETTINGS,
    INVOICE_REQUEST,
    VOID_REQUEST,
    credit_note_of,
    invoicing_client,
    invoicing_server,
    void_of,
)
from tests.factories.spans import recording

HOUR_MS = 3_600_000
CHANGING = ["CreateCreditNote", "VoidInvoice"]
ALL = [*CHANGING, "GetInvoice"]


@pytest.fixture
async def server() -> AsyncIterator[ReferenceInvoicingServer]:
    async with invoicing_server() as server:
        yield server


@pytest.fixture
async def client(server: ReferenceInvoicingServer) -> AsyncIterator[InvoicingClient]:
    async with invoicing_client(server.address) as client:
        yield client


@pytest.fixture
async def invoice_id(client: InvoicingClient) -> str:
    return await client.create_invoice(INVOICE_REQUEST)


async def ask(client: InvoiceCorrections, rpc: str, invoice_id: str) -> None:
    """Make the call of a name."""
    match rpc:
        case "CreateCreditNote":
            await client.create_credit_note(credit_note_of(invoice_id))
        case "VoidInvoice":
            await client.void_invoice(void_of(invoice_id))
        case _:
            await client.find_invoice(tenant_id="acme", invoice_id=invoice_id)


class TestFaults:
    @pytest.mark.parametrize("rpc", CHANGING)
    async def test_a_dropped_reply_and_its_retry_change_one_thing(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str, rpc: str
    ) -> None:
        server.drop_reply_rate = 1.0
        with pytest.raises(InvoicingUnavailable, match="UNAVAILABLE: drop_reply_rate"):
            await ask(client, rpc, invoice_id)
        changed, credit_notes = server.invoices, server.credit_notes

        server.drop_reply_rate = 0.0
        await ask(client, rpc, invoice_id)
        calls_count = server.credit_note_call_count + server.void_call_count
        assert calls_count == CLIENT_SETTINGS.max_attempts + 1
        assert (server.invoices, server.credit_notes) == (changed, credit_notes)
        assert changed[0].credited_amount == (50 if rpc == "CreateCreditNote" else 0)
        assert changed[0].HasField("voided_at") == (rpc == "VoidInvoice")

    @pytest.mark.parametrize("rpc", ALL)
    async def test_retries_get_through_a_server_that_mostly_fails(
        self, server: ReferenceInvoicingServer, invoice_id: str, rpc: str
    ) -> None:
        server.error_rate = server.drop_reply_rate = 0.7
        settings = dataclasses.replace(CLIENT_SETTINGS, max_attempts=1000)
        async with invoicing_client(server.address, settings) as client:
            await ask(client, rpc, invoice_id)

    @pytest.mark.parametrize("rpc", ALL)
    async def test_a_server_that_always_fails_is_unavailable_after_the_last_attempt(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str, rpc: str
    ) -> None:
        server.error_rate = 1.0
        with pytest.raises(InvoicingUnavailable, match="nothing is lost: ask for") as failure:
            await ask(client, rpc, invoice_id)
        assert failure.value.metadata == {
            "detail": "UNAVAILABLE: error_rate: nothing was done",
            "attempts": "4",
        }
        assert server.credit_notes == []
        assert not server.invoices[0].HasField("voided_at")

    @pytest.mark.parametrize("rpc", CHANGING)
    async def test_a_refused_customer_is_not_tried_again(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str, rpc: str
    ) -> None:
        server.refused_customer_ids = {"cus_1"}
        with pytest.raises(InvoiceRefused, match="FAILED_PRECONDITION: customer cus_1 has no"):
            await ask(client, rpc, invoice_id)
        assert server.credit_note_call_count + server.void_call_count == 1

    @pytest.mark.parametrize("rpc", ALL)
    async def test_a_delay_beyond_the_deadline_is_unavailable(
        self, server: ReferenceInvoicingServer, invoice_id: str, rpc: str
    ) -> None:
        server.delay_ms = HOUR_MS
        settings = dataclasses.replace(CLIENT_SETTINGS, deadline_seconds=0.05, max_attempts=2)
        async with invoicing_client(server.address, settings) as client:
            with pytest.raises(InvoicingUnavailable) as failure:
                await ask(client, rpc, invoice_id)
        assert failure.value.metadata["detail"].startswith("DEADLINE_EXCEEDED: ")
        assert failure.value.metadata["attempts"] == "2"


class TestWatching:
    @pytest.mark.parametrize("rpc", ALL)
    async def test_a_call_has_a_span_of_its_own_name(
        self, client: InvoicingClient, invoice_id: str, rpc: str
    ) -> None:
        with recording() as recorded:
            await ask(client, rpc, invoice_id)
        span = recorded.one(f"invoicing.v1.InvoicingService/{rpc}")
        assert span.attributes is not None
        assert span.attributes["rpc.method"] == rpc

    async def test_documents_are_counted_and_look_ups_only_timed(
        self, server: ReferenceInvoicingServer, invoice_id: str
    ) -> None:
        metrics = Metrics()
        async with invoicing_client(server.address, metering=metrics) as client:
            for rpc in ("CreateCreditNote", "GetInvoice"):
                await ask(client, rpc, invoice_id)
            with pytest.raises(InvoiceRefused):
                await ask(client, "VoidInvoice", invoice_id)
            await client.find_invoice(tenant_id="acme", invoice_id="inv_unknown")
            server.error_rate = 1.0
            for rpc in ("VoidInvoice", "GetInvoice"):
                with pytest.raises(InvoicingUnavailable):
                    await ask(client, rpc, invoice_id)

        def deliveries(outcome: str) -> float | None:
            return metrics.registry.get_sample_value(
                "billing_invoice_deliveries_total", {"outcome": outcome}
            )

        def attempts(code: str) -> float | None:
            return metrics.registry.get_sample_value(
                "billing_invoice_attempt_duration_seconds_count", {"grpc_code": code}
            )

        outcomes = ("created", "refused", "unavailable")
        assert [deliveries(outcome) for outcome in outcomes] == [1, 1, 1]
        codes = ("OK", "FAILED_PRECONDITION", "NOT_FOUND", "UNAVAILABLE")
        assert [attempts(code) for code in codes] == [2, 1, 1, 8]


class TestInvoiceFile:
    async def test_credit_notes_and_voids_survive_a_restart(self, tmp_path: Path) -> None:
        settings = InvoicingServerSettings(data_file=tmp_path / "invoices.jsonl")
        second = dataclasses.replace(INVOICE_REQUEST, idempotency_key="invoice-period-2")
        async with invoicing_server(settings) as server, invoicing_client(server.address) as client:
            credited_id = await client.create_invoice(INVOICE_REQUEST)
            void_id = await client.create_invoice(second)
            credit_note_id = await client.create_credit_note(credit_note_of(credited_id))
            await client.void_invoice(void_of(void_id))
            await client.void_invoice(void_of(void_id, idempotency_key="another"))
            kept = server.invoices, server.credit_notes

        async with invoicing_server(settings) as server, invoicing_client(server.address) as client:
            assert (server.invoices, server.credit_notes) == kept
            assert await client.create_credit_note(credit_note_of(credited_id)) == credit_note_id
            await client.void_invoice(void_of(void_id))
            for key in (VOID_REQUEST.idempotency_key, "another"):
                other = void_of(credited_id, idempotency_key=key)
                with pytest.raises(InvoiceRefused, match="ALREADY_EXISTS"):
                    await client.void_invoice(other)
            assert (server.invoices, server.credit_notes) == kept

    async def test_a_file_of_before_there_were_credit_notes_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "invoices.jsonl"
        path.write_text(
            '{"id": "inv_01kg", "idempotencyKey": "invoice-period-1", "tenantId": "acme", '
            '"livemode": true, "customerId": "cus_1", "currency": "EUR", "lineItems": '
            '[{"description": "Plan Bäsic", "quantity": {"value": "1"}, "unitPrice": '
            '{"value": "3050"}, "amount": "3050"}], "issueDate": {"year": 2026, "month": 2, '
            '"day": 1}, "dueDate": {"year": 2026, "month": 3, "day": 3}, "totalAmount": "3050", '
            '"subscriptionId": "sub_01h455vb4pex5vsknk084sn02q", "periodStart": '
            '"2026-01-01T00:00:00Z", "periodEnd": "2026-02-01T00:00:00Z", "createdAt": '
            '"2026-02-01T00:00:01.500Z"}\n'
        )
        settings = InvoicingServerSettings(data_file=path)
        async with invoicing_server(settings) as server, invoicing_client(server.address) as client:
            await client.create_credit_note(credit_note_of("inv_01kg"))
            [invoice] = server.invoices
        assert (invoice.id, invoice.credited_amount) == ("inv_01kg", 50)
        assert len(path.read_text().splitlines()) == 2

    @pytest.mark.parametrize(
        "line",
        [
            '{"creditNote": 5}',
            '{"creditNote": {"unknown": 1}}',
            '{"voidRequest": {"invoiceId": "inv_1"}}',
            '{"voidRequest": {"unknown": 1}, "voidedAt": "2026-02-01T00:00:00Z"}',
        ],
    )
    async def test_a_damaged_line_is_named(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "invoices.jsonl"
        path.write_text(f'{{"id": "inv_1"}}\n{line}\n')
        server = ReferenceInvoicingServer(InvoicingServerSettings(data_file=path))
        with pytest.raises(InvoiceFileDamaged, match=r"invoices\.jsonl, line 2: "):
            await server.start()

    async def test_what_happened_to_no_invoice_is_damage_and_frees_the_file(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "invoices.jsonl"
        path.write_text('{"creditNote": {"invoiceId": "inv_1", "totalAmount": "-50"}}\n')
        settings = InvoicingServerSettings(data_file=path)
        server = ReferenceInvoicingServer(settings)
        with pytest.raises(InvoiceFileDamaged, match="inv_1"):
            await server.start()
        path.write_text("")
        async with invoicing_server(settings) as second:
            assert second.invoices == []
