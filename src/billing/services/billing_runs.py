"""Use cases of billing runs: start them, wait for them, tell what became of them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from opentelemetry import trace

from billing.domain import identifiers
from billing.domain.billing_runs import (
    BillingRun,
    BillingRunResult,
    BillingRunResultStatus,
    BillingRunStatus,
    BillingRunType,
)
from billing.domain.errors import BillingPeriodTaken, FieldInvalid, NoBillingPeriodDue
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription, SubscriptionStatus
from billing.services.billing_execution import BillingExecution
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock, Metering
from billing.store.billing_periods import BillingPeriodStore
from billing.store.billing_runs import BillingRunStore, DuePeriod
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.subscriptions import SubscriptionStore
from billing.store.work_queue import WorkQueue

_FIRST_POLL_SECONDS: Final = 0.02
_SLOWEST_POLL_SECONDS: Final = 0.5
_MAX_LEAD: Final = timedelta(days=3653)
_RESCUE_DELAY: Final = timedelta(minutes=1)
"""When a worker looks after a run that is billed in the call itself: its server may have died."""


class BillingRunService:
    """Starts billing runs and reads them."""

    def __init__(
        self,
        database: Database,
        runs: BillingRunStore,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        queue: WorkQueue,
        execution: BillingExecution,
        idempotency: Idempotency,
        metering: Metering,
        clock: Clock,
        *,
        batch_size: int,
    ) -> None:
        self._database = database
        self._runs = runs
        self._subscriptions = subscriptions
        self._periods = periods
        self._queue = queue
        self._execution = execution
        self._idempotency = idempotency
        self._metering = metering
        self._clock = clock
        self._batch_size = batch_size

    async def run_billing(
        self,
        scope: Scope,
        *,
        run_type: BillingRunType,
        as_of: datetime | None,
        wait_timeout_seconds: float,
        request: IdempotentRequest,
    ) -> BillingRun:
        """Start a run of all due periods, wait for its end, and return it as it stands.

        Raises FieldInvalid where ``as_of`` lies in the future of live data.
        """
        deadline = asyncio.get_running_loop().time() + wait_timeout_seconds
        # A caller that goes away stops nothing, not even a run that is just being started.
        run_id = await asyncio.shield(
            self._start(scope, run_type=run_type, as_of=as_of, request=request)
        )
        return await self._wait(scope, run_id, deadline=deadline)

    @retried_on_conflict
    async def _start(
        self,
        scope: Scope,
        *,
        run_type: BillingRunType,
        as_of: datetime | None,
        request: IdempotentRequest,
    ) -> UUID:
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, UUID)
            if answer is not None:
                return answer
            now = self._clock()
            run = _new_run(run_type, _checked_as_of(scope, as_of, now=now), now=now)
            await self._runs.insert_run(tx, run)
            await self._take_due_periods(tx, run, now=now)
            await self._idempotency.store_answer(tx, request, run.id, now=now)
            return run.id

    async def _take_due_periods(self, tx: Transaction, run: BillingRun, *, now: datetime) -> None:
        """Give every due period and every undelivered invoice to the run, batch by batch."""
        batches: list[int] = []
        taken_count = skipped_count = 0
        for undelivered in (False, True):
            after: UUID | None = None
            while periods := await self._next_slice(tx, run, after, undelivered=undelivered):
                batch = len(batches)
                taken = await self._runs.claim_periods(
                    tx, run_id=run.id, batch=batch, periods=periods
                )
                rest = [p for p in periods if p.billing_period_id not in taken]
                if rest:
                    skipped_count += await self._runs.insert_skipped_results(
                        tx, run_id=run.id, batch=batch, periods=rest, now=now
                    )
                taken_count += len(taken)
                batches.append(batch)
                last = periods[-1]
                after = last.billing_period_id if undelivered else last.subscription_id
        await self._queue.enqueue_bill_batches(tx, run_id=run.id, batches=batches)
        status = await self._runs.update_progress(
            tx,
            run_id=run.id,
            added_count=taken_count + skipped_count,
            succeeded_count=0,
            failed_count=0,
            skipped_count=skipped_count,
            now=now,
        )
        if status is not BillingRunStatus.RUNNING:  # there was nothing to do
            tell = self._metering.record_billing_run
            tx.after_commit.append(
                partial(tell, tx.scope.tenant_id, run.run_type, status, seconds=0.0)
            )

    async def _next_slice(
        self, tx: Transaction, run: BillingRun, after: UUID | None, *, undelivered: bool
    ) -> list[DuePeriod]:
        if undelivered:
            return await self._runs.list_undelivered_periods(
                tx, after=after, limit=self._batch_size
            )
        return await self._runs.list_due_periods(
            tx, as_of=run.as_of, after=after, limit=self._batch_size
        )

    async def _wait(self, scope: Scope, run_id: UUID, *, deadline: float) -> BillingRun:
        """Return the run when it has ended, or as it stands when the time is up.

        Reads the run again and again: workers may live in other processes.
        """
        loop = asyncio.get_running_loop()
        pause_seconds = _FIRST_POLL_SECONDS
        while True:
            with trace.use_span(trace.INVALID_SPAN):  # hundreds of looks would bury the trace
                run = await self.get_billing_run(scope, run_id)
            left_seconds = deadline - loop.time()
            if run.status is not BillingRunStatus.RUNNING or left_seconds <= 0:
                return run
            await asyncio.sleep(min(pause_seconds, left_seconds))
            pause_seconds = min(pause_seconds * 1.5, _SLOWEST_POLL_SECONDS)

    async def run_billing_for_subscription(
        self, scope: Scope, subscription_id: UUID, *, request: IdempotentRequest
    ) -> BillingRunResult:
        """Bill the oldest due period of a subscription, and return the result.

        Raises ResourceNotFound, SubscriptionNotActive, NoBillingPeriodDue or BillingPeriodTaken.
        """
        run_id = await self._start_for_subscription(scope, subscription_id, request)
        await self._execution.bill_batch(scope, run_id, batch=0)
        async with self._database.transaction(scope) as tx:
            page = await self._runs.list_results(tx, PageRequest(1), run_id=run_id)
            return page.items[0]

    @retried_on_conflict
    async def _start_for_subscription(
        self, scope: Scope, subscription_id: UUID, request: IdempotentRequest
    ) -> UUID:
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, UUID)
            if answer is not None:
                return answer
            now = self._clock()
            period_id = await self._oldest_billable_period(tx, subscription, now=now)
            run_id = await self.start_single(tx, subscription, [period_id], as_of=now)
            await self._idempotency.store_answer(tx, request, run_id, now=now)
            return run_id

    async def _oldest_billable_period(
        self, tx: Transaction, subscription: Subscription, *, now: datetime
    ) -> UUID:
        """The current period if it is due, or else the oldest one that lacks its invoice.

        A refused invoice does not keep the next period from being billed.
        """
        is_active = subscription.status is SubscriptionStatus.ACTIVE
        if is_active and subscription.current_period_end <= now:
            return subscription.current_period_id
        closed = await self._periods.list_closed_periods(tx, [subscription.id])
        for period in closed.get(subscription.id, ()):
            if period.awaits_invoice:
                return period.id
        subscription.require_active()
        raise NoBillingPeriodDue(
            subscription_id=subscription.typeid,
            current_period_end=subscription.current_period_end,
        )

    async def start_single(
        self,
        tx: Transaction,
        subscription: Subscription,
        billing_period_ids: Sequence[UUID],
        *,
        as_of: datetime,
    ) -> UUID:
        """Start a run of type SINGLE for periods of a locked subscription; return its id.

        The caller bills batch 0 after the commit; the queue makes sure that somebody does.
        Raises BillingPeriodTaken where another run has the first period.
        """
        now = self._clock()
        run = _new_run(BillingRunType.SINGLE, as_of, now=now)
        await self._runs.insert_run(tx, run)
        periods = [DuePeriod(subscription.id, period_id) for period_id in billing_period_ids]
        taken = await self._runs.claim_periods(tx, run_id=run.id, batch=0, periods=periods)
        if billing_period_ids[0] not in taken:
            owner = await self._runs.find_owner(tx, billing_period_ids[0])
            raise BillingPeriodTaken(
                subscription_id=subscription.typeid,
                run_id=identifiers.to_typeid(identifiers.BILLING_RUN, owner) if owner else "",
            )
        await self._queue.enqueue_bill_batches(tx, run_id=run.id, batches=[0], delay=_RESCUE_DELAY)
        await self._runs.update_progress(
            tx,
            run_id=run.id,
            added_count=len(taken),
            succeeded_count=0,
            failed_count=0,
            skipped_count=0,
            now=now,
        )
        return run.id

    async def get_billing_run(self, scope: Scope, run_id: UUID) -> BillingRun:
        """Return a run; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._runs.get_run(tx, run_id)

    async def get_billing_run_with_results(
        self, scope: Scope, run_id: UUID, page: PageRequest
    ) -> tuple[BillingRun, Page[BillingRunResult]]:
        """Return a run with a page of its results; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            run = await self._runs.get_run(tx, run_id)
            return run, await self._runs.list_results(tx, page, run_id=run_id)

    async def list_billing_runs(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        status: BillingRunStatus | None,
        run_type: BillingRunType | None,
    ) -> Page[BillingRun]:
        """Return a page of runs, newest first."""
        async with self._database.transaction(scope) as tx:
            return await self._runs.list_runs(tx, page, status=status, run_type=run_type)

    async def list_billing_run_results(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        run_id: UUID,
        status: BillingRunResultStatus | None,
    ) -> Page[BillingRunResult]:
        """Return a page of a run's results; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._runs.get_run(tx, run_id)
            return await self._runs.list_results(tx, page, run_id=run_id, status=status)


def _new_run(run_type: BillingRunType, as_of: datetime, *, now: datetime) -> BillingRun:
    return BillingRun(
        id=identifiers.new_id(),
        run_type=run_type,
        status=BillingRunStatus.RUNNING,
        as_of=as_of,
        started_at=now,
        completed_at=None,
        succeeded_count=0,
        failed_count=0,
        skipped_count=0,
        pending_count=0,
    )


def _checked_as_of(scope: Scope, as_of: datetime | None, *, now: datetime) -> datetime:
    if as_of is None:
        return now
    if as_of > now + _MAX_LEAD:
        raise FieldInvalid("as_of", f"{as_of.isoformat()} lies more than ten years ahead")
    if scope.livemode and as_of > now:
        raise FieldInvalid(
            "as_of",
            f"{as_of.isoformat()} lies in the future, which only test data may be billed for; "
            f"the server's clock says {now.isoformat()}",
        )
    return as_of
