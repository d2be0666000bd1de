"""The queue of billing batches and its worker, with an execution that does as it is told."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast
from uuid import UUID

import asyncpg
import pytest
from pgqueuer import Queries
from pgqueuer.db import AsyncpgDriver

from billing.domain.identifiers import new_id
from billing.domain.scope import Scope
from billing.observability.metrics import Metrics
from billing.services.billing_execution import BillingExecution
from billing.store.database import Database
from billing.store.migrations import migrate
from billing.store.work_queue import BILL_BATCH, BillBatchJob, WorkQueue
from billing.workers.bill_batches import BillBatchWorker
from tests.conftest import create_database, drop_database
from tests.factories.ledger_book import connected
from tests.factories.transactions import database_with, terminate

DEADLINE_SECONDS = 20.0
HEARTBEAT_TIMEOUT_SECONDS = 0.5
MOST_JOBS_AT_ONCE = 4
LIVE = Scope("tenant", livemode=True)
TEST = Scope("tenant", livemode=False)
TABLE_CHANGED = json.dumps(
    {
        "channel": "ch_pgqueuer",
        "operation": "update",
        "sent_at": "2026-03-15T12:00:00Z",
        "table": "pgqueuer",
        "type": "table_changed_event",
    }
)


class ToldExecution:
    """Notes the batches that it begins and ends; holds them and fails as it is told."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[BillBatchJob] = asyncio.Queue()
        self.ended: list[BillBatchJob] = []
        self.failing = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def bill_batch(self, scope: Scope, run_id: UUID, *, batch: int) -> None:
        job = BillBatchJob(scope, run_id, batch)
        self.begun.put_nowait(job)
        await self.may_end.wait()
        if self.failing:
            raise RuntimeError("told to fail")
        self.ended.append(job)

    async def next_begun(self) -> BillBatchJob:
        """Wait for the next batch to begin."""
        return await asyncio.wait_for(self.begun.get(), DEADLINE_SECONDS)


@pytest.fixture(scope="module")
async def queue_url(postgres_url: str) -> AsyncIterator[str]:
    """A database whose queue no other worker serves."""
    url = await create_database(postgres_url)
    await migrate(url)
    yield url
    await drop_database(postgres_url, url)


@pytest.fixture
async def database(queue_url: str) -> AsyncIterator[Database]:
    """A pool of the database, with an empty queue."""
    async with connected(queue_url) as connection:
        await connection.execute("DELETE FROM pgqueuer")
    async with database_with(queue_url, pool_size=2) as database:
        yield database


@pytest.fixture
def execution() -> ToldExecution:
    return ToldExecution()


def new_worker(
    database: Database,
    execution: ToldExecution,
    *,
    heartbeat_timeout_seconds: float = HEARTBEAT_TIMEOUT_SECONDS,
) -> BillBatchWorker:
    return BillBatchWorker(
        database,
        cast(BillingExecution, execution),
        Metrics(),
        concurrency=MOST_JOBS_AT_ONCE // 2,
        heartbeat_timeout_seconds=heartbeat_timeout_seconds,
    )


@asynccontextmanager
async def working(
    database: Database, execution: ToldExecution, **options: float
) -> AsyncIterator[BillBatchWorker]:
    """A worker at work, which is stopped at the end and ends its jobs."""
    worker = new_worker(database, execution, **options)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        execution.may_end.set()
        worker.stop()
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def enqueue(
    database: Database, *batches: int, scope: Scope = LIVE, delay: timedelta = timedelta(0)
) -> list[BillBatchJob]:
    run_id = new_id()
    async with database.transaction(scope) as tx:
        await WorkQueue().enqueue_bill_batches(tx, run_id=run_id, batches=batches, delay=delay)
    return [BillBatchJob(scope, run_id, batch) for batch in batches]


