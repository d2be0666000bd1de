"""Counters, and the endpoint that Prometheus reads."""

import math
import socket
import urllib.request

import pytest

from billing.domain.billing_runs import BillingRunStatus, BillingRunType
from billing.domain.usage import UsageEventOutcome
from billing.observability.metrics import Metrics, MetricsAddressUnavailable
from billing.services.ports import Metering
from billing.store.database import PoolUse
from billing.store.work_queue import Backlog


def test_every_operation_is_counted() -> None:
    metrics = Metrics()
    metering: Metering = metrics
    metering.record_billing_run("acme", BillingRunType.MANUAL, BillingRunStatus.FAILED, seconds=2.5)
    metering.record_billing_run_subscriptions("acme", processed=5, succeeded=3, failed=1)
    metering.record_invoice_created("acme")
    metering.record_invoice_created("acme", count=2)
    metering.record_usage_events("acme", UsageEventOutcome.DUPLICATE, count=7)
    acme = {"tenant_id": "acme"}
    expected = [
        ("billing_runs_total", {**acme, "run_type": "manual", "status": "failed"}, 1),
        ("billing_run_subscriptions_processed_total", acme, 5),
        ("billing_run_subscriptions_succeeded_total", acme, 3),
        ("billing_run_subscriptions_failed_total", acme, 1),
        ("billing_run_results_total", {"outcome": "succeeded"}, 3),
        ("billing_run_results_total", {"outcome": "failed"}, 1),
        ("billing_invoices_created_total", acme, 3),
        ("billing_usage_events_total", {**acme, "outcome": "duplicate"}, 7),
        ("billing_run_duration_seconds_sum", {"run_type": "manual", "status": "failed"}, 2.5),
    ]
    for name, labels, value in expected:
        assert metrics.registry.get_sample_value(name, labels) == value


def test_rpcs_are_counted_and_timed_by_code() -> None:
    metrics = Metrics()
    labels = {"grpc_service": "billing.v1.LedgerService", "grpc_method": "GetBalance"}
    meter = metrics.rpc(*labels.values())
    meter.began()
    meter.began()
    meter.ended("OK", seconds=0.2)
    value = metrics.registry.get_sample_value
    assert value("billing_rpcs_in_flight", labels) == 1
    ended = {**labels, "grpc_code": "OK"}
    assert value("billing_rpcs_total", ended) == 1
    assert value("billing_rpc_duration_seconds_sum", ended) == 0.2


def test_the_endpoint_answers_until_it_is_closed() -> None:
    metrics = Metrics()
    metrics.record_invoice_created("acme")
    endpoint = metrics.serve("127.0.0.1:0")
    url = f"http://127.0.0.1:{endpoint.port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as response:
        assert b'billing_invoices_created_total{tenant_id="acme"} 1.0' in response.read()
    endpoint.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=30)


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsAddressUnavailable, match=address):
            Metrics().serve(address)


def test_series_with_known_labels_are_there_from_the_start() -> None:
    """Prometheus would see no increase in a series that begins with one."""
    value = Metrics().registry.get_sample_value
    for name, labels in [
        ("billing_run_duration_seconds_count", {"run_type": "single", "status": "failed"}),
        ("billing_run_results_total", {"outcome": "failed"}),
        ("billing_ledger_entries_total", {"entry_type": "charge_billed"}),
        ("billing_invoice_deliveries_total", {"outcome": "refused"}),
        ("billing_invoice_attempt_duration_seconds_count", {"grpc_code": "OK"}),
        ("billing_job_duration_seconds_count", {"task": "bill_batch", "outcome": "retried"}),
    ]:
        assert value(name, labels) == 0, name


def test_what_a_process_does_not_know_it_does_not_tell() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    waiting = ("billing_queue_jobs", {"task": "bill_batch", "state": "waiting"})
    age = ("billing_queue_oldest_job_age_seconds", {"task": "bill_batch"})
    for _ in range(2):
        assert value(*waiting) is None
        assert value(*age) is None
        assert math.isnan(value("billing_invoices_undelivered") or 0)
        assert math.isnan(value("billing_documents_undelivered") or 0)
        metrics.record_backlog("bill_batch", Backlog(3, 1, 2, 0, 60.5))
        metrics.record_undelivered_invoices(4)
        metrics.record_undelivered_documents(2)
        assert value(*waiting) == 3
        assert value(*age) == 60.5
        assert value("billing_invoices_undelivered") == 4
        assert value("billing_documents_undelivered") == 2
        metrics.forget_backlog()


def test_the_pool_is_read_at_every_scrape() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    uses = iter([PoolUse(10, 4, 0), PoolUse(10, 10, 3)])
    use = next(uses)
    metrics.watch_pool(lambda: use)
    assert value("billing_database_pool_in_use") == 4
    use = next(uses)
    assert value("billing_database_pool_in_use") == 10
    assert value("billing_database_pool_waiting") == 3
    assert value("billing_database_pool_size") == 10
