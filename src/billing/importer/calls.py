"""The importer's calls: meters by code, and events."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from billing.caller.calls import CallPolicy, PendingCall, ServiceCaller
from billing.caller.errors import CallFailed
from billing.v1 import catalog_pb2, catalog_pb2_grpc, usage_pb2, usage_pb2_grpc

_PAGE_SIZE: Final = 1_000


class ServiceCalls:
    """One tenant's calls over a channel. Safe to send again: each event has its idempotency key."""

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
        self._caller = ServiceCaller(
            read_token=read_token,
            policy=policy,
            notice=notice,
            too_large_advice="use a smaller --batch-size",
        )

    def list_meter_ids(self) -> dict[str, str]:
        """Return the ids of the tenant's meters by code, oldest first; raises CallFailed."""
        ids: dict[str, str] = {}
        page_token = ""
        while True:
            request = catalog_pb2.ListUsageMetersRequest(
                tenant_id=self._tenant_id, page_size=_PAGE_SIZE, page_token=page_token
            )
            answer: catalog_pb2.ListUsageMetersResponse = self._caller.call(
                "ListUsageMeters", self._catalog.ListUsageMeters, request, first=True
            )
            ids.update((meter.code, meter.id) for meter in answer.usage_meters)
            page_token = answer.next_page_token
            if not page_token:
                return ids

    def begin_ingest(self, events: Sequence[usage_pb2.UsageEventInput]) -> PendingCall:
        """Send events; ``finish_ingest`` waits for what became of them."""
        request = usage_pb2.IngestUsageEventsRequest(tenant_id=self._tenant_id, events=events)
        return self._caller.begin("IngestUsageEvents", self._usage.IngestUsageEvents, request)

    def finish_ingest(self, call: PendingCall) -> Sequence[usage_pb2.UsageEventResult]:
        """Return one result an event; raises CallFailed."""
        answer: usage_pb2.IngestUsageEventsResponse = self._caller.finish(call)
        if len(answer.results) != len(call.request.events):
            raise CallFailed(
                f"the service answered {len(answer.results)} results for "
                f"{len(call.request.events)} events"
            )
        return answer.results
