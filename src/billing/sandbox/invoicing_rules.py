"""What the reference invoicing server refuses, and in which words."""

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.type.date_pb2 import Date

from invoicing.v1 import invoicing_pb2


def problem_of_invoice(request: invoicing_pb2.CreateInvoiceRequest) -> str | None:
    """Say what is malformed in the request; None if nothing is."""
    if problem := broken_rules(request) or _problem_of_lines(request):
        return problem
    try:
        issue_date = _date("issue_date", request.issue_date)
        due_date = _date("due_date", request.due_date)
    except ValueError as error:
        return str(error)
    if due_date < issue_date:
        return f"due_date: {due_date} is before the issue_date {issue_date}"
    return None


def problem_of_credit_note(request: invoicing_pb2.CreateCreditNoteRequest) -> str | None:
    """Say what is malformed in the request; None if nothing is."""
    if problem := broken_rules(request) or _problem_of_lines(request):
        return problem
    try:
        _date("issue_date", request.issue_date)
    except ValueError as error:
        return str(error)
    return None


def credit_note_refusal(
    invoice: invoicing_pb2.Invoice, request: invoicing_pb2.CreateCreditNoteRequest
) -> str | None:
    """Say why the invoice cannot have the credit note; None if it can."""
    if invoice.HasField("voided_at"):
        return f"invoice {invoice.id} is void"
    for name in ("customer_id", "currency"):
        kept, asked = getattr(invoice, name), getattr(request, name)
        if kept != asked:
            return f"{name}: invoice {invoice.id} has {kept!r}, the credit note {asked!r}"
    left_minor = invoice.total_amount - invoice.credited_amount
    if -request.total_amount > left_minor:
        return (
            f"{left_minor} {invoice.currency} is left of invoice {invoice.id}, and the credit note "
            f"takes back {-request.total_amount}"
        )
    return None


def void_refusal(invoice: invoicing_pb2.Invoice) -> str | None:
    """Say why the invoice cannot be voided; None if it can."""
    if invoice.credited_amount:
        return (
            f"invoice {invoice.id} has credit notes of {invoice.credited_amount} {invoice.currency}"
        )
    return None


def conflict_of(
    stored: invoicing_pb2.Invoice | invoicing_pb2.CreditNote,
    request: invoicing_pb2.CreateInvoiceRequest | invoicing_pb2.CreateCreditNoteRequest,
) -> str | None:
    """Say how the request differs from what has its key; None if it does not.

    What happened to an invoice after it was made is no difference.
    """
    differing = _differing_fields(stored, request)
    if not differing:
        return None
    kind = "an invoice" if isinstance(stored, invoicing_pb2.Invoice) else "a credit note"
    return (
        f"idempotency_key {stored.idempotency_key!r} has {kind} of {stored.total_amount} "
        f"{stored.currency}, and this request is for {request.total_amount} {request.currency}; "
        f"they differ in {', '.join(differing)}"
    )


def void_conflict_of(
    stored: invoicing_pb2.VoidInvoiceRequest, request: invoicing_pb2.VoidInvoiceRequest
) -> str | None:
    """Say how the request differs from the void that has its key; None if it does not."""
    differing = _differing_fields(stored, request)
    if not differing:
        return None
    return (
        f"idempotency_key {stored.idempotency_key!r} is of the void of invoice "
        f"{stored.invoice_id}; this request differs in {', '.join(differing)}"
    )


def broken_rules(request: Message) -> str | None:
    """Say which of the contract's rules the request breaks; None if none."""
    violations = [violation.proto for violation in protovalidate.collect_violations(request)]
    return "; ".join(f"{_path(violation)}: {violation.message}" for violation in violations) or None


def _differing_fields(stored: Message, request: Message) -> list[str]:
    # By what is set: an empty message and none are not the same.
    kept, asked = _set_fields(stored), _set_fields(request)
    names = [field.name for field in request.DESCRIPTOR.fields]
    return [name for name in names if kept.get(name) != asked.get(name)]


def _set_fields(message: Message) -> dict[str, Any]:
    return {descriptor.name: value for descriptor, value in message.ListFields()}


def _problem_of_lines(
    request: invoicing_pb2.CreateInvoiceRequest | invoicing_pb2.CreateCreditNoteRequest,
) -> str | None:
    for index, line_item in enumerate(request.line_items):
        for name, text in (
            ("quantity", line_item.quantity.value),
            ("unit_price", line_item.unit_price.value),
        ):
            if not _is_decimal(text):
                return f"line_items[{index}].{name}: {text!r} is no decimal"
    lines_sum = sum(line_item.amount for line_item in request.line_items)
    if lines_sum != request.total_amount:
        return f"total_amount: is {request.total_amount}, but the lines add up to {lines_sum}"
    return None


def _path(violation: protovalidate.ViolationPb) -> str:
    elements = violation.field.elements if violation.field else ()
    return ".".join(
        f"{element.field_name}[{element.subscript.value}]"
        if element.subscript
        else element.field_name
        for element in elements
    )


def _date(name: str, value: Date) -> date:
    try:
        return date(value.year, value.month, value.day)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _is_decimal(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
