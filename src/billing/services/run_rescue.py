"""Looks after billing runs that nobody works on any more."""

import logging
from datetime import timedelta
from typing import Final

from billing.domain.scope import Scope
from billing.services.ports import Clock
from billing.store.billing_runs import BillingRunStore
from billing.store.database import Database
from billing.store.tenants import TenantStore
from billing.store.work_queue import WorkQueue

_logger = logging.getLogger(__name__)

_PATIENCE: Final = timedelta(minutes=1)
"""How long a run may have pending results before they are given jobs again."""


class RunRescue:
    """Gives batches of running runs a job, should they have lost theirs.

    The queue takes up the jobs of dead workers by itself. This is for a job that is gone: held
    after
    a failure of the queue itself, or removed by hand.
    """

    def __init__(
        self,
        database: Database,
        tenants: TenantStore,
        runs: BillingRunStore,
        queue: WorkQueue,
        clock: Clock,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._runs = runs
        self._queue = queue
        self._clock = clock

    async def rescue_runs(self) -> None:
        """Look through every scope; a batch that has its job keeps it."""
        async with self._database.unscoped_connection() as pg:
            scopes = await self._tenants.list_scopes(pg)
        for scope in scopes:
            try:
                await self._rescue_scope(scope)
            except Exception:
                _logger.exception("runs of tenant %s cannot be looked after", scope.tenant_id)

    async def _rescue_scope(self, scope: Scope) -> None:
        async with self._database.transaction(scope) as tx:
            unfinished = await self._runs.list_unfinished_batches(
                tx, started_before=self._clock() - _PATIENCE
            )
            for run_id, batches in unfinished.items():
                await self._queue.enqueue_bill_batches(tx, run_id=run_id, batches=batches)