async def rows(url: str) -> Sequence[asyncpg.Record]:
    async with connected(url) as connection:
        return await connection.fetch(
            "SELECT *, execute_after - updated AS delay FROM pgqueuer ORDER BY id"
        )


async def only_row(url: str, **state: object) -> asyncpg.Record:
    """Return the queue's one row when its columns have come to these values."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            [row] = await rows(url)
            if all(row[column] == value for column, value in state.items()):
                return row


async def make_due(url: str, *, attempts: int) -> None:
    """Put a job that waits for its next attempt to its turn; nothing tells workers of updates."""
    async with connected(url) as connection:
        await connection.execute(
            "UPDATE pgqueuer SET attempts = $1, execute_after = now(), updated = now()", attempts
        )
        await connection.execute("SELECT pg_notify('ch_pgqueuer', $1)", TABLE_CHANGED)


async def lose_connections(url: str) -> None:
    """End every connection of the service, the worker's to its queue among them."""
    async with connected(url) as connection:
        pids = await connection.fetch(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'billing-service'"
        )
    await terminate(url, *[row["pid"] for row in pids])


class TestBillBatchJob:
    @pytest.mark.parametrize(
        "scope", [LIVE, TEST, Scope("\N{SNOWMAN} \"quoted\" 'tenant'", livemode=False)], ids=str
    )
    def test_it_comes_back_from_its_payload(self, scope: Scope) -> None:
        job = BillBatchJob(scope, new_id(), 41)

        assert BillBatchJob.from_payload(job.to_payload()) == job


class TestEnqueue:
    async def test_jobs_exist_once_their_transaction_commits(
        self, database: Database, queue_url: str
    ) -> None:
        run_id = new_id()
        async with database.transaction(TEST) as tx:
            await WorkQueue().enqueue_bill_batches(tx, run_id=run_id, batches=[2, 0, 1])
            assert await rows(queue_url) == []

        queued = await rows(queue_url)
        assert [BillBatchJob.from_payload(row["payload"]) for row in queued] == [
            BillBatchJob(TEST, run_id, batch) for batch in (2, 0, 1)
        ]
        assert {(r["entrypoint"], r["status"], r["delay"]) for r in queued} == {
            (BILL_BATCH, "queued", timedelta(0))
        }

    async def test_a_transaction_rolled_back_leaves_none(
        self, database: Database, queue_url: str
    ) -> None:
        async def fail() -> None:
            async with database.transaction(LIVE) as tx:
                await WorkQueue().enqueue_bill_batches(tx, run_id=new_id(), batches=[0])
                raise LookupError

        with pytest.raises(LookupError):
            await fail()

        assert await rows(queue_url) == []

    async def test_a_delay_is_kept(self, database: Database, queue_url: str) -> None:
        await enqueue(database, 0, delay=timedelta(minutes=1))

        [row] = await rows(queue_url)
        assert row["delay"] == timedelta(minutes=1)

    async def test_no_batches_are_no_jobs(self, database: Database, queue_url: str) -> None:
        await enqueue(database)

        assert await rows(queue_url) == []


