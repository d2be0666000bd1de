"""The invoicing service's messages say exactly what the domain says."""

import dataclasses
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from google.protobuf import json_format

from billing.clients.invoicing_messages import create_invoice_request, created_invoice_id
from billing.domain.errors import InvoiceRefused
from billing.domain.invoices import InvoiceLineItem, InvoiceRequest
from invoicing.v1.invoicing_pb2 import CreateInvoiceResponse, Invoice

REQUEST = InvoiceRequest(
    idempotency_key="invoice-period-1",
    tenant_id="acme",
    livemode=True,
    customer_id="cus_1",
    currency="EUR",
    line_items=(
        InvoiceLineItem("Plan Basic", Decimal(1), Decimal("2900.00"), 2900),
        InvoiceLineItem("API Calls", Decimal("1E+4"), Decimal("0.0150"), 150),
        InvoiceLineItem("Credits applied", Decimal(1), Decimal(-50), -50),
    ),
    issue_date=date(2026, 2, 1),
    due_date=date(2026, 3, 3),
    total_minor=3000,
    subscription_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    period_start=datetime(2026, 1, 1, tzinfo=UTC),
    period_end=datetime(2026, 2, 1, 0, 0, 0, 250_000, tzinfo=UTC),
)


def answer(**changes: str | int) -> CreateInvoiceResponse:
    invoice = Invoice(
        id="inv_1", idempotency_key="invoice-period-1", total_amount=3000, currency="EUR"
    )
    for field, value in changes.items():
        setattr(invoice, field, value)
    return CreateInvoiceResponse(invoice=invoice)


def test_every_field_is_sent() -> None:
    assert json_format.MessageToDict(create_invoice_request(REQUEST)) == {
        "idempotencyKey": "invoice-period-1",
        "tenantId": "acme",
        "livemode": True,
        "customerId": "cus_1",
        "currency": "EUR",
        "lineItems": [
            {
                "description": "Plan Basic",
                "quantity": {"value": "1"},
                "unitPrice": {"value": "2900"},
                "amount": "2900",
            },
            {
                "description": "API Calls",
                "quantity": {"value": "10000"},
                "unitPrice": {"value": "0.015"},
                "amount": "150",
            },
            {
                "description": "Credits applied",
                "quantity": {"value": "1"},
                "unitPrice": {"value": "-50"},
                "amount": "-50",
            },
        ],
        "issueDate": {"year": 2026, "month": 2, "day": 1},
        "dueDate": {"year": 2026, "month": 3, "day": 3},
        "totalAmount": "3000",
        "subscriptionId": "sub_01h455vb4pex5vsknk084sn02q",
        "periodStart": "2026-01-01T00:00:00Z",
        "periodEnd": "2026-02-01T00:00:00.250Z",
    }


def test_one_instant_in_two_zones_is_one_message() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    elsewhere = dataclasses.replace(REQUEST, period_start=REQUEST.period_start.astimezone(zone))
    assert create_invoice_request(elsewhere) == create_invoice_request(REQUEST)


def test_a_time_without_a_zone_is_not_taken_for_utc() -> None:
    naive = dataclasses.replace(REQUEST, period_start=REQUEST.period_start.replace(tzinfo=None))
    with pytest.raises(AssertionError):
        create_invoice_request(naive)


def test_the_id_of_the_answer_is_returned() -> None:
    assert created_invoice_id(answer(), REQUEST) == "inv_1"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        (
            {"idempotency_key": "invoice-period-2"},
            "another invoice, inv_1: idempotency_key 'invoice-period-2' instead of "
            "'invoice-period-1'",
        ),
        (
            {"total_amount": 3001, "currency": "USD"},
            "another invoice, inv_1: total_amount 3001 instead of 3000, currency 'USD' instead of "
            "'EUR'",
        ),
        ({"id": ""}, "an answer without an invoice"),
    ],
)
def test_an_answer_about_something_else_is_refused(
    changes: dict[str, str | int], detail: str
) -> None:
    with pytest.raises(InvoiceRefused) as refusal:
        created_invoice_id(answer(**changes), REQUEST)
    assert refusal.value.metadata["detail"] == detail


@pytest.mark.parametrize("invoice_id", ["inv_1\0", "inv\n1", "x" * 256])
def test_an_id_that_the_database_cannot_keep_is_refused(invoice_id: str) -> None:
    with pytest.raises(InvoiceRefused, match="an invoice whose id cannot be kept"):
        created_invoice_id(answer(id=invoice_id), REQUEST)


@pytest.mark.parametrize("response", [None, CreateInvoiceResponse()])
def test_an_empty_answer_is_refused(response: CreateInvoiceResponse | None) -> None:
    with pytest.raises(InvoiceRefused, match="an answer without an invoice"):
        created_invoice_id(response, REQUEST)
