"""A billing run whose jobs are gone from the queue is given them again."""

from datetime import timedelta
from typing import TypeAlias

import asyncpg

from billing.bootstrap import system_clock
from billing.services.run_rescue import RunRescue
from billing.store.billing_runs import BillingRunStore
from billing.store.database import Database
from billing.store.tenants import TenantStore
from billing.store.work_queue import WorkQueue
from tests.factories.billing_runs import (
    COMPLETED,
    RUNNING,
    counts_of,
    due_subscriptions,
    ended_run,
    one_period_ago,
    start_run,
)
from tests.factories.ledger_audit import assert_ledger_explains
from tests.factories.service_process import Deployment

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def rescue(deployment: Deployment, *, later: timedelta) -> None:
    """Look after lost runs, as a worker does so much later."""
    database = Database(deployment.database_url, pool_size=1)
    await RunRescue(
        database,
        TenantStore(),
        BillingRunStore(),
        WorkQueue(),
        lambda: system_clock() + later,
    ).rescue_runs()
    await database.close()


async def test_a_run_without_jobs_is_brought_to_its_end(
    deployment: Deployment, owner: Owner
) -> None:
    async with deployment.running_here(worker=False) as client:
        subscriptions = await due_subscriptions(client, 3, started_at=one_period_ago())
        run = await start_run(client)
    assert await owner.execute("DELETE FROM pgqueuer") == "DELETE 1"

    await rescue(deployment, later=timedelta(seconds=1))
    assert await owner.fetchval("SELECT count(*) FROM pgqueuer") == 0  # not lost for long enough
    for _ in range(2):  # a batch that has its job keeps it
        await rescue(deployment, later=timedelta(minutes=2))
        assert await owner.fetchval("SELECT count(*) FROM pgqueuer") == 1

    async with deployment.running_here(like=client) as client:
        assert (await client.get_run(run.id)).status in (RUNNING, COMPLETED)
        ended = await ended_run(client, run.id)
        assert (ended.status, counts_of(ended)) == (COMPLETED, (3, 0, 0, 0))
        await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))
