"""Builders of usage imports: options, an observer that remembers, files shaped as a real trace."""

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from billing.importer.checkpoint import ImportCounts
from billing.importer.options import ImportOptions, MappingOptions

SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
OTHER_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02r"
METER_IDS = {
    "input_tokens": "meter_01h455vb4pex5vsknk084sn0aa",
    "output_tokens": "meter_01h455vb4pex5vsknk084sn0bb",
}
TRACE_START = datetime(2023, 11, 16, 18, 17, 3, tzinfo=UTC)
TRACE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class Interrupted(Exception):
    """The importer dies."""


def stop_after(line_count: int) -> Callable[[ImportCounts], None]:
    """Let the importer die when so many lines are acknowledged."""

    def interrupt(counts: ImportCounts) -> None:
        if counts.lines >= line_count:
            raise Interrupted

    return interrupt


@dataclass
class RememberingObserver:
    """Remembers what it was told; ``interrupt`` may raise at the progress that it is given."""

    interrupt: Callable[[ImportCounts], None] = lambda counts: None
    notices: list[str] = field(default_factory=list)
    bytes_read: list[int] = field(default_factory=list)
    bytes_total: int | None = None

    def began(self, *, bytes_total: int | None) -> None:
        """Remember the size."""
        self.bytes_total = bytes_total

    def progressed(self, *, bytes_read: int, counts: ImportCounts) -> None:
        """Remember how far it is."""
        self.bytes_read.append(bytes_read)
        self.interrupt(counts)

    def noticed(self, text: str) -> None:
        """Remember the text."""
        self.notices.append(text)


def trace_mapping(subscription_id: str = SUBSCRIPTION, **changes: Any) -> MappingOptions:
    """Two meters from each row of a file shaped as the Azure LLM trace."""
    usual: dict[str, Any] = {
        "columns": {"event_timestamp": "TIMESTAMP"},
        "constants": {"subscription_id": subscription_id},
        "meters": (("input_tokens", "ContextTokens"), ("output_tokens", "GeneratedTokens")),
        "time_zone": "UTC",
    }
    return MappingOptions(**{**usual, **changes})


def import_options(file: Path, **changes: Any) -> ImportOptions:
    """The options of the command for a file, checkpoint and report beside it."""
    usual: dict[str, Any] = {
        "file": str(file),
        "tenant_id": "acme",
        "mapping": trace_mapping(),
        "checkpoint": Path(f"{file}.checkpoint"),
        "rejected": Path(f"{file}.rejected.jsonl"),
    }
    return ImportOptions(**{**usual, **changes})


def write_trace(path: Path, row_count: int, *, start: datetime = TRACE_START) -> tuple[int, int]:
    """Write rows as the Azure LLM trace has them, made up; return the sums of both columns.

    Every tenth row is written twice: equal lines are different requests.
    """
    chooser = random.Random(20231116)
    moment = start
    sums = [0, 0]
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)  # \r\n, as in the original
        rows.writerow(TRACE_COLUMNS)
        written = 0
        while written < row_count:
            moment += timedelta(microseconds=chooser.randint(1, 60_000))
            row = (
                f"{moment:%Y-%m-%d %H:%M:%S.%f}0",
                chooser.randint(1, 8_000),
                chooser.randint(0, 500),
            )
            for _ in range(2 if written % 10 == 0 and written + 2 <= row_count else 1):
                rows.writerow(row)
                written += 1
                sums[0] += row[1]
                sums[1] += row[2]
    return sums[0], sums[1]
