"""The invoicing service's messages, from and to the domain."""

from datetime import date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.decimal_pb2 import Decimal

from billing.domain.errors import InvoiceRefused
from billing.domain.identifiers import SUBSCRIPTION, to_typeid
from billing.domain.invoices import InvoiceLineItem, InvoiceRequest
from billing.domain.money import plain
from invoicing.v1 import invoicing_pb2

_MAX_ID_LENGTH: Final = 255


def create_invoice_request(request: InvoiceRequest) -> invoicing_pb2.CreateInvoiceRequest:
    """Return the message that asks for the invoice; equal requests give equal messages."""
    return invoicing_pb2.CreateInvoiceRequest(
        idempotency_key=request.idempotency_key,
        tenant_id=request.tenant_id,
        livemode=request.livemode,
        customer_id=request.customer_id,
        currency=request.currency,
        line_items=[_line_item(line_item) for line_item in request.line_items],
        issue_date=_date(request.issue_date),
        due_date=_date(request.due_date),
        total_amount=request.total_minor,
        subscription_id=to_typeid(SUBSCRIPTION, request.subscription_id),
        period_start=_timestamp(request.period_start),
        period_end=_timestamp(request.period_end),
    )


def created_invoice_id(
    response: invoicing_pb2.CreateInvoiceResponse | None, request: InvoiceRequest
) -> str:
    """Return the id of the invoice that answers ``request``.

    Raises InvoiceRefused if the answer is about anything else: the period would otherwise be
    settled by an invoice that says something different. grpc gives None for bytes it cannot parse.
    """
    if response is None or not response.invoice.id:
        raise InvoiceRefused(detail="an answer without an invoice")
    invoice = response.invoice
    if not invoice.id.isprintable() or len(invoice.id) > _MAX_ID_LENGTH:
        raise InvoiceRefused(detail=f"an invoice whose id cannot be kept: {invoice.id[:40]!r}")
    differences = [
        f"{field} {answered!r} instead of {asked!r}"
        for field, answered, asked in (
            ("idempotency_key", invoice.idempotency_key, request.idempotency_key),
            ("total_amount", invoice.total_amount, request.total_minor),
            ("currency", invoice.currency, request.currency),
        )
        if answered != asked
    ]
    if differences:
        raise InvoiceRefused(detail=f"another invoice, {invoice.id}: {', '.join(differences)}")
    return invoice.id


def _line_item(line_item: InvoiceLineItem) -> invoicing_pb2.InvoiceLineItem:
    return invoicing_pb2.InvoiceLineItem(
        description=line_item.description,
        quantity=Decimal(value=plain(line_item.quantity)),
        unit_price=Decimal(value=plain(line_item.unit_price)),
        amount=line_item.amount_minor,
    )


def _date(value: date) -> Date:
    return Date(year=value.year, month=value.month, day=value.day)


def _timestamp(value: datetime) -> Timestamp:
    # protobuf takes a time without a zone for UTC, which would bill another period in silence.
    assert value.tzinfo is not None, value
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
