"""Invoices to ask for and to take back, and the two ends: client and reference server."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.clients.invoicing import InvoicingClient, InvoicingClientSettings, InvoicingMetering
from billing.domain.invoices import CreditNoteRequest, InvoiceLineItem, InvoiceRequest, VoidRequest
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
CREDIT_NOTE_REQUEST = CreditNoteRequest(
    idempotency_key="credit-note-calculation-1",
    tenant_id="acme",
    livemode=True,
    customer_id="cus_1",
    currency="EUR",
    invoice_id="inv_1",
    line_items=(
        InvoiceLineItem("API Calls: 4,000 fewer", Decimal(4_000), Decimal("-0.015"), -60),
        InvoiceLineItem("Credits no longer applied", Decimal(1), Decimal(10), 10),
    ),
    issue_date=date(2026, 2, 10),
    total_minor=-50,
    reason="usage was counted twice",
    subscription_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    period_start=datetime(2026, 1, 1, tzinfo=UTC),
    period_end=datetime(2026, 2, 1, tzinfo=UTC),
)
VOID_REQUEST = VoidRequest(
    idempotency_key="void-calculation-1",
    tenant_id="acme",
    invoice_id="inv_1",
    reason="billed by mistake",
)
CLIENT_SETTINGS = InvoicingClientSettings(
    deadline_seconds=30, initial_backoff_seconds=0.001, max_backoff_seconds=0.002
)


def credit_note_of(invoice_id: str, **changes: Any) -> CreditNoteRequest:
    """The credit note, for the invoice."""
    return dataclasses.replace(CREDIT_NOTE_REQUEST, invoice_id=invoice_id, **changes)


def void_of(invoice_id: str, **changes: Any) -> VoidRequest:
    """The void, of the invoice."""
    return dataclasses.replace(VOID_REQUEST, invoice_id=invoice_id, **changes)


@asynccontextmanager
async def invoicing_client(
    target: str,
    settings: InvoicingClientSettings = CLIENT_SETTINGS,
    metering: InvoicingMetering | None = None,
) -> AsyncIterator[InvoicingClient]:
    client = InvoicingClient(target, settings=settings, metering=metering)
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
