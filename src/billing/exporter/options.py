"""What an export is told."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from billing.caller.errors import OptionsInvalid


class ExportFormat(StrEnum):
    """How the ledger is written."""

    HLEDGER = "hledger"
    CSV = "csv"
    JSONL = "jsonl"


_FORMATS_BY_SUFFIX: Final = {
    ".csv": ExportFormat.CSV,
    ".jsonl": ExportFormat.JSONL,
    ".ndjson": ExportFormat.JSONL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """One export: posted from ``posted_from`` on and before ``posted_until``; None is no bound.

    Without ``output`` it goes to standard output.
    """

    tenant_id: str
    subscription_id: str = ""
    posted_from: datetime | None = None
    posted_until: datetime | None = None
    format: ExportFormat = ExportFormat.HLEDGER
    include_pending: bool = False
    output: Path | None = None

    def __post_init__(self) -> None:
        start, end = self.posted_from, self.posted_until
        if start is not None and end is not None and start > end:
            raise OptionsInvalid(f"--from {start.isoformat()} lies after --until {end.isoformat()}")
        if self.include_pending and self.format is ExportFormat.HLEDGER:
            raise OptionsInvalid("--include-pending: a journal has posted entries alone")


def format_of(output: Path | None, chosen: ExportFormat | None) -> ExportFormat:
    """Return the chosen format, or what the file's name says; a journal if it says nothing."""
    if chosen is not None:
        return chosen
    suffix = output.suffix.lower() if output is not None else ""
    return _FORMATS_BY_SUFFIX.get(suffix, ExportFormat.HLEDGER)
