"""One import, from the first line to the summary."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import grpc

from billing.caller.calls import CallPolicy, PendingCall
from billing.importer.calls import ServiceCalls
from billing.importer.checkpoint import Checkpoint, CheckpointFile, ImportCounts, identity_of
from billing.importer.errors import ImportFailed, ImportStopped
from billing.importer.mapping import LineMapper, MeterDirectory, PlannedEvent
from billing.importer.options import ImportOptions, require_columns
from billing.importer.rejections import RejectionReport
from billing.importer.source import Source, open_source
from billing.importer.windows import Rejection, Window, WindowReader
from billing.v1 import usage_pb2

_CONFLICT: Final = "conflict"
_REJECTED: Final = "rejected"
_OUTCOMES: Final = {
    usage_pb2.USAGE_EVENT_OUTCOME_ACCEPTED: "accepted",
    usage_pb2.USAGE_EVENT_OUTCOME_DUPLICATE: "duplicate",
    usage_pb2.USAGE_EVENT_OUTCOME_CONFLICT: _CONFLICT,
    usage_pb2.USAGE_EVENT_OUTCOME_REJECTED: _REJECTED,
}
_SKIPPED_BETWEEN_NEWS: Final = 10_000


class Observer(Protocol):
    """Who watches an import."""

    def began(self, *, bytes_total: int | None) -> None:
        """The input is open; its size may be unknown."""

    def progressed(self, *, bytes_read: int, counts: ImportCounts) -> None:
        """More of the input was acknowledged, or skipped as acknowledged before."""

    def noticed(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did. ``counts`` include what it did before it was resumed.

    ``new_events`` were sent in the ``seconds`` since then.
    """

    counts: ImportCounts
    seconds: float
    new_events: int
    first_rejections: Sequence[Rejection]
    report: Path | None

    @property
    def is_clean(self) -> bool:
        """Whether every line was taken, now or before."""
        return not (self.counts.conflict or self.counts.rejected)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A window on its way."""

    window: Window
    bytes_read: int
    calls: Sequence[tuple[Sequence[PlannedEvent], PendingCall]]


def import_usage(
    options: ImportOptions,
    channel: grpc.Channel,
    *,
    read_token: Callable[[], str],
    observer: Observer,
    policy: CallPolicy = CallPolicy(),  # noqa: B008  it never changes
) -> ImportSummary:
    """Send the usage events of a file; raises ImportFailed, and can then be called again."""
    started = time.monotonic()
    calls = ServiceCalls(
        channel,
        tenant_id=options.tenant_id,
        read_token=read_token,
        policy=policy,
        notice=observer.noticed,
    )
    with open_source(
        options.file, file_format=options.format, delimiter=options.delimiter
    ) as source:
        if source.columns is not None:
            require_columns(options.mapping.needed_columns(), source.columns)
        observer.began(bytes_total=source.bytes_total)
        meters = MeterDirectory(calls.list_meter_ids())
        mapper = LineMapper(options.mapping, meters)
        identity = identity_of(options, _identifying_meters(options, meters))
        checkpoints = CheckpointFile(options.checkpoint, identity)
        checkpoint = checkpoints.load()
        if checkpoint is not None:
            _skip(source, mapper, checkpoints, checkpoint, observer)
        counts = checkpoint.counts if checkpoint is not None else ImportCounts()
        sent_before = counts.sent
        with RejectionReport(
            options.rejected,
            always=options.rejected_always,
            keep_bytes=checkpoint.report_bytes if checkpoint is not None else None,
        ) as report:
            windows = WindowReader(
                source, mapper, batch_size=options.batch_size, concurrency=options.concurrency
            )
            _Import(source, windows, calls, checkpoints, report, counts, observer).run()
        checkpoints.remove()
    report_path = report.path if counts.conflict or counts.rejected else None
    seconds = time.monotonic() - started
    return ImportSummary(counts, seconds, counts.sent - sent_before, report.first, report_path)


def _identifying_meters(options: ImportOptions, meters: MeterDirectory) -> list[str]:
    named = [meters.get(code_or_id)[1] for code_or_id, _ in options.mapping.meters]
    return named or [meters.identity()]


def _skip(
    source: Source,
    mapper: LineMapper,
    checkpoints: CheckpointFile,
    checkpoint: Checkpoint,
    observer: Observer,
) -> None:
    """Read what is acknowledged, and only count equal lines; raises CheckpointMismatched."""
    observer.noticed(f"going on after line {checkpoint.end_line}, the last acknowledged one")
    skipped = 0
    while source.line_number < checkpoint.end_line:
        line = source.read()
        if line is None:
            break
        mapper.skip(line)
        skipped += 1
        if skipped % _SKIPPED_BETWEEN_NEWS == 0:
            observer.progressed(bytes_read=source.bytes_read(), counts=checkpoint.counts)
    checkpoints.require_same_lines(checkpoint, end_line=source.line_number, digest=source.digest())


class _Import:
    """Keeps one window on its way while it makes the next."""

    def __init__(
        self,
        source: Source,
        windows: WindowReader,
        calls: ServiceCalls,
        checkpoints: CheckpointFile,
        report: RejectionReport,
        counts: ImportCounts,
        observer: Observer,
    ) -> None:
        self._source = source
        self._windows = windows
        self._calls = calls
        self._checkpoints = checkpoints
        self._report = report
        self._counts = counts
        self._observer = observer
        self._acknowledged_line = source.line_number

    def run(self) -> None:
        """Send everything; raises ImportStopped."""
        try:
            self._send_all()
        except ImportFailed as error:
            raise ImportStopped(f"{error}. {self._how_to_go_on()}") from error

    def _how_to_go_on(self) -> str:
        place = f"All up to line {self._acknowledged_line} is acknowledged"
        if self._checkpoints.is_kept:
            return f"{place}: the same command goes on after it"
        return f"{place}: importing again counts nothing twice"

    def _send_all(self) -> None:
        flight: _Flight | None = None
        while True:
            try:
                window = self._windows.read()
            except ImportFailed:
                if flight is not None:  # what is on its way counts, whatever is wrong with the rest
                    self._land(flight)
                raise
            if flight is not None:
                self._land(flight)
            if window is None:
                return
            flight = self._depart(window)

    def _depart(self, window: Window) -> _Flight:
        calls = [
            (events, self._calls.begin_ingest([event.message for event in events]))
            for events in window.calls()
        ]
        return _Flight(window, self._source.bytes_read(), calls)

    def _land(self, flight: _Flight) -> None:
        """Wait until all of a window is acknowledged, and write down what became of it."""
        window, counts = flight.window, self._counts
        rejections = list(window.rejections)
        outcomes: dict[str, int] = dict.fromkeys(_OUTCOMES.values(), 0)
        for events, call in flight.calls:
            results = self._calls.finish_ingest(call)
            for event, result in zip(events, results, strict=True):
                outcome = _OUTCOMES.get(result.outcome, _REJECTED)
                outcomes[outcome] += 1
                if outcome in (_CONFLICT, _REJECTED):
                    rejections.append(_rejection(event, outcome, result))
        rejections.sort(key=lambda rejection: rejection.line.number)
        counts.lines += window.line_count
        counts.sent += sum(outcomes.values())
        counts.accepted += outcomes["accepted"]
        counts.duplicate += outcomes["duplicate"]
        counts.conflict += outcomes[_CONFLICT]
        counts.rejected.update(r.reason for r in rejections if r.outcome == _REJECTED)
        report_bytes = self._report.add(rejections)
        self._checkpoints.save(
            Checkpoint(
                self._checkpoints.identity, window.end_line, window.digest, report_bytes, counts
            )
        )
        self._acknowledged_line = window.end_line
        self._observer.progressed(bytes_read=flight.bytes_read, counts=counts)


def _rejection(event: PlannedEvent, outcome: str, result: usage_pb2.UsageEventResult) -> Rejection:
    return Rejection(
        event.line,
        outcome,
        result.reason,
        result.message,
        event.meter_code,
        event.message.idempotency_key,
        result.usage_event_id,
    )
