"""One export, from the first byte to the file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.caller.calls import CallPolicy, ServiceCaller
from billing.exporter.options import ExportFormat, ExportOptions
from billing.exporter.output import whole_output
from billing.v1 import ledger_export_pb2, ledger_pb2_grpc

_FORMATS: Final = {
    ExportFormat.HLEDGER: ledger_export_pb2.LEDGER_EXPORT_FORMAT_HLEDGER,
    ExportFormat.CSV: ledger_export_pb2.LEDGER_EXPORT_FORMAT_CSV,
    ExportFormat.JSONL: ledger_export_pb2.LEDGER_EXPORT_FORMAT_JSON_LINES,
}


class Observer(Protocol):
    """Who watches an export."""

    def progressed(self, *, entry_count: int, byte_count: int) -> None:
        """So much arrived up to now; less than before if it began again."""

    def noticed(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was exported."""

    entry_count: int
    byte_count: int
    seconds: float


def export_ledger(
    options: ExportOptions,
    channel: grpc.Channel,
    *,
    read_token: Callable[[], str],
    observer: Observer,
    policy: CallPolicy = CallPolicy(),  # noqa: B008  it never changes
) -> ExportSummary:
    """Write the ledger to the output, as a whole or not at all; raises CallerFailed.

    After a lost connection it begins again.
    """
    started = time.monotonic()
    # The generated stubs are typed for grpc.aio; they serve either kind of channel.
    untyped: Any = channel
    ledger: Any = ledger_pb2_grpc.LedgerServiceStub(untyped)
    caller = ServiceCaller(read_token=read_token, policy=policy, notice=observer.noticed)
    with whole_output(options.output) as stream:
        received = _Received(stream, observer)
        caller.stream(
            "ExportLedger",
            ledger.ExportLedger,
            _request(options),
            begin=received.begin,
            receive=received.add,
        )
    seconds = time.monotonic() - started
    return ExportSummary(received.entry_count, received.byte_count, seconds)


class _Received:
    """What has arrived since the export began, or began again."""

    def __init__(self, stream: BinaryIO, observer: Observer) -> None:
        self._stream = stream
        self._observer = observer
        self.entry_count = 0
        self.byte_count = 0

    def begin(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self.entry_count = self.byte_count = 0

    def add(self, part: ledger_export_pb2.ExportLedgerResponse) -> None:
        self._stream.write(part.content)
        self.entry_count = part.entry_count
        self.byte_count += len(part.content)
        self._observer.progressed(entry_count=self.entry_count, byte_count=self.byte_count)


def _request(options: ExportOptions) -> ledger_export_pb2.ExportLedgerRequest:
    return ledger_export_pb2.ExportLedgerRequest(
        tenant_id=options.tenant_id,
        subscription_id=options.subscription_id,
        posted_from=_timestamp(options.posted_from),
        posted_until=_timestamp(options.posted_until),
        format=_FORMATS[options.format],
        include_pending=options.include_pending,
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
