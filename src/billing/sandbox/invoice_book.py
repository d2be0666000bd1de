"""The invoices of the reference invoicing server, in memory and in a file of JSON lines."""

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain import identifiers
from invoicing.v1 import invoicing_pb2

INVOICE_ID_PREFIX: Final = "inv"


class InvoiceFileInUse(Exception):
    """Another server keeps its invoices in the file."""


class InvoiceFileDamaged(Exception):
    """A line of the file is no invoice."""


class InvoiceBook:
    """The invoices by key and by id. Without a path they live in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._by_key: dict[str, invoicing_pb2.Invoice] = {}
        self._by_id: dict[str, invoicing_pb2.Invoice] = {}

    @property
    def invoices(self) -> list[invoicing_pb2.Invoice]:
        """All of them, oldest first."""
        return list(self._by_key.values())

    def open(self) -> None:
        """Read the file, and keep other servers out of it.

        Raises InvoiceFileInUse, InvoiceFileDamaged, OSError.
        """
        if self._path is None:
            return
        file = self._path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._by_key, self._by_id = {}, {}
            for invoice in _read_invoices(file):
                self._keep(invoice)
        except BlockingIOError:
            file.close()
            raise InvoiceFileInUse(f"another server keeps its invoices in {self._path}") from None
        except BaseException:
            file.close()
            raise
        self._file = file

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def find_by_key(self, idempotency_key: str) -> invoicing_pb2.Invoice | None:
        """Return the invoice with the key, of any tenant."""
        return self._by_key.get(idempotency_key)

    def find_by_id(self, invoice_id: str) -> invoicing_pb2.Invoice | None:
        """Return the invoice with the id, of any tenant."""
        return self._by_id.get(invoice_id)

    def add(self, request: invoicing_pb2.CreateInvoiceRequest) -> invoicing_pb2.Invoice:
        """Make the invoice, in the file first; raises OSError."""
        created_at = Timestamp()
        created_at.FromDatetime(datetime.now(UTC))
        invoice = _invoice(
            request,
            invoice_id=identifiers.to_typeid(INVOICE_ID_PREFIX, identifiers.new_id()),
            created_at=created_at,
        )
        if self._file is not None:
            line = json_format.MessageToJson(invoice, indent=None, ensure_ascii=False)
            self._file.write(f"{line}\n".encode())
            self._file.flush()
        self._keep(invoice)
        return invoice

    def _keep(self, invoice: invoicing_pb2.Invoice) -> None:
        self._by_key[invoice.idempotency_key] = invoice
        self._by_id[invoice.id] = invoice


def _invoice(
    request: invoicing_pb2.CreateInvoiceRequest, *, invoice_id: str, created_at: Timestamp
) -> invoicing_pb2.Invoice:
    # The two messages have the same field names, and what is not set must not become set.
    asked = {descriptor.name: value for descriptor, value in request.ListFields()}
    return invoicing_pb2.Invoice(id=invoice_id, created_at=created_at, **asked)


def conflict_of(
    stored: invoicing_pb2.Invoice, request: invoicing_pb2.CreateInvoiceRequest
) -> str | None:
    """Say how the request differs from the invoice that has its key; None if it does not."""
    asked = _invoice(request, invoice_id=stored.id, created_at=stored.created_at)
    if asked == stored:
        return None
    names = [field.name for field in request.DESCRIPTOR.fields]
    differing = [name for name in names if getattr(asked, name) != getattr(stored, name)]
    return (
        f"idempotency_key {stored.idempotency_key!r} has an invoice of {stored.total_amount} "
        f"{stored.currency}, and this request is for {asked.total_amount} {asked.currency}; "
        f"they differ in {', '.join(differing)}"
    )


def _read_invoices(file: IO[bytes]) -> list[invoicing_pb2.Invoice]:
    file.seek(0)
    invoices = []
    for number, line in enumerate(file.readlines(), start=1):
        if not line.endswith(b"\n"):
            # The server died while it wrote: nobody has been told of this invoice.
            file.seek(-len(line), os.SEEK_END)
            file.truncate()
            break
        try:
            invoices.append(json_format.Parse(line, invoicing_pb2.Invoice()))
        except (json_format.ParseError, TypeError, ValueError) as error:
            raise InvoiceFileDamaged(f"{file.name}, line {number}: {error}") from error
    return invoices
