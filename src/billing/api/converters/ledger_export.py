"""The ledger as text: JSON lines, CSV, and a journal for hledger.

Each writer is of one export: it is told the entries in the order of the export, page by page.
"""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from billing.api.converters.hledger import JournalWriter
from billing.api.converters.ledger import encode_initiating_source, encode_sources
from billing.api.converters.values import (
    decode_optional_id,
    decode_time_range,
    encode_optional_id,
)
from billing.domain import identifiers
from billing.domain.errors import FieldInvalid
from billing.domain.ledger import LedgerEntry
from billing.domain.ledger_export import ExportedEntry, ExportSelection
from billing.domain.ledger_filters import LEDGER_ENTRY_SOURCES
from billing.domain.money import in_major_unit
from billing.v1 import ledger_export_pb2 as pb

COLUMNS: Final = (
    *("id", "ledger_transaction_id", "subscription_id"),
    *("posted_at", "entry_timestamp", "status", "entry_type"),
    *("amount", "amount_decimal", "currency"),
    *("debit_account_kind", "debit_account_id", "credit_account_kind", "credit_account_id"),
    *("description", "billing_period_id", "usage_meter_id", "calculation_run_id"),
    "applied_to_ledger_entry_id",
    *LEDGER_ENTRY_SOURCES.values(),
    *("initiating_source_type", "initiating_source_id", "transaction_description"),
)
"""What is told of an entry: ``amount`` in minor units, ``amount_decimal`` in the currency."""

_TEXT_COLUMNS: Final = ("description", "transaction_description")
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


class ExportWriter(ABC):
    """Writes entries in one format."""

    def begin(self) -> str:
        """Return what stands before all entries."""
        return ""

    @abstractmethod
    def write(self, entries: Iterable[ExportedEntry]) -> str:
        """Return the text of the entries that come next."""

    def end(self) -> str:
        """Return what stands after all entries."""
        return ""


class JsonLinesWriter(ExportWriter):
    """An object an entry; ids that it does not have are left out."""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def write(self, entries: Iterable[ExportedEntry]) -> str:
        """See ExportWriter."""
        lines = [
            self._encode({name: value for name, value in _row(each).items() if value != ""})
            for each in entries
        ]
        return "".join(f"{line}\n" for line in lines)


class CsvWriter(ExportWriter):
    """A row an entry, below a header."""

    def begin(self) -> str:
        """See ExportWriter."""
        return _csv([COLUMNS])

    def write(self, entries: Iterable[ExportedEntry]) -> str:
        """See ExportWriter."""
        rows = [_row(each) for each in entries]
        for row in rows:
            for column in _TEXT_COLUMNS:
                row[column] = _harmless(row[column])
        return _csv(row.values() for row in rows)


class HledgerWriter(ExportWriter):
    """A transaction a ledger transaction; see JournalWriter."""

    def __init__(self) -> None:
        self._journal = JournalWriter()

    def begin(self) -> str:
        """See ExportWriter."""
        return self._journal.begin()

    def write(self, entries: Iterable[ExportedEntry]) -> str:
        """See ExportWriter."""
        return "".join(self._journal.lines(entries))

    def end(self) -> str:
        """See ExportWriter."""
        return self._journal.end()


_WRITERS: Final[dict[pb.LedgerExportFormat.ValueType, type[ExportWriter]]] = {
    pb.LEDGER_EXPORT_FORMAT_JSON_LINES: JsonLinesWriter,
    pb.LEDGER_EXPORT_FORMAT_CSV: CsvWriter,
    pb.LEDGER_EXPORT_FORMAT_HLEDGER: HledgerWriter,
}


def export_writer(export_format: pb.LedgerExportFormat.ValueType) -> ExportWriter:
    """Return a writer of the format; validation has refused numbers that are none."""
    return _WRITERS[export_format]()


def decode_selection(request: pb.ExportLedgerRequest) -> ExportSelection:
    """Return what is to be exported; raises FieldInvalid."""
    is_journal = request.format == pb.LEDGER_EXPORT_FORMAT_HLEDGER
    if request.include_pending and is_journal:
        raise FieldInvalid("include_pending", "a journal has posted entries alone")
    return ExportSelection(
        subscription_id=decode_optional_id(
            identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
        ),
        span=decode_time_range(request, "posted_from", "posted_until"),
        include_pending=request.include_pending,
    )


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _harmless(text: str) -> str:
    """Keep spreadsheets from running a text that customers or staff wrote."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _row(exported: ExportedEntry) -> dict[str, Any]:
    """Return what is told of an entry, in the order of the columns; empty is none."""
    entry = exported.entry
    values = (
        identifiers.to_typeid(identifiers.LEDGER_ENTRY, entry.id),
        identifiers.to_typeid(identifiers.LEDGER_TRANSACTION, entry.ledger_transaction_id),
        identifiers.to_typeid(identifiers.SUBSCRIPTION, entry.subscription_id),
        *(_time(entry.posted_at), _time(entry.entry_timestamp)),
        *(entry.status.value, entry.entry_type.value),
        *(entry.amount_minor, in_major_unit(entry.amount_minor, entry.currency), entry.currency),
        entry.debit_account_kind.value,
        identifiers.to_typeid(identifiers.LEDGER_ACCOUNT, entry.debit_account_id),
        entry.credit_account_kind.value,
        identifiers.to_typeid(identifiers.LEDGER_ACCOUNT, entry.credit_account_id),
        entry.description,
        *_links(entry),
        exported.initiating_source_type.value,
        encode_initiating_source(exported.initiating_source_type, exported.initiating_source_id),
        exported.transaction_description,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _links(entry: LedgerEntry) -> Iterable[str]:
    yield encode_optional_id(identifiers.BILLING_PERIOD, entry.billing_period_id)
    yield encode_optional_id(identifiers.USAGE_METER, entry.usage_meter_id)
    yield encode_optional_id(identifiers.CALCULATION_RUN, entry.calculation_run_id)
    yield encode_optional_id(identifiers.LEDGER_ENTRY, entry.applied_to_ledger_entry_id)
    yield from encode_sources(entry).values()


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else ""
