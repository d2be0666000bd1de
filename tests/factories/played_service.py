"""The service played by a test: grpcio-testing's channel, and the answers that the test gives."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc_testing
from google.rpc import error_details_pb2, status_pb2

from billing.caller.calls import CallPolicy
from billing.importer.options import ImportOptions
from billing.importer.run import ImportSummary, import_usage
from billing.v1 import catalog_pb2, usage_pb2
from tests.factories.usage_import import METER_IDS, RememberingObserver

_CATALOG = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"]
_USAGE = usage_pb2.DESCRIPTOR.services_by_name["UsageService"]
_LIST_METERS = _CATALOG.methods_by_name["ListUsageMeters"]
_INGEST = _USAGE.methods_by_name["IngestUsageEvents"]
ACCEPTED = usage_pb2.USAGE_EVENT_OUTCOME_ACCEPTED
DUPLICATE = usage_pb2.USAGE_EVENT_OUTCOME_DUPLICATE
CONFLICT = usage_pb2.USAGE_EVENT_OUTCOME_CONFLICT
REJECTED = usage_pb2.USAGE_EVENT_OUTCOME_REJECTED
_IMPATIENT = CallPolicy(
    first_pause_seconds=0.001,
    longest_pause_seconds=0.002,
    patience_seconds=0.2,
    first_patience_seconds=0.2,
)
_THE_END = "the-end-of-the-play"


@dataclass(frozen=True)
class Refusal:
    """A call that fails as a whole."""

    code: grpc.StatusCode
    details: str = "as the test wants it"
    reason: str = ""

    @property
    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The status with its ErrorInfo, as the service sends it."""
        if not self.reason:
            return ()
        status = status_pb2.Status(code=self.code.value[0], message=self.details)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason))
        return (("grpc-status-details-bin", status.SerializeToString()),)


IngestAnswer = usage_pb2.IngestUsageEventsResponse | Refusal


def accept_all(request: usage_pb2.IngestUsageEventsRequest) -> IngestAnswer:
    """Accept every event."""
    return answer_of(request, lambda event: usage_pb2.UsageEventResult(outcome=ACCEPTED))


def answer_of(
    request: usage_pb2.IngestUsageEventsRequest,
    result_of: Callable[[usage_pb2.UsageEventInput], usage_pb2.UsageEventResult],
) -> usage_pb2.IngestUsageEventsResponse:
    """Answer a result an event."""
    return usage_pb2.IngestUsageEventsResponse(results=[result_of(e) for e in request.events])


@dataclass
class PlayedService:
    """Answers with ``ingest``; remembers the requests and the metadata of the calls."""

    channel: Any
    ingest: Callable[[usage_pb2.IngestUsageEventsRequest], IngestAnswer] = accept_all
    meter_pages: list[dict[str, str] | Refusal] = field(default_factory=list)
    requests: list[usage_pb2.IngestUsageEventsRequest] = field(default_factory=list)
    page_tokens: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[usage_pb2.UsageEventInput]:
        """All events that came, in their order."""
        return [event for request in self.requests for event in request.events]

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all events that came."""
        return [event.idempotency_key for event in self.events]

    def import_file(
        self, options: ImportOptions, *, observer: RememberingObserver | None = None
    ) -> ImportSummary:
        """Run an importer that does not wait long."""
        return import_usage(
            options,
            self.channel,
            read_token=lambda: "t-1",
            observer=observer or RememberingObserver(),
            policy=_IMPATIENT,
        )

    def list_meters(self, request: catalog_pb2.ListUsageMetersRequest) -> Any:
        """Answer the next page that the test has laid out, or all meters."""
        self.page_tokens.append(request.page_token)
        page = self.meter_pages.pop(0) if self.meter_pages else METER_IDS
        if isinstance(page, Refusal):
            return page
        return catalog_pb2.ListUsageMetersResponse(
            usage_meters=[
                catalog_pb2.UsageMeter(id=meter_id, code=code) for code, meter_id in page.items()
            ],
            next_page_token=f"after-{len(self.page_tokens)}" if self.meter_pages else "",
        )

    def remember_and_ingest(self, request: usage_pb2.IngestUsageEventsRequest) -> Any:
        """Answer as the test says."""
        self.requests.append(request)
        return self.ingest(request)

    def play(self, method: Any, answer: Callable[[Any], Any]) -> None:
        """Answer the calls of a method until the play ends."""
        while True:
            metadata, request, rpc = self.channel.take_unary_unary(method)
            if request.tenant_id == _THE_END:
                return
            self.tokens.append(dict(metadata)["authorization"])
            try:
                reply = answer(request)
            except Exception as error:  # noqa: BLE001  the importer must not wait for ever
                reply = Refusal(grpc.StatusCode.INTERNAL, f"the test failed: {error!r}")
            if isinstance(reply, Refusal):
                rpc.terminate(None, reply.trailing_metadata, reply.code, reply.details)
            else:
                rpc.send_initial_metadata(())
                rpc.terminate(reply, (), grpc.StatusCode.OK, "")


@contextmanager
def played_service() -> Iterator[PlayedService]:
    """A service that accepts everything, unless the test changes that."""
    channel = grpc_testing.channel([_CATALOG, _USAGE], grpc_testing.strict_real_time())
    service = PlayedService(channel)
    plays = [
        threading.Thread(target=service.play, args=(_LIST_METERS, service.list_meters)),
        threading.Thread(target=service.play, args=(_INGEST, service.remember_and_ingest)),
    ]
    for play in plays:
        play.start()
    try:
        yield service
    finally:
        _end(channel, _LIST_METERS, catalog_pb2.ListUsageMetersRequest(tenant_id=_THE_END))
        _end(channel, _INGEST, usage_pb2.IngestUsageEventsRequest(tenant_id=_THE_END))
        for play in plays:
            play.join(5)


def _end(channel: Any, method: Any, request: Any) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel.unary_unary(path).future(request)
