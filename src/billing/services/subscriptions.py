"""Use cases of subscriptions: create, pause, resume, cancel."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from dateutil.relativedelta import relativedelta

from billing.domain import identifiers
from billing.domain.errors import FieldInvalid, SubscriptionNotActive
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import SHORTEST_SPAN, OpenPeriods, new_period
from billing.domain.scope import Scope
from billing.domain.subscriptions import (
    CancellationMode,
    CreditApplicationMode,
    Subscription,
    SubscriptionStatus,
)
from billing.domain.usage_meters import SubscriptionOverview
from billing.services.billing_execution import BillingExecution
from billing.services.billing_runs import BillingRunService
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.catalog import CatalogStore
from billing.store.credits import CreditStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.usage_meters import SubscriptionUsageMeterStore

MAX_BACKDATING: Final = relativedelta(years=10)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancellation did; ``run_id`` is the run that billed the cut period, if any."""

    subscription_id: UUID
    run_id: UUID | None


class SubscriptionService:
    """Keeps subscriptions and their states."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        catalog: CatalogStore,
        accounts: LedgerAccountStore,
        usage_meters: SubscriptionUsageMeterStore,
        credits_: CreditStore,
        billing_runs: BillingRunService,
        execution: BillingExecution,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._catalog = catalog
        self._accounts = accounts
        self._usage_meters = usage_meters
        self._credits = credits_
        self._billing_runs = billing_runs
        self._execution = execution
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def create_subscription(
        self,
        scope: Scope,
        *,
        customer_id: str,
        plan_id: UUID,
        started_at: datetime | None,
        credit_application: CreditApplicationMode = CreditApplicationMode.AT_BILLING,
        request: IdempotentRequest | None = None,
    ) -> Subscription:
        """Create an active subscription with its first period.

        Raises ResourceNotFound for an unknown plan, FieldInvalid for a start in the future or
        more than ten years ago.
        """
        async with self._database.transaction(scope) as tx:
            answer = await self._idempotency.find_answer(tx, request, Subscription)
            if answer is not None:
                return answer
            now = self._clock()
            start = _checked_start(started_at, now=now)
            plan = await self._catalog.get_plan(tx, plan_id)
            subscription_id = identifiers.new_id()
            period = new_period(subscription_id, plan.latest_version, start, anchor_at=start)
            account_id = await self._accounts.insert_receivable_account(
                tx, subscription_id=subscription_id, currency=plan.currency, now=now
            )
            subscription = Subscription(
                id=subscription_id,
                customer_id=customer_id,
                plan_id=plan.id,
                plan_version_id=plan.latest_version.id,
                currency=plan.currency,
                status=SubscriptionStatus.ACTIVE,
                started_at=start,
                receivable_account_id=account_id,
                current_period_id=period.id,
                current_period_start=period.period_start,
                current_period_end=period.period_end,
                cancel_at=None,
                paused_at=None,
                cancelled_at=None,
                created_at=now,
                updated_at=now,
                credit_application=credit_application,
            )
            await self._subscriptions.insert_subscription(tx, subscription)
            await self._periods.insert_periods(tx, [period])
            await self._idempotency.store_answer(tx, request, subscription, now=now)
            return subscription

    async def get_subscription(self, scope: Scope, subscription_id: UUID) -> Subscription:
        """Return a subscription; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._subscriptions.get_subscription(tx, subscription_id)

    async def get_overview(self, scope: Scope, subscription_id: UUID) -> SubscriptionOverview:
        """Return a subscription with its current usage and spendable credits.

        Raises ResourceNotFound.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            usage = await self._usage_meters.list_usage_summary(tx, subscription.current_period_id)
            summary = await self._credits.get_summary(
                tx,
                subscription_id=subscription_id,
                currency=subscription.currency,
                now=self._clock(),
            )
        return SubscriptionOverview(
            subscription, usage, summary.available_minor, summary.available_count
        )

    async def list_subscriptions(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        status: SubscriptionStatus | None,
        customer_id: str | None,
    ) -> Page[Subscription]:
        """Return a page of subscriptions, oldest first."""
        async with self._database.transaction(scope) as tx:
            return await self._subscriptions.list_subscriptions(
                tx, page, status=status, customer_id=customer_id
            )

    @retried_on_conflict
    async def pause_subscription(
        self, scope: Scope, subscription_id: UUID, *, request: IdempotentRequest | None = None
    ) -> Subscription:
        """Pause an active subscription.

        Raises ResourceNotFound, SubscriptionNotActive, or SubscriptionCancelling: its last period
        must still be billed, and runs skip paused ones.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Subscription)
            if answer is not None:
                return answer
            now = self._clock()
            subscription.require_active()
            subscription.require_not_cancelling()
            # The periods up to now were active ones, whether or not a run has come to them yet.
            open_periods = await self._read_open_periods(tx, subscription)
            open_periods.open_until(now)
            await self._periods.insert_periods(tx, open_periods.opened)
            paused = replace(
                subscription, status=SubscriptionStatus.PAUSED, paused_at=now, updated_at=now
            )
            await self._subscriptions.update_subscription(tx, paused)
            await self._idempotency.store_answer(tx, request, paused, now=now)
            return paused

    @retried_on_conflict
    async def resume_subscription(
        self, scope: Scope, subscription_id: UUID, *, request: IdempotentRequest | None = None
    ) -> Subscription:
        """Resume a paused subscription; raises ResourceNotFound or SubscriptionNotPaused.

        After its period's end the next period begins now, and counts from now.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Subscription)
            if answer is not None:
                return answer
            now = self._clock()
            subscription.require_paused()
            open_periods = await self._read_open_periods(tx, subscription)
            if open_periods.last.period_end <= now:
                open_periods.open_at(now)
                await self._periods.insert_periods(tx, open_periods.opened)
            active = replace(
                subscription, status=SubscriptionStatus.ACTIVE, paused_at=None, updated_at=now
            )
            await self._subscriptions.update_subscription(tx, active)
            await self._idempotency.store_answer(tx, request, active, now=now)
            return active

    async def cancel_subscription(
        self,
        scope: Scope,
        subscription_id: UUID,
        *,
        mode: CancellationMode,
        request: IdempotentRequest | None = None,
    ) -> tuple[Subscription, UUID | None]:
        """Cancel a subscription and return it as it stands, with the run that billed it.

        At the period's end the run that bills the last period sets it cancelled; immediately, the
        period is cut, billed and invoiced before the answer. Raises ResourceNotFound,
        SubscriptionAlreadyCancelled, or SubscriptionNotActive for a paused one at period end.
        """
        if mode is CancellationMode.AT_PERIOD_END:
            cancellation = await self._cancel_at_period_end(scope, subscription_id, request)
        else:
            cancellation = await self._cut(scope, subscription_id, request)
        if cancellation.run_id is not None:
            await self._execution.bill_batch(scope, cancellation.run_id, batch=0)
        subscription = await self.get_subscription(scope, cancellation.subscription_id)
        return subscription, cancellation.run_id

    @retried_on_conflict
    async def _cancel_at_period_end(
        self, scope: Scope, subscription_id: UUID, request: IdempotentRequest | None
    ) -> Cancellation:
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Cancellation)
            if answer is not None:
                return answer
            now = self._clock()
            subscription.require_not_cancelled()
            if subscription.status is SubscriptionStatus.PAUSED:
                raise SubscriptionNotActive(
                    subscription_id=subscription.typeid, status=subscription.status
                )
            open_periods = await self._read_open_periods(tx, subscription)
            if subscription.cancel_at is None:  # asked again after its end, it stays that end
                open_periods.open_until(now)
            await self._periods.insert_periods(tx, open_periods.opened)
            cancelling = replace(
                subscription, cancel_at=open_periods.last.period_end, updated_at=now
            )
            await self._subscriptions.update_subscription(tx, cancelling)
            cancellation = Cancellation(subscription_id, None)
            await self._idempotency.store_answer(tx, request, cancellation, now=now)
            return cancellation

    @retried_on_conflict
    async def _cut(
        self, scope: Scope, subscription_id: UUID, request: IdempotentRequest | None
    ) -> Cancellation:
        """End the last period now and start the run that bills every open period."""
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Cancellation)
            if answer is not None:
                return answer
            now = self._clock()
            subscription.require_not_cancelled()
            open_periods = await self._read_open_periods(tx, subscription)
            if subscription.status is SubscriptionStatus.ACTIVE and subscription.cancel_at is None:
                open_periods.open_until(now)
            await self._periods.insert_periods(tx, open_periods.opened)
            cancel_at = await self._cut_last_period(tx, open_periods, now=now)
            # Active again if it was paused: should its billing fail, the next run must find it.
            cancelling = replace(
                subscription,
                status=SubscriptionStatus.ACTIVE,
                paused_at=None,
                cancel_at=cancel_at,
                updated_at=now,
            )
            if open_periods.last.id == subscription.current_period_id:
                cancelling = replace(cancelling, current_period_end=cancel_at)
            await self._subscriptions.update_subscription(tx, cancelling)
            run_id = await self._billing_runs.start_single(
                tx,
                subscription,
                [period.id for period in open_periods.periods],
                as_of=max(now, cancel_at),
            )
            cancellation = Cancellation(subscription_id, run_id)
            await self._idempotency.store_answer(tx, request, cancellation, now=now)
            return cancellation

    async def _cut_last_period(
        self, tx: Transaction, open_periods: OpenPeriods, *, now: datetime
    ) -> datetime:
        """End the last period at the moment, or as early as its start lets it; return its end."""
        last = open_periods.last
        period_end = min(last.period_end, max(now, last.period_start + SHORTEST_SPAN))
        if period_end < last.period_end:
            await self._periods.update_period_end(tx, last.id, period_end)
        return period_end

    async def _read_open_periods(self, tx: Transaction, subscription: Subscription) -> OpenPeriods:
        open_periods = await self._period_reader.read_open_periods(tx, [subscription])
        return open_periods[subscription.id]


def _checked_start(started_at: datetime | None, *, now: datetime) -> datetime:
    if started_at is None:
        return now
    if started_at > now:
        raise FieldInvalid(
            "started_at",
            f"{started_at.isoformat()} lies in the future; the server's clock says "
            f"{now.isoformat()}",
        )
    if started_at < now - MAX_BACKDATING:
        raise FieldInvalid("started_at", f"{started_at.isoformat()} lies over ten years ago")
    return started_at
