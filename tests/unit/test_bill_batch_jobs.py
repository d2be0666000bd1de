"""What a worker makes of a job, apart from the job itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from opentelemetry import trace
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from billing.domain import identifiers
from billing.domain.scope import Scope
from billing.observability.metrics import Metrics
from billing.services.billing_execution import BillingExecution
from billing.store.database import Database
from billing.store.work_queue import BillBatchJob
from billing.workers.bill_batches import BillBatchWorker
from tests.factories.spans import recording, trace_id

BATCH = BillBatchJob(Scope("acme", livemode=True), identifiers.new_id(), batch=3)
TRACE = f"{0xABCDEF:032x}"
NOW = datetime(2026, 3, 15, tzinfo=UTC)


class Execution:
    """Fails as it is told."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self._failure = failure

    async def bill_batch(self, scope: Scope, run_id: object, *, batch: int) -> None:
        assert (scope, run_id, batch) == (BATCH.scope, BATCH.run_id, BATCH.batch)
        if self._failure is not None:
            raise self._failure


def job(payload: bytes, headers: dict[str, object] | None = None, *, attempts: int = 0) -> Job:
    """A job as the queue hands it out."""
    fields: dict[str, Any] = {
        "id": 7,
        "priority": 0,
        "created": NOW,
        "updated": NOW,
        "heartbeat": NOW,
        "execute_after": NOW,
        "status": "picked",
        "entrypoint": "bill_batch",
        "payload": payload,
        "attempts": attempts,
        "queue_manager_id": None,
        "headers": headers,
    }
    return Job.model_validate(fields)


async def work(metrics: Metrics, a_job: Job, failure: BaseException | None = None) -> None:
    """Let a worker do a job."""
    worker = BillBatchWorker(
        cast("Database", None),
        cast("BillingExecution", Execution(failure)),
        metrics,
        concurrency=1,
        heartbeat_timeout_seconds=30.0,
    )
    await worker._bill_batch(a_job)


def counts(metrics: Metrics) -> dict[str, float | None]:
    """The jobs counted, by outcome."""
    return {
        outcome: metrics.registry.get_sample_value(
            "billing_job_duration_seconds_count", {"task": "bill_batch", "outcome": outcome}
        )
        for outcome in ("succeeded", "retried", "stopped", "failed")
    }


async def test_a_job_joins_the_trace_that_it_was_made_in() -> None:
    metrics = Metrics()
    parent = {"traceparent": f"00-{TRACE}-{0x123:016x}-01"}
    with recording() as spans:
        await work(metrics, job(BATCH.to_payload(), cast("dict[str, object]", parent)))
        await work(metrics, job(BATCH.to_payload()))
    joined, alone = spans.named("process bill_batch")
    assert trace_id(joined) == TRACE
    assert joined.parent is not None
    assert joined.parent.span_id == 0x123
    assert alone.parent is None
    assert joined.attributes is not None
    assert joined.attributes["billing.run_id"] == identifiers.to_typeid("run", BATCH.run_id)
    assert joined.attributes["billing.batch"] == 3
    assert counts(metrics) == {"succeeded": 2, "retried": 0, "stopped": 0, "failed": 0}


async def test_a_batch_that_fails_comes_again_ever_later() -> None:
    metrics = Metrics()
    for attempts, seconds in [(0, 1), (3, 8), (30, 60)]:
        with recording() as spans, pytest.raises(RetryRequested) as retried:
            await work(
                metrics, job(BATCH.to_payload(), attempts=attempts), RuntimeError("no database")
            )
        assert retried.value.delay == timedelta(seconds=seconds)
        assert spans.one("process bill_batch").status.status_code is trace.StatusCode.ERROR
    assert counts(metrics) == {"succeeded": 0, "retried": 3, "stopped": 0, "failed": 0}


async def test_a_job_that_names_no_batch_is_not_tried_again() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="Expecting value"):
        await work(metrics, job(b"no batch"))
    assert counts(metrics) == {"succeeded": 0, "retried": 0, "stopped": 0, "failed": 1}


async def test_a_job_that_is_cut_short_by_the_end_of_the_process_is_no_failure() -> None:
    metrics = Metrics()
    with pytest.raises(RetryRequested) as handed_back:
        await work(metrics, job(BATCH.to_payload()), asyncio.CancelledError())
    assert handed_back.value.delay == timedelta(0)
    assert counts(metrics) == {"succeeded": 0, "retried": 0, "stopped": 1, "failed": 0}
