"""The invoicing service's messages, from and to the domain."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.decimal_pb2 import Decimal

from billing.domain.errors import InvoiceRefused
from billing.domain.identifiers import SUBSCRIPTION, to_typeid
from billing.domain.invoices import (
    CreditNoteRequest,
    FoundInvoice,
    InvoiceLineItem,
    InvoiceRequest,
    VoidRequest,
)
from billing.domain.money import plain
from invoicing.v1 import invoicing_pb2

INVOICE: Final = "invoice"
CREDIT_NOTE: Final = "credit note"
VOID: Final = "void"
LOOK_UP: Final = "look-up of an invoice"
"""What may be asked for, as errors say it."""

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
    _refuse_unkeepable_id(invoice.id, INVOICE)
    _refuse_differences(
        INVOICE,
        invoice.id,
        (
            ("idempotency_key", invoice.idempotency_key, request.idempotency_key),
            ("total_amount", invoice.total_amount, request.total_minor),
            ("currency", invoice.currency, request.currency),
        ),
    )
    return invoice.id


def create_credit_note_request(
    request: CreditNoteRequest,
) -> invoicing_pb2.CreateCreditNoteRequest:
    """Return the message that asks for the credit note; equal requests give equal messages."""
    return invoicing_pb2.CreateCreditNoteRequest(
        idempotency_key=request.idempotency_key,
        tenant_id=request.tenant_id,
        livemode=request.livemode,
        customer_id=request.customer_id,
        currency=request.currency,
        invoice_id=request.invoice_id,
        line_items=[_line_item(line_item) for line_item in request.line_items],
        issue_date=_date(request.issue_date),
        total_amount=request.total_minor,
        reason=request.reason,
        subscription_id=to_typeid(SUBSCRIPTION, request.subscription_id),
        period_start=_timestamp(request.period_start),
        period_end=_timestamp(request.period_end),
    )


def created_credit_note_id(
    response: invoicing_pb2.CreateCreditNoteResponse | None, request: CreditNoteRequest
) -> str:
    """Return the id of the credit note that answers ``request``.

    Raises InvoiceRefused if the answer is about anything else.
    """
    if response is None or not response.credit_note.id:
        raise InvoiceRefused(detail="an answer without a credit note", asked_for=CREDIT_NOTE)
    credit_note = response.credit_note
    _refuse_unkeepable_id(credit_note.id, CREDIT_NOTE)
    _refuse_differences(
        CREDIT_NOTE,
        credit_note.id,
        (
            ("idempotency_key", credit_note.idempotency_key, request.idempotency_key),
            ("invoice_id", credit_note.invoice_id, request.invoice_id),
            ("total_amount", credit_note.total_amount, request.total_minor),
            ("currency", credit_note.currency, request.currency),
        ),
    )
    return credit_note.id


def void_invoice_request(request: VoidRequest) -> invoicing_pb2.VoidInvoiceRequest:
    """Return the message that asks for the void; equal requests give equal messages."""
    return invoicing_pb2.VoidInvoiceRequest(
        idempotency_key=request.idempotency_key,
        tenant_id=request.tenant_id,
        invoice_id=request.invoice_id,
        reason=request.reason,
    )


def expect_voided(response: invoicing_pb2.VoidInvoiceResponse | None, request: VoidRequest) -> None:
    """Raise InvoiceRefused if the answer is not the invoice that was to be voided, void."""
    if response is None or not response.invoice.id:
        raise InvoiceRefused(detail="an answer without an invoice", asked_for=VOID)
    invoice = response.invoice
    _refuse_differences(VOID, invoice.id, (("id", invoice.id, request.invoice_id),))
    if not invoice.HasField("voided_at"):
        raise InvoiceRefused(detail=f"invoice {invoice.id}, which is not void", asked_for=VOID)


def get_invoice_request(*, tenant_id: str, invoice_id: str) -> invoicing_pb2.GetInvoiceRequest:
    """Return the message that asks how an invoice stands."""
    return invoicing_pb2.GetInvoiceRequest(tenant_id=tenant_id, invoice_id=invoice_id)


def found_invoice(
    response: invoicing_pb2.GetInvoiceResponse | None, request: invoicing_pb2.GetInvoiceRequest
) -> FoundInvoice:
    """Return the invoice of the answer; raises InvoiceRefused if it is another one."""
    if response is None or not response.invoice.id:
        raise InvoiceRefused(detail="an answer without an invoice", asked_for=LOOK_UP)
    invoice = response.invoice
    _refuse_differences(
        LOOK_UP,
        invoice.id,
        (
            ("id", invoice.id, request.invoice_id),
            ("tenant_id", invoice.tenant_id, request.tenant_id),
        ),
    )
    return FoundInvoice(
        id=invoice.id,
        customer_id=invoice.customer_id,
        currency=invoice.currency,
        total_minor=invoice.total_amount,
        credited_minor=invoice.credited_amount,
        is_voided=invoice.HasField("voided_at"),
    )


def _refuse_unkeepable_id(answered_id: str, asked_for: str) -> None:
    if not answered_id.isprintable() or len(answered_id) > _MAX_ID_LENGTH:
        article = "an" if asked_for == INVOICE else "a"
        raise InvoiceRefused(
            detail=f"{article} {asked_for} whose id cannot be kept: {answered_id[:40]!r}",
            asked_for=asked_for,
        )


def _refuse_differences(
    asked_for: str, answered_id: str, comparisons: Iterable[tuple[str, str | int, str | int]]
) -> None:
    differences = [
        f"{field} {answered!r} instead of {asked!r}"
        for field, answered, asked in comparisons
        if answered != asked
    ]
    if differences:
        document = CREDIT_NOTE if asked_for == CREDIT_NOTE else INVOICE
        raise InvoiceRefused(
            detail=f"another {document}, {answered_id}: {', '.join(differences)}",
            asked_for=asked_for,
        )


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
