"""Use cases of calculations: estimate an open period, look calculations up."""

from datetime import datetime
from uuid import UUID

from billing.domain.billing import CalculationStatus, CalculationType, PeriodBill, bill_period
from billing.domain.calculation_errors import (
    BillingPeriodNotOpen,
    EarlierPeriodOpen,
    SubscriptionHasNoOpenPeriod,
)
from billing.domain.calculations import Estimate, KeptCalculation
from billing.domain.ledger import LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import OpenPeriods
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services.credit_journal import CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.bills import BillOrigin, BillStore, CalculatedPeriod
from billing.store.calculations import CalculationStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.subscriptions import SubscriptionStore


class CalculationService:
    """Estimates what open periods cost, and tells every calculation that was made."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        credit_reader: CreditReader,
        bills: BillStore,
        calculations: CalculationStore,
        posting: CreditPosting,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._credit_reader = credit_reader
        self._bills = bills
        self._calculations = calculations
        self._posting = posting
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def estimate_billing_period(
        self,
        scope: Scope,
        subscription_id: UUID,
        *,
        billing_period_id: UUID | None,
        request: IdempotentRequest | None = None,
    ) -> Estimate:
        """Compute what the current period would cost now, and hold the credits that would pay it.

        Raises ResourceNotFound, SubscriptionHasNoOpenPeriod, BillingPeriodNotOpen,
        EarlierPeriodOpen, AmountOutOfRange.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Estimate)
            if answer is not None:
                return answer
            now = self._clock()
            listed = await self._period_reader.read_open_periods(tx, [subscription])
            open_periods = listed[subscription.id]
            await self._require_current(tx, subscription, open_periods, billing_period_id)
            bill = await self._compute(tx, subscription, open_periods, now=now)
            estimate = await self._write(tx, bill, now=now)
            await self._idempotency.store_answer(tx, request, estimate, now=now)
            return estimate

    async def get_calculation(
        self, scope: Scope, calculation_id: UUID
    ) -> tuple[KeptCalculation, list[KeptCalculation]]:
        """Return a calculation, and what it replaced, latest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            calculation = await self._calculations.get_calculation(tx, calculation_id)
            return calculation, await self._calculations.list_superseded(tx, calculation)

    async def list_calculations(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        component_id: UUID | None,
        status: CalculationStatus | None,
    ) -> Page[KeptCalculation]:
        """Return a page of a subscription's calculations, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._calculations.list_calculations(
                tx,
                page,
                subscription_id=subscription_id,
                billing_period_id=billing_period_id,
                component_id=component_id,
                status=status,
            )

    async def _require_current(
        self,
        tx: Transaction,
        subscription: Subscription,
        open_periods: OpenPeriods,
        billing_period_id: UUID | None,
    ) -> None:
        """Raise unless the period, if one is named, is the oldest that is not billed."""
        if billing_period_id is None:
            if not open_periods.periods:
                raise SubscriptionHasNoOpenPeriod(subscription_id=subscription.typeid)
            return
        period, _ = await self._periods.get_period(tx, subscription.id, billing_period_id)
        if period.is_closed:
            raise BillingPeriodNotOpen(billing_period_id=period.typeid, status=period.status)
        if period.id != open_periods.oldest.id:
            raise EarlierPeriodOpen(
                billing_period_id=period.typeid, earlier_period_id=open_periods.oldest.typeid
            )

    async def _compute(
        self,
        tx: Transaction,
        subscription: Subscription,
        open_periods: OpenPeriods,
        *,
        now: datetime,
    ) -> PeriodBill:
        """Bill the current period, on paper; the last estimate gives back what it held."""
        period = open_periods.oldest
        tallies = await self._period_reader.read_tallies(tx, {subscription.id: open_periods})
        credits_ = await self._credit_reader.read_period_credits(tx, [period], tallies, now=now)
        by_component = {
            component_id: tally
            for (owner, component_id), tally in tallies.get(subscription.id, {}).items()
            if owner == period.id
        }
        return bill_period(
            tx.scope,
            subscription,
            period,
            open_periods.version_of(period),
            by_component,
            credits_[period.id],
            billed_at=now,
        )

    async def _write(self, tx: Transaction, bill: PeriodBill, *, now: datetime) -> Estimate:
        """Write the calculations of a bill on paper, and hold what its applications would take."""
        subscription, period = bill.subscription, bill.period
        calculated = CalculatedPeriod(
            bill.calculation_run_id,
            subscription.id,
            period.id,
            subscription.currency,
            bill.calculations,
        )
        origin = BillOrigin(CalculationType.INTERIM_ESTIMATE)
        await self._bills.insert_calculations(tx, origin, [calculated], now=now)
        await self._calculations.supersede_estimates(
            tx, [subscription.id], calculation_run_ids=[bill.calculation_run_id]
        )
        if bill.applications:
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                f"Estimate of {period.period_start:%Y-%m-%d} to {period.period_end:%Y-%m-%d}",
                LedgerSourceType.ESTIMATE,
                bill.calculation_run_id,
                now=now,
            )
            journal.estimate(
                bill.applications,
                subscription,
                transaction_id,
                billing_period_id=period.id,
                calculation_run_id=bill.calculation_run_id,
            )
            await self._posting.write(tx, journal)
        return Estimate(
            calculation_run_id=bill.calculation_run_id,
            subscription_id=subscription.id,
            billing_period_id=period.id,
            currency=subscription.currency,
            charges=bill.charges,
            total_minor=bill.total_minor,
            receivable_minor=bill.receivable_minor,
            surplus_minor=bill.surplus_minor,
            held_minor=sum(application.amount_minor for application in bill.applications),
            calculations=tuple(await self._calculations.list_of_run(tx, bill.calculation_run_id)),
            estimated_at=now,
        )
