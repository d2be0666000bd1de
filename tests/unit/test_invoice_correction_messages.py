"""What takes invoices back says exactly what the domain says, and so must the answers."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from billing.clients.invoicing_messages import (
    create_credit_note_request,
    created_credit_note_id,
    expect_voided,
    found_invoice,
    get_invoice_request,
    void_invoice_request,
)
from billing.domain.errors import InvoiceRefused
from billing.domain.invoices import FoundInvoice
from invoicing.v1 import invoicing_pb2
from tests.factories.invoicing import CREDIT_NOTE_REQUEST, VOID_REQUEST

NOON = Timestamp()
NOON.FromDatetime(datetime(2026, 2, 10, 12, tzinfo=UTC))
LOOK_UP = get_invoice_request(tenant_id="acme", invoice_id="inv_1")


def credit_note(**changes: Any) -> invoicing_pb2.CreateCreditNoteResponse:
    fields: dict[str, Any] = {
        "id": "cn_1",
        "idempotency_key": "credit-note-calculation-1",
        "invoice_id": "inv_1",
        "total_amount": -50,
        "currency": "EUR",
    }
    return invoicing_pb2.CreateCreditNoteResponse(
        credit_note=invoicing_pb2.CreditNote(**{**fields, **changes})
    )


def invoice(**changes: Any) -> invoicing_pb2.Invoice:
    fields: dict[str, Any] = {
        "id": "inv_1",
        "tenant_id": "acme",
        "customer_id": "cus_1",
        "currency": "EUR",
        "total_amount": 3050,
    }
    return invoicing_pb2.Invoice(**{**fields, **changes})


class TestCreditNote:
    def test_every_field_is_sent(self) -> None:
        assert json_format.MessageToDict(create_credit_note_request(CREDIT_NOTE_REQUEST)) == {
            "idempotencyKey": "credit-note-calculation-1",
            "tenantId": "acme",
            "livemode": True,
            "customerId": "cus_1",
            "currency": "EUR",
            "invoiceId": "inv_1",
            "lineItems": [
                {
                    "description": "API Calls: 4,000 fewer",
                    "quantity": {"value": "4000"},
                    "unitPrice": {"value": "-0.015"},
                    "amount": "-60",
                },
                {
                    "description": "Credits no longer applied",
                    "quantity": {"value": "1"},
                    "unitPrice": {"value": "10"},
                    "amount": "10",
                },
            ],
            "issueDate": {"year": 2026, "month": 2, "day": 10},
            "totalAmount": "-50",
            "reason": "usage was counted twice",
            "subscriptionId": "sub_01h455vb4pex5vsknk084sn02q",
            "periodStart": "2026-01-01T00:00:00Z",
            "periodEnd": "2026-02-01T00:00:00Z",
        }

    def test_the_id_of_the_answer_is_returned(self) -> None:
        assert created_credit_note_id(credit_note(), CREDIT_NOTE_REQUEST) == "cn_1"

    @pytest.mark.parametrize(
        ("changes", "detail"),
        [
            (
                {"idempotency_key": "x"},
                "another credit note, cn_1: idempotency_key 'x' instead of "
                "'credit-note-calculation-1'",
            ),
            (
                {"invoice_id": "inv_2", "total_amount": 50},
                "another credit note, cn_1: invoice_id 'inv_2' instead of 'inv_1', "
                "total_amount 50 instead of -50",
            ),
            ({"currency": "USD"}, "another credit note, cn_1: currency 'USD' instead of 'EUR'"),
            ({"id": "cn\0"}, "a credit note whose id cannot be kept: 'cn\\x00'"),
            ({"id": ""}, "an answer without a credit note"),
        ],
    )
    def test_an_answer_about_something_else_is_refused(
        self, changes: dict[str, Any], detail: str
    ) -> None:
        with pytest.raises(InvoiceRefused) as refusal:
            created_credit_note_id(credit_note(**changes), CREDIT_NOTE_REQUEST)
        assert refusal.value.metadata["detail"] == detail
        assert "refused the credit note with" in str(refusal.value)

    def test_an_answer_that_cannot_be_parsed_is_refused(self) -> None:
        with pytest.raises(InvoiceRefused, match="an answer without a credit note"):
            created_credit_note_id(None, CREDIT_NOTE_REQUEST)


class TestVoid:
    def test_every_field_is_sent(self) -> None:
        assert json_format.MessageToDict(void_invoice_request(VOID_REQUEST)) == {
            "idempotencyKey": "void-calculation-1",
            "tenantId": "acme",
            "invoiceId": "inv_1",
            "reason": "billed by mistake",
        }

    def test_the_void_invoice_is_the_answer(self) -> None:
        answer = invoicing_pb2.VoidInvoiceResponse(invoice=invoice(voided_at=NOON))
        expect_voided(answer, VOID_REQUEST)

    @pytest.mark.parametrize(
        ("answer", "detail"),
        [
            (None, "an answer without an invoice"),
            (invoicing_pb2.VoidInvoiceResponse(), "an answer without an invoice"),
            (
                invoicing_pb2.VoidInvoiceResponse(invoice=invoice(id="inv_2", voided_at=NOON)),
                "another invoice, inv_2: id 'inv_2' instead of 'inv_1'",
            ),
            (
                invoicing_pb2.VoidInvoiceResponse(invoice=invoice()),
                "invoice inv_1, which is not void",
            ),
        ],
    )
    def test_any_other_answer_is_refused(
        self, answer: invoicing_pb2.VoidInvoiceResponse | None, detail: str
    ) -> None:
        with pytest.raises(InvoiceRefused) as refusal:
            expect_voided(answer, VOID_REQUEST)
        assert refusal.value.metadata["detail"] == detail
        assert "refused the void with" in str(refusal.value)


class TestFoundInvoice:
    FOUND = FoundInvoice(
        id="inv_1",
        customer_id="cus_1",
        currency="EUR",
        total_minor=3050,
        credited_minor=0,
        is_voided=False,
    )

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({}, FOUND),
            ({"credited_amount": 50}, dataclasses.replace(FOUND, credited_minor=50)),
            ({"voided_at": NOON}, dataclasses.replace(FOUND, is_voided=True)),
        ],
    )
    def test_it_is_the_invoice_as_it_stands(
        self, changes: dict[str, Any], found: FoundInvoice
    ) -> None:
        answer = invoicing_pb2.GetInvoiceResponse(invoice=invoice(**changes))
        assert found_invoice(answer, LOOK_UP) == found

    @pytest.mark.parametrize(
        ("answer", "detail"),
        [
            (None, "an answer without an invoice"),
            (invoicing_pb2.GetInvoiceResponse(), "an answer without an invoice"),
            (
                invoicing_pb2.GetInvoiceResponse(invoice=invoice(id="inv_2", tenant_id="other")),
                "another invoice, inv_2: id 'inv_2' instead of 'inv_1', "
                "tenant_id 'other' instead of 'acme'",
            ),
        ],
    )
    def test_another_invoice_is_refused(
        self, answer: invoicing_pb2.GetInvoiceResponse | None, detail: str
    ) -> None:
        with pytest.raises(InvoiceRefused) as refusal:
            found_invoice(answer, LOOK_UP)
        assert refusal.value.metadata["detail"] == detail
