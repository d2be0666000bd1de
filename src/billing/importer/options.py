"""What an import is told: parsed once, from texts like ``input_tokens=ContextTokens``."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from billing.caller.errors import OptionsInvalid
from billing.domain import identifiers

SUBSCRIPTION_ID: Final = "subscription_id"
EVENT_TIMESTAMP: Final = "event_timestamp"
USAGE_METER_ID: Final = "usage_meter_id"
QUANTITY: Final = "quantity"
FIELDS: Final = (SUBSCRIPTION_ID, EVENT_TIMESTAMP, USAGE_METER_ID, QUANTITY)
"""What ``--map`` names; without it each comes from the column of its own name."""

STANDARD_INPUT: Final = "-"
DEFAULT_BATCH_SIZE: Final = 1_000
MAX_BATCH_SIZE: Final = 5_000
DEFAULT_CONCURRENCY: Final = 4
MAX_CONCURRENCY: Final = 16
_MAX_PROPERTIES: Final = 50
_SHOWN_CHARACTERS: Final = 300


class FileFormat(StrEnum):
    """How the input is written."""

    CSV = "csv"
    JSONL = "jsonl"


class TimeFormat(StrEnum):
    """How times are written."""

    ISO = "iso"
    EPOCH_SECONDS = "epoch-seconds"
    EPOCH_MILLIS = "epoch-millis"


class Fold(StrEnum):
    """Which moment a local time means that happened twice, or never."""

    EARLIER = "earlier"
    LATER = "later"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingOptions:
    """Which columns make the events.

    ``meters`` pairs a meter's code or id with the column of its quantity; without any the line
    names its meter itself. ``constants`` are columns that every line gets.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    meters: tuple[tuple[str, str], ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    key_column: str | None = None
    time_format: TimeFormat = TimeFormat.ISO
    time_zone: str | None = None
    fold: Fold | None = None

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in FIELDS:
                raise OptionsInvalid(
                    f"--map {name}=...: what it maps is one of {', '.join(FIELDS)}"
                    + _nearest(name, FIELDS)
                )
        if self.meters:
            for name in (USAGE_METER_ID, QUANTITY):
                if name in self.columns:
                    raise OptionsInvalid(f"--map {name}=... says what --meter says already")
        subscription_id = self.constants.get(self.column_of(SUBSCRIPTION_ID))
        if subscription_id is not None:
            _require_subscription_id(subscription_id)
        if len(self.properties) > _MAX_PROPERTIES:
            raise OptionsInvalid(f"--property: an event has up to {_MAX_PROPERTIES} properties")

    def column_of(self, name: str) -> str:
        """Return the column of a field."""
        return self.columns.get(name, name)

    def needed_columns(self) -> list[str]:
        """Return the columns that the input must have."""
        needed = [self.column_of(SUBSCRIPTION_ID), self.column_of(EVENT_TIMESTAMP)]
        if self.meters:
            needed += [column for _, column in self.meters]
        else:
            needed += [self.column_of(USAGE_METER_ID), self.column_of(QUANTITY)]
        needed += [column for _, column in self.properties]
        if self.key_column is not None:
            needed.append(self.key_column)
        return [column for column in dict.fromkeys(needed) if column not in self.constants]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """One import. ``file`` is a path, or ``-`` for standard input.

    ``rejected`` is written even without rejections if ``rejected_always``.
    """

    file: str
    tenant_id: str
    mapping: MappingOptions
    format: FileFormat = FileFormat.CSV
    delimiter: str = ","
    batch_size: int = DEFAULT_BATCH_SIZE
    concurrency: int = DEFAULT_CONCURRENCY
    checkpoint: Path | None = None
    rejected: Path | None = None
    rejected_always: bool = False

    def __post_init__(self) -> None:
        if len(self.mapping.meters) > self.batch_size:
            raise OptionsInvalid("--batch-size: a line has more events than one call would take")


def pairs_of(option: str, texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return what stands left and right of the first ``=`` of each text; raises OptionsInvalid."""
    pairs: dict[str, str] = {}
    for text in texts:
        left, equals, right = text.partition("=")
        if not (equals and left and right):
            raise OptionsInvalid(f"{option} {text}: write it as NAME=VALUE")
        if left in pairs:
            raise OptionsInvalid(f"{option} {left}=... is given twice")
        pairs[left] = right
    return tuple(pairs.items())


def format_of(file: str, chosen: FileFormat | None) -> FileFormat:
    """Return the chosen format, or what the file's name says; CSV if it says nothing."""
    if chosen is not None:
        return chosen
    name = file.lower().removesuffix(".gz")
    return FileFormat.JSONL if name.endswith((".jsonl", ".ndjson", ".json")) else FileFormat.CSV


def delimiter_of(text: str) -> str:
    """Return the one character that separates columns; raises OptionsInvalid."""
    character = "\t" if text in ("tab", "\\t") else text
    if len(character) != 1 or character in '"\r\n':
        raise OptionsInvalid(f"--delimiter {text!r}: give one character, or 'tab'")
    return character


def require_columns(needed: Iterable[str], present: Sequence[str]) -> None:
    """Raise OptionsInvalid unless each column is there exactly once."""
    for column in needed:
        if column not in present:
            shown = ", ".join(present)[:_SHOWN_CHARACTERS]
            raise OptionsInvalid(
                f"the header has no column {column!r}{_nearest(column, present)}; it has: {shown}"
            )
        if present.count(column) > 1:
            raise OptionsInvalid(f"the header has the column {column!r} more than once")


def _require_subscription_id(text: str) -> None:
    try:
        identifiers.from_typeid(identifiers.SUBSCRIPTION, text)
    except identifiers.MalformedId:
        raise OptionsInvalid(f"--set: {text!r} is no id of the form sub_...") from None


def _nearest(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
