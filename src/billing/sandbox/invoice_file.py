"""The file of the reference invoicing server: JSON lines, one for all that it was asked to keep."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from invoicing.v1 import invoicing_pb2

# An invoice's line is the invoice itself, and says nothing of what happens to it later. The other
# lines name what they are.
_CREDIT_NOTE: Final = "creditNote"
_VOID_REQUEST: Final = "voidRequest"
_VOIDED_AT: Final = "voidedAt"


class InvoiceFileInUse(Exception):
    """Another server keeps its invoices in the file."""


class InvoiceFileDamaged(Exception):
    """A line of the file is nothing that the server writes."""


@dataclass(frozen=True, slots=True)
class InvoiceVoid:
    """A void that was asked for, and the time from which the invoice is void."""

    request: invoicing_pb2.VoidInvoiceRequest
    voided_at: Timestamp


InvoiceRecord: TypeAlias = invoicing_pb2.Invoice | invoicing_pb2.CreditNote | InvoiceVoid


class InvoiceFile:
    """One file that belongs to one server while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def open(self) -> list[InvoiceRecord]:
        """Keep other servers out of the file, and return what it holds, oldest first.

        Raises InvoiceFileInUse, InvoiceFileDamaged, OSError.
        """
        file = self._path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records = _read_records(file)
        except BlockingIOError:
            file.close()
            raise InvoiceFileInUse(f"another server keeps its invoices in {self._path}") from None
        except BaseException:
            file.close()
            raise
        self._file = file
        return records

    def append(self, record: InvoiceRecord) -> None:
        """Write what happened; raises OSError."""
        assert self._file is not None, "not open"
        line = json.dumps(_fields(record), ensure_ascii=False)
        self._file.write(f"{line}\n".encode())
        self._file.flush()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _fields(record: InvoiceRecord) -> Mapping[str, Any]:
    if isinstance(record, invoicing_pb2.Invoice):
        return json_format.MessageToDict(record)
    if isinstance(record, invoicing_pb2.CreditNote):
        return {_CREDIT_NOTE: json_format.MessageToDict(record)}
    return {
        _VOID_REQUEST: json_format.MessageToDict(record.request),
        _VOIDED_AT: record.voided_at.ToJsonString(),
    }


def _record(line: bytes) -> InvoiceRecord:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError("a line is an object")
    if _CREDIT_NOTE in fields:
        return json_format.ParseDict(fields[_CREDIT_NOTE], invoicing_pb2.CreditNote())
    if _VOID_REQUEST in fields:
        voided_at = Timestamp()
        voided_at.FromJsonString(str(fields.get(_VOIDED_AT)))
        request = json_format.ParseDict(fields[_VOID_REQUEST], invoicing_pb2.VoidInvoiceRequest())
        return InvoiceVoid(request, voided_at)
    return json_format.ParseDict(fields, invoicing_pb2.Invoice())


def _read_records(file: IO[bytes]) -> list[InvoiceRecord]:
    file.seek(0)
    records = []
    for number, line in enumerate(file.readlines(), start=1):
        if not line.endswith(b"\n"):
            # The server died while it wrote: nobody has been told of this.
            file.seek(-len(line), os.SEEK_END)
            file.truncate()
            break
        try:
            records.append(_record(line))
        except (json_format.ParseError, TypeError, ValueError) as error:
            raise InvoiceFileDamaged(f"{file.name}, line {number}: {error}") from error
    return records
