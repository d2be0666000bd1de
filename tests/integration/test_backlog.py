"""What waits to be done, as the metrics tell it."""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.bootstrap import RunningService
from billing.domain.scope import Scope
from billing.observability import backlog
from billing.observability.backlog import BacklogWatch
from billing.observability.metrics import Metrics
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Database
from billing.store.migrations import migrate
from billing.store.recalculations import RecalculationStore
from billing.store.tenants import TenantStore
from billing.store.work_queue import WorkQueue
from tests.conftest import create_database, drop_database
from tests.factories.billing_runs import until
from tests.factories.calculations import recalculate
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import february, subscribe_credited
from tests.factories.transactions import database_with

JOB = {"task": "bill_batch"}
SET_STATUS = "UPDATE pgqueuer SET status = $1::pgqueuer_status WHERE id = $2"
MAKE_OLDER = "UPDATE pgqueuer SET created = created - interval '1 hour' WHERE id = $1"


@pytest.fixture
async def quiet_database(postgres_url: str) -> AsyncIterator[Database]:
    """A database that no worker takes jobs from."""
    url = await create_database(postgres_url)
    await migrate(url)
    async with database_with(url, pool_size=1) as database:
        yield database
    await drop_database(postgres_url, url)


def watch(database: Database, metrics: Metrics) -> BacklogWatch:
    """A watch over a database."""
    return BacklogWatch(
        database, WorkQueue(), TenantStore(), BillingPeriodStore(), RecalculationStore(), metrics
    )


def jobs(metrics: Metrics) -> dict[str, float | None]:
    """The jobs told, by state."""
    return {
        state: metrics.registry.get_sample_value("billing_queue_jobs", {**JOB, "state": state})
        for state in ("waiting", "delayed", "taken", "held")
    }


def age_seconds(metrics: Metrics) -> float | None:
    """The age of the oldest job told."""
    return metrics.registry.get_sample_value("billing_queue_oldest_job_age_seconds", JOB)


def undelivered(metrics: Metrics, what: str = "invoices") -> float:
    """The undelivered invoices told, or documents of recalculations."""
    value = metrics.registry.get_sample_value(f"billing_{what}_undelivered")
    assert value is not None
    return value


async def test_jobs_are_told_by_state_and_age(quiet_database: Database) -> None:
    metrics, queue = Metrics(), WorkQueue()
    await watch(quiet_database, metrics).look()
    assert jobs(metrics) == {"waiting": 0, "delayed": 0, "taken": 0, "held": 0}
    assert age_seconds(metrics) == 0

    run_id = uuid.uuid4()
    async with quiet_database.transaction(Scope("acme", livemode=True)) as tx:
        await queue.enqueue_bill_batches(tx, run_id=run_id, batches=range(4))
        await queue.enqueue_bill_batches(tx, run_id=run_id, batches=[4], delay=timedelta(minutes=1))
        first, second, third = [
            record["id"] for record in await tx.pg.fetch("SELECT id FROM pgqueuer LIMIT 3")
        ]
        await tx.pg.execute(SET_STATUS, "failed", first)
        await tx.pg.execute(MAKE_OLDER, first)  # held: it waits for a person and not for a worker
        await tx.pg.execute(SET_STATUS, "picked", second)
    await watch(quiet_database, metrics).look()
    assert jobs(metrics) == {"waiting": 2, "delayed": 1, "taken": 1, "held": 1}
    age = age_seconds(metrics)
    assert age is not None
    assert 0 <= age < 60

    async with quiet_database.transaction(Scope("acme", livemode=True)) as tx:
        await tx.pg.execute(MAKE_OLDER, third)
    await watch(quiet_database, metrics).look()
    age = age_seconds(metrics)
    assert age is not None
    assert 3600 <= age < 3660


async def test_undelivered_invoices_of_all_tenants_are_told(
    client: BillingClient, service: RunningService, invoicing: ReferenceInvoicingServer
) -> None:
    metrics = Metrics()
    assert math.isnan(undelivered(metrics))
    watching = watch(service.database, metrics)
    await watching.look()
    before = undelivered(metrics)

    invoicing.error_rate = 1.0
    callers = [client, client.in_test_mode()]
    for caller in callers:
        plan = await caller.create_plan()
        await caller.subscribe(plan, started_at=datetime(2026, 2, 1, tzinfo=UTC))
        await caller.run_billing()
    await watching.look()
    assert undelivered(metrics) == before + 2

    invoicing.error_rate = 0.0
    await client.run_billing("run-2")
    await watching.look()
    assert undelivered(metrics) == before + 1


async def test_undelivered_documents_of_recalculations_are_told(
    client: BillingClient,
    clock: FakeClock,
    service: RunningService,
    invoicing: ReferenceInvoicingServer,
) -> None:
    metrics = Metrics()
    watching = watch(service.database, metrics)
    await watching.look()
    before = undelivered(metrics, "documents")
    held = await subscribe_credited(client, clock, invoicing, holds_late_usage=True)
    billed = await held.bill()
    await held.use(40, february(20))

    invoicing.error_rate = 1.0
    await recalculate(client, held.id, billed.billing_period_id, request_id="up")
    await watching.look()
    assert undelivered(metrics, "documents") == before + 1

    invoicing.error_rate = 0.0
    await recalculate(client, held.id, billed.billing_period_id, request_id="up")
    await watching.look()
    assert undelivered(metrics, "documents") == before


async def test_the_watch_outlives_the_database_and_tells_nothing_meanwhile(
    quiet_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "_PAUSE_FACTOR", 0.0)
    metrics = Metrics()
    watching = asyncio.create_task(watch(quiet_database, metrics).run())

    async def told() -> bool:
        return jobs(metrics)["waiting"] is not None

    async def untold() -> bool:
        return jobs(metrics)["waiting"] is None and math.isnan(undelivered(metrics))

    await until(told)
    with monkeypatch.context() as broken:
        broken.setattr("billing.store.work_queue._READ_BACKLOG", "SELECT 1 / 0")
        await until(untold)
    await until(told)
    watching.cancel()
    await asyncio.wait([watching])
