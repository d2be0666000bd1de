"""The one fake: a clock that tests set."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)


class FakeClock:
    """Tells the moment that a test has set, and a microsecond more at every look.

    So nothing happens at the same moment twice, as with a real clock.
    """

    def __init__(self) -> None:
        self._now = START

    def __call__(self) -> datetime:
        self._now += timedelta(microseconds=1)
        return self._now

    @property
    def now(self) -> datetime:
        """The moment, without moving on."""
        return self._now

    def set(self, moment: datetime) -> None:
        """Go to a moment."""
        self._now = moment

    def advance(self, **delta: float) -> None:
        """Go on by a ``timedelta``."""
        self._now += timedelta(**delta)