class TestWorker:
    async def test_it_does_each_job_once_and_clears_the_queue(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        """Two of them, at jobs that were there before and at jobs that come later."""
        jobs = await enqueue(database, 0, 1, 2)
        async with working(database, execution), working(database, execution):
            for _ in jobs:
                await execution.next_begun()
            jobs += await enqueue(database, *range(10), scope=TEST)
            for _ in range(10):
                await execution.next_begun()

        assert Counter(execution.ended) == Counter(jobs)
        assert await rows(queue_url) == []

    async def test_a_job_that_fails_is_tried_again_later_and_later(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        execution.failing = True
        [job] = await enqueue(database, 0)
        async with working(database, execution):
            for attempts, delay_seconds in ((0, 1), (1, 2), (2, 4), (50, 60)):
                if attempts > 0:
                    await make_due(queue_url, attempts=attempts)
                assert await execution.next_begun() == job
                row = await only_row(queue_url, attempts=attempts + 1)
                assert row["status"] == "queued"
                assert row["delay"] == timedelta(seconds=delay_seconds)

            execution.failing = False
            await make_due(queue_url, attempts=1)
            assert await execution.next_begun() == job

        assert execution.ended == [job]
        assert await rows(queue_url) == []

    async def test_a_job_that_fails_holds_up_nobody(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        execution.failing = True
        await enqueue(database, 0)
        async with working(database, execution):
            await execution.next_begun()
            await only_row(queue_url, attempts=1)
            execution.failing = False
            [other] = await enqueue(database, 1)
            while other not in execution.ended:
                await execution.next_begun()

    async def test_a_job_that_cannot_be_read_is_held_for_people(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        async with connected(queue_url) as connection:
            await Queries(AsyncpgDriver(connection)).enqueue(BILL_BATCH, b"{}")
        async with working(database, execution):
            await only_row(queue_url, status="failed")

        assert execution.begun.empty()

    async def test_stopped_it_ends_its_jobs_and_takes_no_other(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        """It is stopped with its hands full, so that it is not about to take another job."""
        execution.may_end.clear()
        *taken, left = await enqueue(database, *range(MOST_JOBS_AT_ONCE + 1))
        worker = new_worker(database, execution)
        task = asyncio.create_task(worker.run())
        for _ in taken:
            await execution.next_begun()

        worker.stop()
        execution.may_end.set()
        await asyncio.wait_for(task, DEADLINE_SECONDS)

        assert Counter(execution.ended) == Counter(taken)
        [row] = await rows(queue_url)
        assert BillBatchJob.from_payload(row["payload"]) == left
        assert row["status"] == "queued"

    async def test_stopped_before_its_start_it_does_nothing(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        await enqueue(database, 0)
        worker = new_worker(database, execution)
        worker.stop()

        await asyncio.wait_for(worker.run(), DEADLINE_SECONDS)

        assert execution.begun.empty()
        assert len(await rows(queue_url)) == 1

    async def test_cancelled_it_leaves_its_job_to_others(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        """As when a process is told to end a second time: then all of its tasks are cancelled."""
        before = asyncio.all_tasks()
        execution.may_end.clear()
        [job] = await enqueue(database, 0)
        task = asyncio.create_task(new_worker(database, execution).run())
        await execution.next_begun()

        for running in asyncio.all_tasks() - before:
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, DEADLINE_SECONDS)

        assert len(await rows(queue_url)) == 1
        execution.may_end.set()
        async with working(database, execution):
            assert await execution.next_begun() == job

    async def test_a_dead_workers_job_is_done_by_another(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        [job] = await enqueue(database, 0)
        async with connected(queue_url) as connection:
            await connection.execute(
                "UPDATE pgqueuer SET status = 'picked', queue_manager_id = gen_random_uuid(),"
                " heartbeat = now() - interval '1 hour'"
            )

        async with working(database, execution):
            assert await execution.next_begun() == job

    async def test_idle_it_survives_the_loss_of_its_connections(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        """It notices at once, long before it would look at the queue again."""
        await enqueue(database, 0)
        async with working(database, execution, heartbeat_timeout_seconds=600.0):
            await execution.next_begun()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await rows(queue_url):
                    pass
            await lose_connections(queue_url)

            [after] = await enqueue(database, 1)
            assert await execution.next_begun() == after

        assert await rows(queue_url) == []

    async def test_a_job_that_runs_while_the_connection_is_lost_is_not_lost(
        self, database: Database, queue_url: str, execution: ToldExecution
    ) -> None:
        """It is done again: nobody noted its end."""
        execution.may_end.clear()
        [job] = await enqueue(database, 0)
        async with working(database, execution):
            assert await execution.next_begun() == job
            await lose_connections(queue_url)
            execution.may_end.set()
            assert await execution.next_begun() == job

        assert await rows(queue_url) == []
