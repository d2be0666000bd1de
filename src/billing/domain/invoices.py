"""What the invoicing service is asked for."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

PAYMENT_TERM: Final = timedelta(days=30)
"""An invoice is due this long after its issue."""


@dataclass(frozen=True, slots=True)
class InvoiceLineItem:
    """One line. ``unit_price`` and ``amount_minor`` are in minor units."""

    description: str
    quantity: Decimal
    unit_price: Decimal
    amount_minor: int


@dataclass(frozen=True, slots=True)
class InvoiceRequest:
    """One invoice to create. Stored with the posting, so that every attempt sends the same."""

    idempotency_key: str
    tenant_id: str
    livemode: bool
    customer_id: str
    currency: str
    line_items: tuple[InvoiceLineItem, ...]
    issue_date: date
    due_date: date
    total_minor: int
    subscription_id: UUID
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True, slots=True)
class CreditNoteRequest:
    """One credit note to create: what is taken back from one invoice.

    ``total_minor``, the sum of the lines, is negative. Stored like an InvoiceRequest.
    """

    idempotency_key: str
    tenant_id: str
    livemode: bool
    customer_id: str
    currency: str
    invoice_id: str
    line_items: tuple[InvoiceLineItem, ...]
    issue_date: date
    total_minor: int
    reason: str
    subscription_id: UUID
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True, slots=True)
class VoidRequest:
    """One invoice to void. Stored like an InvoiceRequest."""

    idempotency_key: str
    tenant_id: str
    invoice_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FoundInvoice:
    """An invoice as the invoicing service has it, in minor units.

    ``credited_minor`` is what its credit notes take back: 0 or more.
    """

    id: str
    customer_id: str
    currency: str
    total_minor: int
    credited_minor: int
    is_voided: bool
