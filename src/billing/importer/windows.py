"""Which events travel together.

A window is what is in flight at a time: one call a lane, and a subscription has one lane. The next
window is made while this one is on its way, and sent when all of it is acknowledged. So the events
of a subscription arrive in the order of the file, calls that run at a time never wait for each
other's locks, and what is acknowledged is always a beginning of the file.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from billing.importer.errors import LineRejected
from billing.importer.mapping import LineMapper, PlannedEvent
from billing.importer.source import Source, SourceLine

# Half of what the service takes by default; a line's events may come on top.
MAX_CALL_BYTES: Final = 2 * 1024 * 1024
_MAX_REJECTIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rejection:
    """A line or event that was not taken. ``outcome`` is ``rejected`` or ``conflict``."""

    line: SourceLine
    outcome: str
    reason: str
    message: str
    meter_code: str = ""
    idempotency_key: str = ""
    usage_event_id: str = ""


@dataclass(slots=True)
class Window:
    """Some lines of the file: their events by lane, and those of which there are none.

    ``end_line`` is the last line read for it, ``digest`` that of all lines up to there.
    """

    lanes: list[list[PlannedEvent]]
    rejections: list[Rejection] = field(default_factory=list)
    line_count: int = 0
    end_line: int = 0
    digest: str = ""

    def calls(self) -> list[Sequence[PlannedEvent]]:
        """Return the events of each call."""
        return [lane for lane in self.lanes if lane]


class WindowReader:
    """Cuts the input into windows."""

    def __init__(
        self, source: Source, mapper: LineMapper, *, batch_size: int, concurrency: int
    ) -> None:
        self._source = source
        self._mapper = mapper
        # A lane with this many events may not have room for those of another line.
        self._full_lane = batch_size - mapper.most_events_of_a_line + 1
        self._concurrency = concurrency

    def read(self) -> Window | None:
        """Return the next window, None at the end of the input; raises SourceUnreadable."""
        window = Window([[] for _ in range(self._concurrency)])
        sizes_bytes = [0] * self._concurrency
        while len(window.rejections) < _MAX_REJECTIONS:
            line = self._source.read()
            if line is None:
                break
            window.line_count += 1
            try:
                events = self._mapper.events_of(line)
            except LineRejected as rejection:
                window.rejections.append(
                    Rejection(line, "rejected", rejection.reason, rejection.message)
                )
                continue
            number = self._lane_of(events)
            lane = window.lanes[number]
            lane.extend(events)
            sizes_bytes[number] += sum(event.message.ByteSize() for event in events)
            if len(lane) >= self._full_lane or sizes_bytes[number] >= MAX_CALL_BYTES:
                break
        window.end_line = self._source.line_number
        window.digest = self._source.digest()
        return window if window.line_count else None

    def _lane_of(self, events: Sequence[PlannedEvent]) -> int:
        subscription_id = events[0].message.subscription_id
        return zlib.crc32(subscription_id.encode()) % self._concurrency
