"""What Prometheus reads after usage, a billing run and failing deliveries."""

import asyncio
import http.client
from collections.abc import Mapping
from datetime import UTC, datetime

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.billing_runs import until
from tests.factories.client import BillingClient, component
from tests.factories.spans import recording

STARTED = datetime(2026, 2, 1, tzinfo=UTC)
MANUAL = {"run_type": "manual"}
COMPLETED = {**MANUAL, "status": "completed"}
SUCCEEDED = {"task": "bill_batch", "outcome": "succeeded"}


class Readings:
    """What metrics were, to tell by how much they grew."""

    def __init__(self, service: RunningService) -> None:
        self._registry = service.metrics.registry
        self._before = self._read()

    def _read(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in self._registry.collect()
            for sample in metric.samples
        }

    def growth(self, name: str, labels: Mapping[str, str]) -> float:
        """By how much a metric grew."""
        key = (name, tuple(sorted(labels.items())))
        return self._read()[key] - self._before.get(key, 0.0)


def scrape(port: int, *, accept: str = "text/plain") -> str:
    """Read the endpoint as Prometheus does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"Accept": accept})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


async def test_a_run_is_counted_by_all_that_it_does(
    client: BillingClient, service: RunningService, invoicing: ReferenceInvoicingServer
) -> None:
    meter = await client.create_meter()
    plan = await client.create_plan(components=[component(meter)])
    subscriptions = [
        await client.subscribe(plan, started_at=STARTED, customer_id=f"cus-{number}")
        for number in range(2)
    ]
    readings = Readings(service)
    for subscription in subscriptions:
        await client.use(subscription.id, meter, "5", STARTED)
    await client.run_billing()
    tenant = {"tenant_id": client.tenant_id}
    for name, labels, expected in [
        ("billing_runs_total", {**tenant, **COMPLETED}, 1),
        ("billing_run_duration_seconds_count", COMPLETED, 1),
        ("billing_run_subscriptions_processed_total", tenant, 2),
        ("billing_run_subscriptions_succeeded_total", tenant, 2),
        ("billing_run_subscriptions_failed_total", tenant, 0),
        ("billing_invoices_created_total", tenant, 2),
        ("billing_invoice_deliveries_total", {"outcome": "created"}, 2),
        ("billing_invoice_attempt_duration_seconds_count", {"grpc_code": "OK"}, 2),
        ("billing_usage_events_total", {**tenant, "outcome": "accepted"}, 2),
        ("billing_ledger_entries_total", {"entry_type": "usage_cost"}, 2),
        ("billing_ledger_entries_total", {"entry_type": "charge_billed"}, 2),
    ]:
        assert readings.growth(name, labels) == expected, (name, labels)

    async def job_ended() -> bool:  # a moment after the run
        return readings.growth("billing_job_duration_seconds_count", SUCCEEDED) == 1

    await until(job_ended)
    ended_at = service.metrics.registry.get_sample_value(
        "billing_run_last_ended_timestamp_seconds", MANUAL
    )
    assert ended_at is not None
    assert 0 <= datetime.now(UTC).timestamp() - ended_at < 60


async def test_a_run_of_nothing_is_counted_too(
    client: BillingClient, service: RunningService
) -> None:
    readings = Readings(service)
    await client.run_billing()
    tenant = {"tenant_id": client.tenant_id}
    assert readings.growth("billing_runs_total", {**tenant, **COMPLETED}) == 1


async def test_failing_deliveries_are_counted_by_attempt_and_by_outcome(
    client: BillingClient, service: RunningService, invoicing: ReferenceInvoicingServer
) -> None:
    plan = await client.create_plan()
    await client.subscribe(plan, started_at=STARTED, customer_id="cus-refused")
    invoicing.refused_customer_ids.add("cus-refused")
    readings = Readings(service)
    await client.run_billing("run-1")
    refusals = {"grpc_code": "FAILED_PRECONDITION"}
    assert readings.growth("billing_invoice_deliveries_total", {"outcome": "refused"}) == 1
    assert readings.growth("billing_invoice_attempt_duration_seconds_count", refusals) == 1

    invoicing.error_rate = 1.0
    await client.run_billing("run-2")
    failures = {"grpc_code": "UNAVAILABLE"}
    assert readings.growth("billing_invoice_deliveries_total", {"outcome": "unavailable"}) == 1
    assert readings.growth("billing_invoice_attempt_duration_seconds_count", failures) == 2
    failed = {"tenant_id": client.tenant_id, **MANUAL, "status": "failed"}
    assert readings.growth("billing_runs_total", failed) == 2


async def test_the_pool_is_told_at_the_scrape(service: RunningService) -> None:
    value = service.metrics.registry.get_sample_value
    assert value("billing_database_pool_size") == 10
    assert value("billing_database_pool_in_use") is not None
    assert value("billing_database_pool_waiting") == 0


async def test_who_accepts_openmetrics_gets_exemplars(
    client: BillingClient, service: RunningService
) -> None:
    with recording():
        await client.create_plan()
    endpoint = service.metrics.serve("127.0.0.1:0")
    plain = await asyncio.to_thread(scrape, endpoint.port)
    with_exemplars = await asyncio.to_thread(
        scrape, endpoint.port, accept="application/openmetrics-text; version=1.0.0"
    )
    endpoint.close()
    assert "# {" not in plain
    lines = [
        line
        for line in with_exemplars.splitlines()
        if line.startswith("billing_rpc_duration_seconds_bucket")
        and 'grpc_method="CreatePlan"' in line
    ]
    assert any('trace_id="' in line.partition(" # ")[2] for line in lines)
