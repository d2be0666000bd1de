"""Takes batches of billing runs off the queue, in as many processes as there are.

A job only names its batch: results live in our tables, so a job may run twice, or again after its
worker died, and finds what is left to do.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import asyncpg
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pgqueuer import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from billing.domain import identifiers
from billing.domain.errors import DatabaseUnavailable
from billing.observability.metrics import Metrics
from billing.observability.tracing import name_trace_in_logs
from billing.services.billing_execution import BillingExecution
from billing.store.database import Database
from billing.store.work_queue import BILL_BATCH, BillBatchJob

_logger = logging.getLogger(__name__)

_MAX_RETRY_SECONDS: Final = 60
_RESTART_SECONDS: Final = 1.0
_TRACER: Final = trace.get_tracer(__name__)
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class BillBatchWorker:
    """Brings queued batches to their outcomes until it is stopped."""

    def __init__(
        self,
        database: Database,
        execution: BillingExecution,
        metrics: Metrics,
        *,
        concurrency: int,
        heartbeat_timeout_seconds: float,
    ) -> None:
        self._database = database
        self._execution = execution
        self._metrics = metrics
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
                    await self._work(connection)
            except Exception as error:
                # A database that does not answer says so every second; its traceback says no more.
                unforeseen = not isinstance(error, DatabaseUnavailable | ConnectionError)
                _logger.warning(
                    "the worker lost its queue and begins anew: %s", error, exc_info=unforeseen
                )
                await self._pause()

    async def _work(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        manager = QueueManager(Queries(AsyncpgDriver(connection)))
        # Idle, the manager would not look at its connection for half a minute.
        connection.add_termination_listener(lambda _: manager.shutdown.set())
        self._manager = manager
        if self._stopping.is_set():
            return
        manager.entrypoint(BILL_BATCH, on_failure="hold")(self._bill_batch)
        await manager.run(
            batch_size=self._concurrency,
            max_concurrent_tasks=2 * self._concurrency,
            heartbeat_timeout=self._heartbeat_timeout,
            # How often an idle worker looks for the batches of dead ones: nothing announces those.
            dequeue_timeout=self._heartbeat_timeout,
            shutdown_on_listener_failure=True,
        )
        if not self._stopping.is_set():
            raise ConnectionError("the queue's connection was closed")

    async def _bill_batch(self, job: Job) -> None:
        with _spanned(job) as span, self._timed():
            assert job.payload is not None, "every job names its batch"
            batch = BillBatchJob.from_payload(job.payload)
            span.set_attributes(_attributes(batch))
            try:
                await self._execution.bill_batch(batch.scope, batch.run_id, batch=batch.batch)
            except asyncio.CancelledError as cancelled:
                # The process ends. pgqueuer would note the job as cancelled, and delete it.
                raise RetryRequested(timedelta(0), reason="the worker was stopped") from cancelled
            except Exception as error:
                _logger.exception("batch %s of billing run %s failed", batch.batch, batch.run_id)
                delay_seconds = min(2**job.attempts, _MAX_RETRY_SECONDS)
                raise RetryRequested(timedelta(seconds=delay_seconds), reason=str(error)) from error

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Time a job by its outcome."""
        began_at = time.monotonic()
        outcome = "stopped"
        try:
            yield
            outcome = "succeeded"
        except Exception as error:
            outcome = _outcome(error)
            raise
        finally:
            self._metrics.record_job(BILL_BATCH, outcome, seconds=time.monotonic() - began_at)

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), _RESTART_SECONDS)
        except TimeoutError:
            return


def _outcome(error: Exception) -> str:
    if not isinstance(error, RetryRequested):
        return "failed"
    return "stopped" if isinstance(error.__cause__, asyncio.CancelledError) else "retried"


@contextmanager
def _spanned(job: Job) -> Iterator[trace.Span]:
    """Join the trace that the job was made in: that of the call which started the run."""
    with _TRACER.start_as_current_span(
        f"process {BILL_BATCH}",
        context=_PROPAGATOR.extract(job.headers or {}),
        kind=trace.SpanKind.CONSUMER,
        attributes={
            "messaging.system": "pgqueuer",
            "messaging.destination.name": BILL_BATCH,
            "messaging.message.id": str(job.id),
            "billing.job.attempts": job.attempts,
        },
    ) as span:
        name_trace_in_logs(span)
        yield span


def _attributes(batch: BillBatchJob) -> dict[str, str | bool | int]:
    return {
        "billing.tenant_id": batch.scope.tenant_id,
        "billing.livemode": batch.scope.livemode,
        "billing.run_id": identifiers.to_typeid(identifiers.BILLING_RUN, batch.run_id),
        "billing.batch": batch.batch,
    }
