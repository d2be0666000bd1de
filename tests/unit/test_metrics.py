"""Counters, and the endpoint that Prometheus reads."""

import socket
import urllib.request

import pytest

from billing.domain.billing_runs import BillingRunStatus, BillingRunType
from billing.domain.usage import UsageEventOutcome
from billing.observability.metrics import Metrics, MetricsAddressUnavailable
from billing.services.ports import Metering


def test_every_operation_is_counted() -> None:
    metrics = Metrics()
    metering: Metering = metrics
    metering.record_billing_run("acme", BillingRunType.MANUAL, BillingRunStatus.FAILED)
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
        ("billing_invoices_created_total", acme, 3),
        ("billing_usage_events_total", {**acme, "outcome": "duplicate"}, 7),
    ]
    for name, labels, value in expected:
        assert metrics.registry.get_sample_value(name, labels) == value


def test_rpcs_are_counted_and_timed_by_code() -> None:
    metrics = Metrics()
    labels = {"service": "billing.v1.LedgerService", "method": "GetBalance"}
    meter = metrics.rpc(*labels.values())
    meter.began()
    meter.began()
    meter.ended("OK", seconds=0.2)
    value = metrics.registry.get_sample_value
    assert value("billing_rpcs_in_flight", labels) == 1
    ended = {**labels, "code": "OK"}
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
