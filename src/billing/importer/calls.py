"""Calls to the service: with a deadline, tried again while it is away, and told clearly."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from billing.importer.errors import CallFailed
from billing.v1 import catalog_pb2, catalog_pb2_grpc, usage_pb2, usage_pb2_grpc

_PAGE_SIZE: Final = 1_000
_STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
_TOO_LARGE: Final = "MESSAGE_TOO_LARGE"
# Safe to send again: each event has its idempotency key.
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_ADVICE: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "the service does not accept the token",
    grpc.StatusCode.PERMISSION_DENIED: "the token does not allow this",
    grpc.StatusCode.UNAVAILABLE: "the service does not answer",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the service does not answer in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the service has no room for the call",
    grpc.StatusCode.UNIMPLEMENTED: "what listens there is not the billing service",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How long a call may take, and how it is tried again.

    ``first_patience_seconds`` is for the first call: a wrong address should not take a minute.
    """

    deadline_seconds: float = 30.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 5.0
    patience_seconds: float = 60.0
    first_patience_seconds: float = 5.0


@dataclass(slots=True)
class PendingCall:
    """A call on its way."""

    name: str
    method: Any
    request: Any
    patience_seconds: float
    future: Any = None


class ServiceCalls:
    """One tenant's calls over a channel."""

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        tenant_id: str,
        read_token: Callable[[], str],
        policy: CallPolicy,
        notice: Callable[[str], None],
    ) -> None:
        """``read_token`` is asked before each call: a file's token may be renewed."""
        # The generated stubs are typed for grpc.aio; they serve either kind of channel.
        untyped: Any = channel
        self._catalog: Any = catalog_pb2_grpc.CatalogServiceStub(untyped)
        self._usage: Any = usage_pb2_grpc.UsageServiceStub(untyped)
        self._tenant_id = tenant_id
        self._read_token = read_token
        self._policy = policy
        self._notice = notice

    def list_meter_ids(self) -> dict[str, str]:
        """Return the ids of the tenant's meters by code, oldest first; raises CallFailed."""
        ids: dict[str, str] = {}
        page_token = ""
        while True:
            call = PendingCall(
                "ListUsageMeters",
                self._catalog.ListUsageMeters,
                catalog_pb2.ListUsageMetersRequest(
                    tenant_id=self._tenant_id, page_size=_PAGE_SIZE, page_token=page_token
                ),
                self._policy.first_patience_seconds,
            )
            self._send(call)
            answer: catalog_pb2.ListUsageMetersResponse = self._result(call)
            ids.update((meter.code, meter.id) for meter in answer.usage_meters)
            page_token = answer.next_page_token
            if not page_token:
                return ids

    def begin_ingest(self, events: Sequence[usage_pb2.UsageEventInput]) -> PendingCall:
        """Send events; ``finish_ingest`` waits for what became of them."""
        request = usage_pb2.IngestUsageEventsRequest(tenant_id=self._tenant_id, events=events)
        call = PendingCall(
            "IngestUsageEvents",
            self._usage.IngestUsageEvents,
            request,
            self._policy.patience_seconds,
        )
        self._send(call)
        return call

    def finish_ingest(self, call: PendingCall) -> Sequence[usage_pb2.UsageEventResult]:
        """Return one result an event; raises CallFailed."""
        answer: usage_pb2.IngestUsageEventsResponse = self._result(call)
        if len(answer.results) != len(call.request.events):
            raise CallFailed(
                f"the service answered {len(answer.results)} results for "
                f"{len(call.request.events)} events"
            )
        return answer.results

    def _send(self, call: PendingCall) -> None:
        call.future = call.method.future(
            call.request,
            timeout=self._policy.deadline_seconds,
            metadata=(("authorization", f"Bearer {self._read_token()}"),),
        )

    def _result(self, call: PendingCall) -> Any:
        """Return the answer; while the service is away, try again for as long as allowed."""
        give_up_at: float | None = None
        pause_seconds = self._policy.first_pause_seconds
        while True:
            try:
                return call.future.result()
            except grpc.RpcError as error:
                now = time.monotonic()
                give_up_at = now + call.patience_seconds if give_up_at is None else give_up_at
                problem = _describe(call.name, error)
                if not _passes(error) or now + pause_seconds > give_up_at:
                    raise CallFailed(problem) from error
                self._notice(f"{problem}; trying again for {give_up_at - now:.0f} s")
            # Jitter keeps importers that failed together from coming back together.
            time.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311
            pause_seconds = min(2 * pause_seconds, self._policy.longest_pause_seconds)
            self._send(call)


def _passes(error: Any) -> bool:
    return error.code() in _PASSING and _reason(error) != _TOO_LARGE


def _describe(name: str, error: Any) -> str:
    code: grpc.StatusCode = error.code()
    if _reason(error) == _TOO_LARGE:
        return f"{error.details()}: use a smaller --batch-size"
    advice = _ADVICE.get(code, f"{name} failed")
    return f"{advice} ({code.name}: {error.details()})"


def _reason(error: Any) -> str:
    """Return the reason in the ErrorInfo, if the service sent one."""
    for name, value in error.trailing_metadata() or ():
        if name == _STATUS_DETAILS_KEY:
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
