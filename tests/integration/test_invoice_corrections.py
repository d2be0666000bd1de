"""Credit notes, voids and look-ups of invoices: what is kept, told and refused, over a channel."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf import json_format

from billing.clients.invoicing import InvoicingClient
from billing.clients.invoicing_messages import create_credit_note_request
from billing.domain.errors import InvoiceRefused
from billing.domain.identifiers import from_typeid
from billing.domain.invoices import CreditNoteRequest, FoundInvoice, InvoiceLineItem
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.invoicing import (
    INVOICE_REQUEST,
    credit_note_of,
    invoicing_client,
    invoicing_server,
    void_of,
)

INVOICE_MINOR = INVOICE_REQUEST.total_minor


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


def credit_note_over(invoice_id: str, *, taken_minor: int, key: str) -> CreditNoteRequest:
    """A credit note of one line."""
    line = InvoiceLineItem("Taken back", Decimal(1), Decimal(-taken_minor), -taken_minor)
    return credit_note_of(
        invoice_id, idempotency_key=key, line_items=(line,), total_minor=-taken_minor
    )


async def refusal_of(call: Awaitable[object]) -> str:
    with pytest.raises(InvoiceRefused) as refusal:
        await call
    return str(refusal.value.metadata["detail"])


class TestCreateCreditNote:
    async def test_the_server_keeps_exactly_what_was_asked(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        credit_note_id = await client.create_credit_note(credit_note_of(invoice_id))

        [credit_note] = server.credit_notes
        from_typeid("cn", credit_note_id)  # raises if it is none
        assert credit_note.id == credit_note_id
        age = datetime.now(UTC) - credit_note.created_at.ToDatetime(UTC)
        assert timedelta() <= age < timedelta(minutes=1)
        kept = json_format.MessageToDict(credit_note)
        del kept["id"], kept["createdAt"]
        asked = create_credit_note_request(credit_note_of(invoice_id))
        assert kept == json_format.MessageToDict(asked)

    async def test_the_same_request_again_is_the_same_credit_note(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        request = credit_note_over(invoice_id, taken_minor=INVOICE_MINOR, key="all")
        first_id = await client.create_credit_note(request)
        server.refused_customer_ids.add("cus_1")  # changes nothing about what is done

        assert await client.create_credit_note(request) == first_id
        assert len(server.credit_notes) == 1
        assert server.invoices[0].credited_amount == INVOICE_MINOR

    async def test_concurrent_calls_with_one_key_make_one_credit_note(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        request = credit_note_of(invoice_id)
        ids = await asyncio.gather(*(client.create_credit_note(request) for _ in range(20)))

        assert len(set(ids)) == 1
        assert len(server.credit_notes) == 1

    async def test_other_content_under_a_used_key_is_refused(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        await client.create_credit_note(credit_note_over(invoice_id, taken_minor=50, key="one"))
        other = credit_note_over(invoice_id, taken_minor=60, key="one")

        assert await refusal_of(client.create_credit_note(other)) == (
            "ALREADY_EXISTS: idempotency_key 'one' has a credit note of -50 EUR, and this request "
            "is for -60 EUR; they differ in line_items, total_amount"
        )
        assert server.invoices[0].credited_amount == 50

    async def test_an_invoice_asked_for_again_is_the_same_after_a_credit_note_and_a_void(
        self, client: InvoicingClient, invoice_id: str
    ) -> None:
        second = dataclasses.replace(INVOICE_REQUEST, idempotency_key="invoice-period-2")
        second_id = await client.create_invoice(second)
        await client.create_credit_note(credit_note_of(invoice_id))
        await client.void_invoice(void_of(second_id))

        assert await client.create_invoice(INVOICE_REQUEST) == invoice_id
        assert await client.create_invoice(second) == second_id

    async def test_an_invoice_is_taken_back_to_the_last_cent_and_no_further(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        await client.create_credit_note(credit_note_over(invoice_id, taken_minor=3000, key="1"))
        too_much = credit_note_over(invoice_id, taken_minor=51, key="2")
        assert await refusal_of(client.create_credit_note(too_much)) == (
            f"FAILED_PRECONDITION: 50 EUR is left of invoice {invoice_id}, and the credit note "
            "takes back 51"
        )
        await client.create_credit_note(credit_note_over(invoice_id, taken_minor=50, key="2"))

        assert server.invoices[0].credited_amount == INVOICE_MINOR
        assert [credit_note.total_amount for credit_note in server.credit_notes] == [-3000, -50]

    @pytest.mark.parametrize(
        ("changes", "detail"),
        [
            (
                {"currency": "USD"},
                "FAILED_PRECONDITION: currency: invoice {id} has 'EUR', the credit note 'USD'",
            ),
            (
                {"customer_id": "cus_2"},
                "FAILED_PRECONDITION: customer_id: invoice {id} has 'cus_1', the credit note "
                "'cus_2'",
            ),
            ({"tenant_id": "other"}, "NOT_FOUND: invoice {id} does not exist in tenant other"),
            ({"livemode": False}, "NOT_FOUND: invoice {id} does not exist in tenant acme"),
            (
                {"invoice_id": "inv_unknown"},
                "NOT_FOUND: invoice inv_unknown does not exist in tenant acme",
            ),
            (
                {"total_minor": -51},
                "INVALID_ARGUMENT: total_amount: is -51, but the lines add up to -50",
            ),
            ({"total_minor": 0}, "INVALID_ARGUMENT: total_amount: must be less than 0"),
            ({"reason": ""}, "INVALID_ARGUMENT: reason: must be at least 1 characters"),
            ({"line_items": ()}, "INVALID_ARGUMENT: line_items: must contain at least 1 item(s)"),
        ],
    )
    async def test_what_does_not_fit_the_invoice_is_refused(
        self,
        server: ReferenceInvoicingServer,
        client: InvoicingClient,
        invoice_id: str,
        changes: dict[str, Any],
        detail: str,
    ) -> None:
        request = dataclasses.replace(credit_note_of(invoice_id), **changes)
        assert await refusal_of(client.create_credit_note(request)) == detail.format(id=invoice_id)
        assert server.credit_note_call_count == 1
        assert server.credit_notes == []
        assert server.invoices[0].credited_amount == 0

    async def test_a_void_invoice_has_no_credit_notes(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        await client.void_invoice(void_of(invoice_id))
        assert await refusal_of(client.create_credit_note(credit_note_of(invoice_id))) == (
            f"FAILED_PRECONDITION: invoice {invoice_id} is void"
        )
        assert server.credit_notes == []


class TestVoidInvoice:
    async def test_an_invoice_is_void_from_one_moment_on(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        [standing] = server.invoices
        await client.void_invoice(void_of(invoice_id))
        [void] = server.invoices
        age = datetime.now(UTC) - void.voided_at.ToDatetime(UTC)
        assert timedelta() <= age < timedelta(minutes=1)
        assert not standing.HasField("voided_at")

        await client.void_invoice(void_of(invoice_id))
        await client.void_invoice(void_of(invoice_id, idempotency_key="another", reason="again"))
        assert server.invoices == [void]

    async def test_other_content_under_a_used_key_is_refused(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        second = dataclasses.replace(INVOICE_REQUEST, idempotency_key="invoice-period-2")
        second_id = await client.create_invoice(second)
        await client.void_invoice(void_of(invoice_id, idempotency_key="first"))
        await client.void_invoice(void_of(invoice_id, idempotency_key="repeat"))

        for key in ("first", "repeat"):
            other = void_of(second_id, idempotency_key=key, reason="another")
            assert await refusal_of(client.void_invoice(other)) == (
                f"ALREADY_EXISTS: idempotency_key '{key}' is of the void of invoice {invoice_id}; "
                "this request differs in invoice_id, reason"
            )
        assert [invoice.HasField("voided_at") for invoice in server.invoices] == [True, False]

    @pytest.mark.parametrize(
        "changes", [{"tenant_id": "other"}, {"invoice_id": "inv_unknown"}], ids=str
    )
    async def test_only_an_invoice_of_the_tenant_is_voided(
        self,
        server: ReferenceInvoicingServer,
        client: InvoicingClient,
        invoice_id: str,
        changes: dict[str, Any],
    ) -> None:
        request = dataclasses.replace(void_of(invoice_id), **changes)
        assert await refusal_of(client.void_invoice(request)) == (
            f"NOT_FOUND: invoice {request.invoice_id} does not exist in tenant {request.tenant_id}"
        )
        assert not server.invoices[0].HasField("voided_at")

    async def test_an_invoice_with_credit_notes_stands(
        self, server: ReferenceInvoicingServer, client: InvoicingClient, invoice_id: str
    ) -> None:
        await client.create_credit_note(credit_note_of(invoice_id))
        assert await refusal_of(client.void_invoice(void_of(invoice_id))) == (
            f"FAILED_PRECONDITION: invoice {invoice_id} has credit notes of 50 EUR"
        )
        assert not server.invoices[0].HasField("voided_at")


class TestFindInvoice:
    async def test_it_tells_how_the_invoice_stands(
        self, client: InvoicingClient, invoice_id: str
    ) -> None:
        second = dataclasses.replace(INVOICE_REQUEST, idempotency_key="invoice-period-2")
        second_id = await client.create_invoice(second)
        await client.create_credit_note(credit_note_of(invoice_id))
        await client.void_invoice(void_of(second_id))

        credited = FoundInvoice(
            id=invoice_id,
            customer_id="cus_1",
            currency="EUR",
            total_minor=3050,
            credited_minor=50,
            is_voided=False,
        )
        void = dataclasses.replace(credited, id=second_id, credited_minor=0, is_voided=True)
        assert await client.find_invoice(tenant_id="acme", invoice_id=invoice_id) == credited
        assert await client.find_invoice(tenant_id="acme", invoice_id=second_id) == void

    async def test_an_invoice_of_another_tenant_is_not_found(
        self, client: InvoicingClient, invoice_id: str
    ) -> None:
        assert await client.find_invoice(tenant_id="other", invoice_id=invoice_id) is None
        assert await client.find_invoice(tenant_id="acme", invoice_id="inv_unknown") is None

    async def test_a_malformed_question_is_not_taken_for_an_unknown_invoice(
        self, client: InvoicingClient
    ) -> None:
        assert await refusal_of(client.find_invoice(tenant_id="acme", invoice_id="")) == (
            "INVALID_ARGUMENT: invoice_id: must be at least 1 characters"
        )
