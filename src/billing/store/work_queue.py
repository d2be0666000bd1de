"""The queue of billing batches: pgqueuer's tables, written in our own transactions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pgqueuer import Queries
from pgqueuer.db import AsyncpgDriver

from billing.domain.scope import Scope
from billing.store.database import Transaction

BILL_BATCH: Final = "bill_batch"
"""The queue's name of the job that brings one batch of results to its outcome."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_READ_BACKLOG: Final = """
SELECT count(*) FILTER (WHERE status = 'queued' AND execute_after <= now()),
       count(*) FILTER (WHERE status = 'queued' AND execute_after > now()),
       count(*) FILTER (WHERE status = 'picked'),
       count(*) FILTER (WHERE status = 'failed'),
       coalesce(
           extract(
               epoch FROM now() - min(created) FILTER (WHERE status IN ('queued', 'picked'))
           ),
           0
       )::float8
FROM pgqueuer
WHERE entrypoint = $1
"""


@dataclass(frozen=True, slots=True)
class BillBatchJob:
    """Names one batch of one billing run."""

    scope: Scope
    run_id: UUID
    batch: int

    @property
    def key(self) -> str:
        """What makes two jobs the same: there is one of them in the queue at a time."""
        return f"{self.run_id}/{self.batch}"

    def to_payload(self) -> bytes:
        """Encode the job for the queue."""
        return json.dumps(
            {
                "tenant_id": self.scope.tenant_id,
                "livemode": self.scope.livemode,
                "run_id": str(self.run_id),
                "batch": self.batch,
            }
        ).encode()

    @classmethod
    def from_payload(cls, payload: bytes) -> "BillBatchJob":
        """Decode the job."""
        fields = json.loads(payload)
        scope = Scope(fields["tenant_id"], fields["livemode"])
        return cls(scope, UUID(fields["run_id"]), fields["batch"])


class Backlog(NamedTuple):
    """How many jobs of a kind there are, and for how long the oldest has not been done.

    ``waiting`` jobs could be taken, ``delayed`` ones later; ``taken`` ones are at work; ``held``
    ones failed in a way that no attempt mends, and somebody has to look.
    """

    waiting: int
    delayed: int
    taken: int
    held: int
    oldest_seconds: float


class WorkQueue:
    """Adds jobs to the queue; they exist if and when the transaction commits."""

    async def enqueue_bill_batches(
        self,
        tx: Transaction,
        *,
        run_id: UUID,
        batches: Sequence[int],
        delay: timedelta = timedelta(0),
    ) -> None:
        """Add a job for each batch that has none, to be taken after ``delay``.

        A job carries the trace that it is made in (W3C ``traceparent``), so that its work joins it.
        """
        if not batches:
            return
        jobs = [BillBatchJob(tx.scope, run_id, batch) for batch in batches]
        count = len(jobs)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers)
        await Queries(AsyncpgDriver(tx.pg)).enqueue(
            [BILL_BATCH] * count,
            [job.to_payload() for job in jobs],
            [0] * count,
            execute_after=[delay] * count,
            dedupe_key=[job.key for job in jobs],
            headers=[headers or None] * count,
            on_conflict="skip",
        )

    async def read_backlog(
        self, pg: "asyncpg.Connection[asyncpg.Record]", entrypoint: str
    ) -> Backlog:
        """Return what waits to be done, of all tenants: the queue is outside row security."""
        record = await pg.fetchrow(_READ_BACKLOG, entrypoint)
        assert record is not None
        return Backlog(*record.values())
