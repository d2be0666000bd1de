"""Spans of time: half-open, and open at either end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_FIRST_MOMENT: Final = datetime.min.replace(tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` on and before ``end``; None is no bound."""

    start: datetime | None = None
    end: datetime | None = None


def just_after(moment: datetime) -> datetime:
    """Return the end of a half-open span that has the moment as its last: ledgers count in us."""
    return moment + _MICROSECOND


def moment_key(moment: datetime) -> UUID:
    """Return a moment as a part of a page's key."""
    return UUID(int=(moment - _FIRST_MOMENT) // _MICROSECOND)


def moment_of_key(key: UUID) -> datetime:
    """Return the moment of ``moment_key``; raises OverflowError for other UUIDs."""
    return _FIRST_MOMENT + key.int * _MICROSECOND
