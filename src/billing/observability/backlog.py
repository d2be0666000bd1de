"""What waits to be done, read now and then: jobs of the queue, and what is not delivered."""

import asyncio
import logging
import time
from typing import Final

from billing.observability.metrics import Metrics
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Database
from billing.store.recalculations import RecalculationStore
from billing.store.tenants import TenantStore
from billing.store.work_queue import BILL_BATCH, WorkQueue

_PAUSE_SECONDS: Final = 15.0
_PAUSE_FACTOR: Final = 20.0
"""With many tenants a look takes longer: then it is rarer, and never more than a twentieth."""

_logger = logging.getLogger(__name__)


class BacklogWatch:
    """Reads the backlog into the metrics until it is cancelled.

    From a task and not when Prometheus asks: a scrape must not wait for the database, nor could the
    thread that answers it use the event loop's connections.
    """

    def __init__(
        self,
        database: Database,
        queue: WorkQueue,
        tenants: TenantStore,
        periods: BillingPeriodStore,
        recalculations: RecalculationStore,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._queue = queue
        self._tenants = tenants
        self._periods = periods
        self._recalculations = recalculations
        self._metrics = metrics

    async def run(self) -> None:
        """Look again and again."""
        while True:
            began_at = time.monotonic()
            try:
                await self.look()
            except Exception:
                _logger.warning("the backlog cannot be read", exc_info=True)
                self._metrics.forget_backlog()
            took_seconds = time.monotonic() - began_at
            await asyncio.sleep(max(_PAUSE_SECONDS, _PAUSE_FACTOR * took_seconds))

    async def look(self) -> None:
        """Read once; one transaction a scope, because each sees its own data alone."""
        async with self._database.unscoped_connection() as pg:
            backlog = await self._queue.read_backlog(pg, BILL_BATCH)
            scopes = await self._tenants.list_scopes(pg)
        self._metrics.record_backlog(BILL_BATCH, backlog)
        invoices = documents = 0
        for scope in scopes:
            async with self._database.transaction(scope) as tx:
                invoices += await self._periods.count_undelivered(tx)
                documents += await self._recalculations.count_undelivered(tx)
        self._metrics.record_undelivered_invoices(invoices)
        self._metrics.record_undelivered_documents(documents)
