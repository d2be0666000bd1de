"""Counters and times of the service, as Prometheus reads them."""

import threading
from dataclasses import dataclass
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from billing.domain.billing_runs import BillingRunStatus, BillingRunType
from billing.domain.usage import UsageEventOutcome

# From a read by key to a billing run that is waited for.
_RPC_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)


class MetricsAddressUnavailable(Exception):
    """Another program has the address of the metrics endpoint, or it is not this machine's."""

    def __init__(self, address: str, *, detail: str) -> None:
        super().__init__(f"cannot serve metrics on {address}: {detail}")
        self.address = address


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """A running HTTP endpoint; ``port`` is the one it got where 0 was asked for."""

    port: int
    _server: WSGIServer
    _thread: threading.Thread

    def close(self) -> None:
        """Stop answering and free the address; returns when both are done."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RpcMeter:
    """Counts the RPCs of one method."""

    def __init__(self, metrics: "Metrics", service: str, method: str) -> None:
        self._metrics = metrics
        self._service = service
        self._method = method
        self._in_flight = metrics.rpcs_in_flight.labels(service, method)
        self._by_code: dict[str, tuple[Counter, Histogram]] = {}

    def began(self) -> None:
        """Count an RPC that begins."""
        self._in_flight.inc()

    def ended(self, code: str, *, seconds: float) -> None:
        """Count an RPC that ended, by the name of its status code."""
        self._in_flight.dec()
        meters = self._by_code.get(code)
        if meters is None:
            labels = (self._service, self._method, code)
            meters = (self._metrics.rpcs.labels(*labels), self._metrics.rpc_seconds.labels(*labels))
            self._by_code[code] = meters
        meters[0].inc()
        meters[1].observe(seconds)


class Metrics:
    """Everything that is counted, in a registry of its own: two in one process never meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        tenant, rpc = ["tenant_id"], ["service", "method"]
        self._billing_runs = self._counter(
            "billing_runs", "Billing runs that ended.", [*tenant, "run_type", "status"]
        )
        self._subscriptions_processed = self._counter(
            "billing_run_subscriptions_processed", "Results that came to their outcome.", tenant
        )
        self._subscriptions_succeeded = self._counter(
            "billing_run_subscriptions_succeeded", "Results that succeeded.", tenant
        )
        self._subscriptions_failed = self._counter(
            "billing_run_subscriptions_failed", "Results that failed.", tenant
        )
        self._invoices = self._counter("billing_invoices_created", "Invoices created.", tenant)
        self._usage_events = self._counter(
            "billing_usage_events", "Usage events received.", [*tenant, "outcome"]
        )
        self.rpcs = self._counter("billing_rpcs", "RPCs that ended.", [*rpc, "code"])
        self.rpc_seconds = Histogram(
            "billing_rpc_duration_seconds",
            "Time from the first byte of the request to the status.",
            [*rpc, "code"],
            buckets=_RPC_SECONDS,
            registry=self.registry,
        )
        self.rpcs_in_flight = Gauge(
            "billing_rpcs_in_flight", "RPCs being answered.", rpc, registry=self.registry
        )

    def record_billing_run(
        self, tenant_id: str, run_type: BillingRunType, status: BillingRunStatus
    ) -> None:
        """Count a run that ended."""
        self._billing_runs.labels(tenant_id, run_type, status).inc()

    def record_billing_run_subscriptions(
        self, tenant_id: str, *, processed: int, succeeded: int, failed: int
    ) -> None:
        """Count results that came to their outcome."""
        self._subscriptions_processed.labels(tenant_id).inc(processed)
        self._subscriptions_succeeded.labels(tenant_id).inc(succeeded)
        self._subscriptions_failed.labels(tenant_id).inc(failed)

    def record_invoice_created(self, tenant_id: str, *, count: int = 1) -> None:
        """Count invoices."""
        self._invoices.labels(tenant_id).inc(count)

    def record_usage_events(
        self, tenant_id: str, outcome: UsageEventOutcome, *, count: int
    ) -> None:
        """Count usage events of a call by outcome."""
        self._usage_events.labels(tenant_id, outcome).inc(count)

    def rpc(self, service: str, method: str) -> RpcMeter:
        """Return the meter of one RPC method."""
        return RpcMeter(self, service, method)

    def serve(self, address: str) -> MetricsEndpoint:
        """Answer GET on ``host:port`` from a thread, until it is closed.

        Raises MetricsAddressUnavailable.
        """
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(
                int(port), addr=host.strip("[]"), registry=self.registry
            )
        except OSError as error:
            raise MetricsAddressUnavailable(address, detail=error.strerror or str(error)) from error
        return MetricsEndpoint(server.server_port, server, thread)

    def _counter(self, name: str, meaning: str, labels: list[str]) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)
