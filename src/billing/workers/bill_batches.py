"""Takes batches of billing runs off the queue, in as many processes as there are.

A job only names its batch: results live in our tables, so a job may run twice, or again after its
worker died, and finds what is left to do.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from pgqueuer import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from billing.services.billing_execution import BillingExecution
from billing.store.database import Database
from billing.store.work_queue import BILL_BATCH, BillBatchJob

_logger = logging.getLogger(__name__)

_MAX_RETRY_SECONDS: Final = 60
_RESTART_SECONDS: Final = 1.0


class BillBatchWorker:
    """Brings queued batches to their outcomes until it is stopped."""

    def __init__(
        self,
        database: Database,
        execution: BillingExecution,
        *,
        concurrency: int,
        heartbeat_timeout_seconds: float,
    ) -> None:
        self._database = database
        self._execution = execution
        self._concurrency = concurrency
        self._heartbeat_timeout = timedelta(seconds=heartbeat_timeout_seconds)
        self._stopping = asyncio.Event()
        self._manager: QueueManager | None = None

    def stop(self) -> None:
        """Take no further job; ``run`` returns when those taken are done."""
        self._stopping.set()
        if self._manager is not None:
            self._manager.shutdown.set()

    async def run(self) -> None:
        """Work until ``stop``; after a lost database connection, begin anew with another."""
        while not self._stopping.is_set():
            try:
                async with self._database.dedicated_connection() as connection:
                    await self._work(QueueManager(Queries(AsyncpgDriver(connection))))
            except Exception:
                _logger.warning("the worker lost its queue and begins anew", exc_info=True)
                await self._pause()

    async def _work(self, manager: QueueManager) -> None:
        self._manager = manager
        if self._stopping.is_set():
            return
        manager.entrypoint(BILL_BATCH, on_failure="hold")(self._bill_batch)
        await manager.run(
            batch_size=self._concurrency,
            max_concurrent_tasks=2 * self._concurrency,
            heartbeat_timeout=self._heartbeat_timeout,
            shutdown_on_listener_failure=True,
        )

    async def _bill_batch(self, job: Job) -> None:
        assert job.payload is not None, "every job names its batch"
        batch = BillBatchJob.from_payload(job.payload)
        try:
            await self._execution.bill_batch(batch.scope, batch.run_id, batch=batch.batch)
        except Exception as error:
            _logger.exception("batch %s of billing run %s failed", batch.batch, batch.run_id)
            delay_seconds = min(2**job.attempts, _MAX_RETRY_SECONDS)
            raise RetryRequested(timedelta(seconds=delay_seconds), reason=str(error)) from error

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), _RESTART_SECONDS)
        except TimeoutError:
            return
