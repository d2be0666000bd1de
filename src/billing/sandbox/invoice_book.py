"""What the reference invoicing server keeps: invoices, credit notes and voids."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain import identifiers
from billing.sandbox.invoice_file import (
    InvoiceFile,
    InvoiceFileDamaged,
    InvoiceRecord,
    InvoiceVoid,
)
from invoicing.v1 import invoicing_pb2

INVOICE_ID_PREFIX: Final = "inv"
CREDIT_NOTE_ID_PREFIX: Final = "cn"


class InvoiceBook:
    """Invoices with their credit notes and voids. Without a path they live in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._file = InvoiceFile(path) if path is not None else None
        self._forget()

    @property
    def invoices(self) -> list[invoicing_pb2.Invoice]:
        """All of them as they stand, oldest first."""
        return list(self._invoices.values())

    @property
    def credit_notes(self) -> list[invoicing_pb2.CreditNote]:
        """All of them, oldest first."""
        return list(self._credit_notes_by_key.values())

    def open(self) -> None:
        """Read the file, and keep other servers out of it.

        Raises InvoiceFileInUse, InvoiceFileDamaged, OSError.
        """
        if self._file is None:
            return
        records = self._file.open()
        self._forget()
        try:
            for record in records:
                self._keep(record)
        except KeyError as error:
            self.close()
            raise InvoiceFileDamaged(f"what happened to invoice {error} comes before it") from error

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            self._file.close()

    def find_invoice_by_key(self, idempotency_key: str) -> invoicing_pb2.Invoice | None:
        """Return the invoice with the key, of any tenant."""
        invoice_id = self._invoice_ids_by_key.get(idempotency_key)
        return None if invoice_id is None else self._invoices[invoice_id]

    def find_invoice(self, invoice_id: str) -> invoicing_pb2.Invoice | None:
        """Return the invoice with the id, of any tenant."""
        return self._invoices.get(invoice_id)

    def find_credit_note_by_key(self, idempotency_key: str) -> invoicing_pb2.CreditNote | None:
        """Return the credit note with the key, of any tenant."""
        return self._credit_notes_by_key.get(idempotency_key)

    def find_void_by_key(self, idempotency_key: str) -> invoicing_pb2.VoidInvoiceRequest | None:
        """Return the request that voided an invoice with the key, of any tenant."""
        return self._voids_by_key.get(idempotency_key)

    def add_invoice(self, request: invoicing_pb2.CreateInvoiceRequest) -> invoicing_pb2.Invoice:
        """Make the invoice, in the file first; raises OSError."""
        invoice = invoicing_pb2.Invoice(
            id=_new_id(INVOICE_ID_PREFIX), created_at=_now(), **_asked_fields(request)
        )
        self._write(invoice)
        return invoice

    def add_credit_note(
        self, request: invoicing_pb2.CreateCreditNoteRequest
    ) -> invoicing_pb2.CreditNote:
        """Make the credit note of an invoice that is there, in the file first; raises OSError."""
        credit_note = invoicing_pb2.CreditNote(
            id=_new_id(CREDIT_NOTE_ID_PREFIX), created_at=_now(), **_asked_fields(request)
        )
        self._write(credit_note)
        return credit_note

    def void_invoice(self, request: invoicing_pb2.VoidInvoiceRequest) -> invoicing_pb2.Invoice:
        """Void an invoice that is there, in the file first; raises OSError.

        One that is void already stays so from the same time: only the key is kept.
        """
        invoice = self._invoices[request.invoice_id]
        voided_at = invoice.voided_at if invoice.HasField("voided_at") else _now()
        self._write(InvoiceVoid(request, voided_at))
        return self._invoices[request.invoice_id]

    def _write(self, record: InvoiceRecord) -> None:
        if self._file is not None:
            self._file.append(record)
        self._keep(record)

    def _keep(self, record: InvoiceRecord) -> None:
        """Enter what happened; raises KeyError if it happened to an invoice that is not there."""
        if isinstance(record, invoicing_pb2.Invoice):
            self._invoice_ids_by_key[record.idempotency_key] = record.id
            self._invoices[record.id] = record
        elif isinstance(record, invoicing_pb2.CreditNote):
            credited_amount = self._invoices[record.invoice_id].credited_amount
            self._change(record.invoice_id, credited_amount=credited_amount - record.total_amount)
            self._credit_notes_by_key[record.idempotency_key] = record
        else:
            self._change(record.request.invoice_id, voided_at=record.voided_at)
            self._voids_by_key[record.request.idempotency_key] = record.request

    def _change(self, invoice_id: str, **changes: Any) -> None:
        # A new message: those who were given the invoice keep it as it was.
        changed = invoicing_pb2.Invoice()
        changed.CopyFrom(self._invoices[invoice_id])
        changed.MergeFrom(invoicing_pb2.Invoice(**changes))
        self._invoices[invoice_id] = changed

    def _forget(self) -> None:
        self._invoices: dict[str, invoicing_pb2.Invoice] = {}
        self._invoice_ids_by_key: dict[str, str] = {}
        self._credit_notes_by_key: dict[str, invoicing_pb2.CreditNote] = {}
        self._voids_by_key: dict[str, invoicing_pb2.VoidInvoiceRequest] = {}


def _asked_fields(request: Message) -> dict[str, Any]:
    # Request and document have the same field names, and what is not set must not become set.
    return {descriptor.name: value for descriptor, value in request.ListFields()}


def _new_id(prefix: str) -> str:
    return identifiers.to_typeid(prefix, identifiers.new_id())


def _now() -> Timestamp:
    now = Timestamp()
    now.FromDatetime(datetime.now(UTC))
    return now
