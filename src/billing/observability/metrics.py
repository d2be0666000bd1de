"""Counters and times of the service, as Prometheus reads them.

The tenant is a label of what is asked for by tenant, a subscription never. Where the values of
labels are known, their series are there from the start: Prometheus sees no increase in a series
that begins with one, so alerts are about such series and not about those of a tenant. No label is
called as those that Prometheus gives to what it scrapes (job, instance, service). Times carry the
trace that they were measured in (exemplars).
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final
from wsgiref.simple_server import WSGIServer

from opentelemetry import trace
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from billing.domain.billing_runs import BillingRunStatus, BillingRunType
from billing.domain.ledger import LedgerEntryType
from billing.domain.ledger_audit import LedgerAuditCheck
from billing.domain.scope import Scope
from billing.domain.usage import UsageEventOutcome
from billing.store.database import PoolUse
from billing.store.work_queue import BILL_BATCH, Backlog

# From a read by key to a billing run that is waited for.
_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
# From a run of nothing to one whose last batch waited a day for a person.
_RUN_SECONDS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

_ENDED: Final = (BillingRunStatus.COMPLETED, BillingRunStatus.FAILED)
_RESULT_OUTCOMES: Final = ("succeeded", "failed")
_JOB_OUTCOMES: Final = ("succeeded", "retried", "stopped", "failed")
_DELIVERY_OUTCOMES: Final = ("created", "unavailable", "refused")


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
        meters[1].observe(seconds, _exemplar())


class Metrics:
    """Everything that is counted, in a registry of its own: two in one process never meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._make_billing_metrics()
        self._make_invoice_metrics()
        self._make_audit_metrics()
        self._make_rpc_metrics()
        self._make_job_metrics()
        self._make_pool_metrics()

    def _make_billing_metrics(self) -> None:
        tenant = ["tenant_id"]
        self._billing_runs = self._counter(
            "billing_runs", "Billing runs that ended.", [*tenant, "run_type", "status"]
        )
        self._run_seconds = self._histogram(
            "billing_run_duration_seconds",
            "Time from the start of a billing run to its last result.",
            {"run_type": BillingRunType, "status": _ENDED},
            buckets=_RUN_SECONDS,
        )
        self._run_ended_at = self._gauge(
            "billing_run_last_ended_timestamp_seconds",
            "When a billing run last ended in this process.",
            ["run_type"],
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
        self._results = self._counter(
            "billing_run_results",
            "Results that came to their outcome, of all tenants.",
            ["outcome"],
        )
        for outcome in _RESULT_OUTCOMES:
            self._results.labels(outcome)
        self._usage_events = self._counter(
            "billing_usage_events", "Usage events received.", [*tenant, "outcome"]
        )
        self._ledger_entries = self._counter(
            "billing_ledger_entries", "Ledger entries posted.", ["entry_type"]
        )
        for entry_type in LedgerEntryType:
            self._ledger_entries.labels(entry_type)

    def _make_invoice_metrics(self) -> None:
        self._invoices = self._counter(
            "billing_invoices_created", "Invoices created.", ["tenant_id"]
        )
        self._deliveries = self._counter(
            "billing_invoice_deliveries",
            "Invoices, credit notes and voids asked for, with all attempts; by what came of it.",
            ["outcome"],
        )
        for outcome in _DELIVERY_OUTCOMES:
            self._deliveries.labels(outcome)
        self._attempt_seconds = self._histogram(
            "billing_invoice_attempt_duration_seconds",
            "Time of one attempt at a call of the invoicing service, by status code.",
            {"grpc_code": ["OK"]},
            buckets=_SECONDS,
        )
        self._undelivered = self._gauge(
            "billing_invoices_undelivered", "Billed periods without their invoice, of all tenants."
        )
        self._undelivered_documents = self._gauge(
            "billing_documents_undelivered",
            "Documents of recalculations that the invoicing service lacks, of all tenants.",
        )

    def _make_audit_metrics(self) -> None:
        scope = ["tenant_id", "livemode"]
        self._audit_findings = self._gauge(
            "billing_audit_findings",
            "What the last audit that ended in this process found in a tenant's books.",
            [*scope, "check"],
        )
        self._audit_ended_at = self._gauge(
            "billing_audit_last_ended_timestamp_seconds",
            "When an audit of a tenant's books last ended in this process.",
            scope,
        )

    def _make_rpc_metrics(self) -> None:
        rpc = ["grpc_service", "grpc_method"]
        self.rpcs = self._counter("billing_rpcs", "RPCs that ended.", [*rpc, "grpc_code"])
        self.rpc_seconds = self._histogram(
            "billing_rpc_duration_seconds",
            "Time from the first byte of the request to the status.",
            {"grpc_service": (), "grpc_method": (), "grpc_code": ()},
            buckets=_SECONDS,
        )
        self.rpcs_in_flight = self._gauge("billing_rpcs_in_flight", "RPCs being answered.", rpc)

    def _make_job_metrics(self) -> None:
        self._job_seconds = self._histogram(
            "billing_job_duration_seconds",
            "Time that a worker spent on a job: succeeded, retried after a failure, stopped with "
            "its process and done by another, or failed for good.",
            {"task": [BILL_BATCH], "outcome": _JOB_OUTCOMES},
            buckets=_SECONDS,
        )
        self._queue_jobs = self._gauge(
            "billing_queue_jobs",
            "Jobs of all processes by state: waiting, delayed, taken, held.",
            ["task", "state"],
        )
        self._queue_age = self._gauge(
            "billing_queue_oldest_job_age_seconds",
            "Age of the oldest job of all processes that is not done.",
            ["task"],
        )

    def _make_pool_metrics(self) -> None:
        self._pool_size = self._gauge("billing_database_pool_size", "Most connections at a time.")
        self._pool_in_use = self._gauge("billing_database_pool_in_use", "Connections at work.")
        self._pool_waiting = self._gauge(
            "billing_database_pool_waiting", "Callers that wait for a connection."
        )

    def record_billing_run(
        self,
        tenant_id: str,
        run_type: BillingRunType,
        status: BillingRunStatus,
        *,
        seconds: float,
    ) -> None:
        """Count a run that ended, so long after its start."""
        self._billing_runs.labels(tenant_id, run_type, status).inc()
        self._run_seconds.labels(run_type, status).observe(seconds, _exemplar())
        self._run_ended_at.labels(run_type).set(time.time())

    def record_billing_run_subscriptions(
        self, tenant_id: str, *, processed: int, succeeded: int, failed: int
    ) -> None:
        """Count results that came to their outcome."""
        self._subscriptions_processed.labels(tenant_id).inc(processed)
        self._subscriptions_succeeded.labels(tenant_id).inc(succeeded)
        self._subscriptions_failed.labels(tenant_id).inc(failed)
        self._results.labels("succeeded").inc(succeeded)
        self._results.labels("failed").inc(failed)

    def record_invoice_created(self, tenant_id: str, *, count: int = 1) -> None:
        """Count invoices."""
        self._invoices.labels(tenant_id).inc(count)

    def record_invoice_attempt(self, code: str, *, seconds: float) -> None:
        """Time an attempt at a call of the invoicing service, by the name of its status code."""
        self._attempt_seconds.labels(code).observe(seconds, _exemplar())

    def record_invoice_delivery(self, outcome: str) -> None:
        """Count an invoice, credit note or void asked for: "created", "unavailable", "refused"."""
        self._deliveries.labels(outcome).inc()

    def record_undelivered_invoices(self, count: int) -> None:
        """Tell how many billed periods of all tenants lack their invoice."""
        self._undelivered.set(count)

    def record_ledger_audit(self, scope: Scope, counts: Mapping[LedgerAuditCheck, int]) -> None:
        """Tell how much each check of an audit found that has ended."""
        labels = (scope.tenant_id, str(scope.livemode).lower())
        for check, count in counts.items():
            self._audit_findings.labels(*labels, check).set(count)
        self._audit_ended_at.labels(*labels).set(time.time())

    def record_undelivered_documents(self, count: int) -> None:
        """Tell how many documents of all tenants' recalculations are not delivered."""
        self._undelivered_documents.set(count)

    def record_usage_events(
        self, tenant_id: str, outcome: UsageEventOutcome, *, count: int
    ) -> None:
        """Count usage events of a call by outcome."""
        self._usage_events.labels(tenant_id, outcome).inc(count)

    def record_ledger_entries(self, entry_type: LedgerEntryType, *, count: int) -> None:
        """Count entries posted."""
        self._ledger_entries.labels(entry_type).inc(count)

    def record_job(self, job: str, outcome: str, *, seconds: float) -> None:
        """Time a worker's job: "succeeded", "retried", "stopped" or "failed"."""
        self._job_seconds.labels(job, outcome).observe(seconds, _exemplar())

    def record_backlog(self, job: str, backlog: Backlog) -> None:
        """Tell what the queue holds of a kind of job."""
        for state in ("waiting", "delayed", "taken", "held"):
            self._queue_jobs.labels(job, state).set(getattr(backlog, state))
        self._queue_age.labels(job).set(backlog.oldest_seconds)

    def forget_backlog(self) -> None:
        """Tell nothing of the queue and of what is undelivered until it is recorded again."""
        self._queue_jobs.clear()
        self._queue_age.clear()
        self._undelivered.set(math.nan)
        self._undelivered_documents.set(math.nan)

    def watch_pool(self, read: Callable[[], PoolUse]) -> None:
        """Tell what ``read`` returns at every scrape, which comes from a thread of its own."""
        self._pool_size.set_function(lambda: read().size)
        self._pool_in_use.set_function(lambda: read().in_use)
        self._pool_waiting.set_function(lambda: read().waiting)

    def rpc(self, service: str, method: str) -> RpcMeter:
        """Return the meter of one RPC method."""
        return RpcMeter(self, service, method)

    def serve(self, address: str) -> MetricsEndpoint:
        """Answer GET on ``host:port`` from a thread, until it is closed.

        In the OpenMetrics format, with exemplars, to who accepts it. Raises
        MetricsAddressUnavailable.
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

    def _gauge(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Gauge:
        """A gauge; without labels it tells nothing until it is set."""
        gauge = Gauge(name, meaning, labels, registry=self.registry)
        if not labels:
            gauge.set(math.nan)
        return gauge

    def _histogram(
        self,
        name: str,
        meaning: str,
        labels: Mapping[str, Iterable[str]],
        *,
        buckets: tuple[float, ...],
    ) -> Histogram:
        """A histogram with a series for each combination of the labels' values that are known."""
        histogram = Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)
        for values in product(*labels.values()):
            histogram.labels(*values)
        return histogram


def _exemplar() -> dict[str, str] | None:
    """What finds the trace of a measured time, if it is kept."""
    span = trace.get_current_span()
    if not span.is_recording():
        return None
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
