"""An invoice to ask for, and the two ends that make it: client and reference server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from billing.clients.invoicing import InvoicingClient, InvoicingClientSettings
from billing.domain.invoices import InvoiceLineItem, InvoiceRequest
from billing.sandbox.invoicing_server import InvoicingServerSettings, ReferenceInvoicingServer

INVOICE_REQUEST = InvoiceRequest(
    idempotency_key="invoice-period-1",
    tenant_id="acme",
    livemode=True,
    customer_id="cus_1",
    currency="EUR",
    line_items=(
        InvoiceLineItem("Plan Basic", Decimal(1), Decimal(2900), 2900),
        InvoiceLineItem(
            "API Calls (10,000 over 1,000 included)", Decimal(10_000), Decimal("0.015"), 150
        ),
    ),
    issue_date=date(2026, 2, 1),
    due_date=date(2026, 3, 3),
    total_minor=3050,
    subscription_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    period_start=datetime(2026, 1, 1, tzinfo=UTC),
    period_end=datetime(2026, 2, 1, tzinfo=UTC),
)
CLIENT_SETTINGS = InvoicingClientSettings(
    deadline_seconds=30, initial_backoff_seconds=0.001, max_backoff_seconds=0.002
)


@asynccontextmanager
async def invoicing_client(
    target: str, settings: InvoicingClientSettings = CLIENT_SETTINGS
) -> AsyncIterator[InvoicingClient]:
    client = InvoicingClient(target, settings=settings)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def invoicing_server(
    settings: InvoicingServerSettings | None = None,
) -> AsyncIterator[ReferenceInvoicingServer]:
    server = ReferenceInvoicingServer(settings or InvoicingServerSettings(seed=1))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_seconds=0)
