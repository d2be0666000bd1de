"""The queue of billing batches: pgqueuer's tables, written in our own transactions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from pgqueuer import Queries
from pgqueuer.db import AsyncpgDriver

from billing.domain.scope import Scope
from billing.store.database import Transaction

BILL_BATCH: Final = "bill_batch"
"""The queue's name of the job that brings one batch of results to its outcome."""


@dataclass(frozen=True, slots=True)
class BillBatchJob:
    """Names one batch of one billing run."""

    scope: Scope
    run_id: UUID
    batch: int

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
        """Add a job for each batch, to be taken after ``delay``."""
        if not batches:
            return
        count = len(batches)
        await Queries(AsyncpgDriver(tx.pg)).enqueue(
            [BILL_BATCH] * count,
            [BillBatchJob(tx.scope, run_id, batch).to_payload() for batch in batches],
            [0] * count,
            execute_after=[delay] * count,
        )
