"""Times as files write them, as moments to the microsecond."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from billing.caller.errors import OptionsInvalid
from billing.domain.money import EXACT
from billing.importer.errors import LineRejected
from billing.importer.options import Fold, TimeFormat

# Stricter than fromisoformat, which takes any character between date and time: it would read the
# offset of 2023-11-16-05:00 as a time of day.
_ISO: Final = re.compile(r"\d{4}-?\d\d-?\d\d(?:[Tt ]\d\d.*)?", re.ASCII)
_EPOCH: Final = re.compile(r"-?\d{1,18}(?:\.\d{1,30})?", re.ASCII)
_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = {TimeFormat.EPOCH_SECONDS: 1_000_000, TimeFormat.EPOCH_MILLIS: 1_000}


class TimeReader:
    """Reads times of one format; digits beyond the microsecond are cut off."""

    def __init__(
        self, time_format: TimeFormat, *, time_zone: str | None = None, fold: Fold | None = None
    ) -> None:
        """``time_zone`` is that of times without one; raises OptionsInvalid if there is none such.

        ``fold`` chooses where a clock change leaves two moments; without it there is no choice.
        """
        self._zone = _zone(time_zone) if time_zone is not None else None
        self._fold = fold
        self._moment: Callable[[str], datetime] = (
            self._iso if time_format is TimeFormat.ISO else self._epoch
        )
        self._unit_microseconds = _MICROSECONDS.get(time_format, 0)

    def read(self, text: str) -> Timestamp:
        """Return the moment; raises LineRejected."""
        try:
            moment = self._moment(text)
            message = Timestamp()
            message.FromDatetime(moment)
        except (ValueError, OverflowError) as error:
            raise LineRejected("TIME_INVALID", f"{text[:60]!r} is no time: {error}") from None
        return message

    def _iso(self, text: str) -> datetime:
        if _ISO.fullmatch(text) is None:
            raise ValueError("expected is ISO 8601, such as 2026-03-15T12:00:00Z")
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
        if self._zone is None:
            raise LineRejected(
                "TIME_ZONE_MISSING",
                f"{text} does not say its time zone; say it with --time-zone, for example UTC",
            )
        return self._at_home(moment, self._zone)

    def _at_home(self, moment: datetime, zone: tzinfo) -> datetime:
        """Return the moment of a local time, of which a clock change makes two or none."""
        first = moment.replace(tzinfo=zone, fold=0).astimezone(UTC)
        second = moment.replace(tzinfo=zone, fold=1).astimezone(UTC)
        if first == second:
            return first
        if self._fold is Fold.EARLIER:
            return min(first, second)
        if self._fold is Fold.LATER:
            return max(first, second)
        happened, reason = (
            ("twice", "TIME_AMBIGUOUS") if first < second else ("never", "TIME_NONEXISTENT")
        )
        raise LineRejected(
            reason,
            f"{moment.isoformat(sep=' ')} happened {happened} in {zone}, where clocks were "
            f"changed; choose with --fold: earlier is {min(first, second):%FT%TZ}, "
            f"later is {max(first, second):%FT%TZ}",
        )

    def _epoch(self, text: str) -> datetime:
        if _EPOCH.fullmatch(text) is None:
            raise ValueError("expected is a number")
        microseconds = int(EXACT.multiply(Decimal(text), self._unit_microseconds))
        return _EPOCH_START + timedelta(microseconds=microseconds)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise OptionsInvalid(
            f"--time-zone {name}: there is no such zone; use a name like Europe/Berlin or UTC"
        ) from None
