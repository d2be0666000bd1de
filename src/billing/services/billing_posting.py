"""Posts billing periods: charges, ledger entries, calculations, the stored invoice request.

A set of subscriptions at a time, in the caller's transaction and under its locks.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import Charge, PeriodBill, bill_period
from billing.domain.billing_runs import BillingRun, BillingRunResultStatus, BillingRunType
from billing.domain.errors import BillingError, SubscriptionUnbillable
from billing.domain.ledger import POSTING_RULES, LedgerEntryType, LedgerSourceType
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription, SubscriptionStatus
from billing.domain.usage import UsageTally
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.billing_runs import (
    BillingRunStore,
    CompletedResult,
    DuePeriod,
    PendingResult,
)
from billing.store.bills import BillStore
from billing.store.database import Transaction
from billing.store.ledger import LedgerStore, NewLedgerEntry, NewLedgerTransaction
from billing.store.subscriptions import SubscriptionStore

_logger = logging.getLogger(__name__)

_Tallies = Mapping[tuple[UUID, UUID], UsageTally]


@dataclass(frozen=True, slots=True)
class Posted:
    """What posting did: bills by result, outcomes so far, and results added for further periods."""

    bills: list[tuple[UUID, PeriodBill]]
    results: list[CompletedResult]
    added_count: int


class BillingPosting:
    """Turns due periods into facts."""

    def __init__(
        self,
        runs: BillingRunStore,
        bills: BillStore,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        ledger: LedgerStore,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._bills = bills
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._ledger = ledger
        self._clock = clock

    async def post_periods(
        self,
        tx: Transaction,
        run: BillingRun,
        subscriptions: Mapping[UUID, Subscription],
        results: Sequence[PendingResult],
        *,
        batch: int,
    ) -> Posted:
        """Bill the current period of each result's subscription; the subscriptions are locked.

        A subscription that cannot be billed becomes a failed result and stops nobody else. The
        next period of a batch run's subscription joins the run if it is due as well.
        """
        if not results:
            return Posted([], [], 0)
        now = self._clock()
        owners = [subscriptions[result.subscription_id] for result in results]
        open_periods = await self._period_reader.read_open_periods(tx, owners)
        tallies = await self._period_reader.read_tallies(tx, open_periods)
        bills: list[tuple[UUID, PeriodBill]] = []
        outcomes: list[CompletedResult] = []
        for result, subscription in zip(results, owners, strict=True):
            bill = _bill(
                tx.scope,
                subscription,
                open_periods[subscription.id],
                tallies.get(subscription.id, {}),
                now=now,
            )
            if isinstance(bill, BillingError):
                outcomes.append(CompletedResult.failed(result.id, bill))
            else:
                bills.append((result.id, bill))
                outcomes.append(_outcome(result, bill))
        await self._write(tx, run, [bill for _, bill in bills], now=now)
        following = await self._advance(tx, run, bills, open_periods, now=now)
        added = await self._runs.claim_periods(tx, run_id=run.id, batch=batch, periods=following)
        return Posted(bills, outcomes, len(added))

    async def _write(
        self, tx: Transaction, run: BillingRun, bills: Sequence[PeriodBill], *, now: datetime
    ) -> None:
        if not bills:
            return
        await self._bills.insert_bills(tx, run_id=run.id, bills=bills, now=now)
        await self._post_charges(tx, run, bills, now=now)
        await self._periods.insert_invoice_requests(tx, bills, now=now)
        await self._periods.close_periods(tx, bills, now=now)

    async def _post_charges(
        self, tx: Transaction, run: BillingRun, bills: Sequence[PeriodBill], *, now: datetime
    ) -> None:
        """Post what is not in the ledger yet, in one ledger transaction a period."""
        charged = [
            (bill, NewLedgerTransaction(identifiers.new_id(), bill.subscription.id, _title(bill)))
            for bill in bills
            if bill.recurring_charges
        ]
        if not charged:
            return
        await self._ledger.insert_transactions(
            tx,
            [transaction for _, transaction in charged],
            source_type=LedgerSourceType.BILLING_RUN,
            source_id=run.id,
            now=now,
        )
        revenue_accounts = {
            currency: await self._ledger.get_tenant_account(
                tx, POSTING_RULES[LedgerEntryType.CHARGE_BILLED].credit, currency
            )
            for currency in {bill.subscription.currency for bill, _ in charged}
        }
        entries = [
            _to_entry(bill, charge, transaction, revenue_accounts[bill.subscription.currency])
            for bill, transaction in charged
            for charge in bill.recurring_charges
        ]
        await self._ledger.insert_entries(tx, entries, now=now)

    async def _advance(
        self,
        tx: Transaction,
        run: BillingRun,
        bills: Sequence[tuple[UUID, PeriodBill]],
        open_periods: Mapping[UUID, OpenPeriods],
        *,
        now: datetime,
    ) -> list[DuePeriod]:
        """Move subscriptions to their next periods; return those that are due in the same run."""
        opened: list[BillingPeriod] = []
        advanced: list[Subscription] = []
        following: list[DuePeriod] = []
        for _, bill in bills:
            subscription = bill.subscription
            if _is_last(subscription, bill.period):
                advanced.append(_cancelled(subscription, now=now))
                continue
            period = _next_period(open_periods[subscription.id])
            opened.extend(open_periods[subscription.id].opened)
            advanced.append(_moved(subscription, period, now=now))
            if _joins(run, subscription, period):
                following.append(DuePeriod(subscription.id, period.id))
        await self._periods.insert_periods(tx, opened)
        await self._subscriptions.update_subscriptions(tx, advanced)
        return following


def _bill(
    scope: Scope,
    subscription: Subscription,
    open_periods: OpenPeriods,
    tallies: _Tallies,
    *,
    now: datetime,
) -> PeriodBill | BillingError:
    period = open_periods.oldest
    try:
        return bill_period(
            scope,
            subscription,
            period,
            open_periods.version_of(period),
            {component: t for (owner, component), t in tallies.items() if owner == period.id},
            billed_at=now,
        )
    except BillingError as error:
        return error
    except Exception:
        _logger.exception("subscription %s cannot be billed", subscription.typeid)
        return SubscriptionUnbillable(subscription_id=subscription.typeid)


def _outcome(result: PendingResult, bill: PeriodBill) -> CompletedResult:
    """A bill without invoice is done; one with an invoice stays pending until its delivery."""
    done = bill.invoice_request is None
    return CompletedResult(
        result.id,
        BillingRunResultStatus.SUCCEEDED if done else BillingRunResultStatus.PENDING,
        total_minor=bill.total_minor,
        calculation_run_id=bill.calculation_run_id,
    )


def _title(bill: PeriodBill) -> str:
    return f"Billing of {bill.period.period_start:%Y-%m-%d} to {bill.period.period_end:%Y-%m-%d}"


def _to_entry(
    bill: PeriodBill, charge: Charge, transaction: NewLedgerTransaction, revenue_account_id: UUID
) -> NewLedgerEntry:
    return NewLedgerEntry(
        subscription_id=bill.subscription.id,
        ledger_transaction_id=transaction.id,
        id=identifiers.new_id(),
        entry_type=LedgerEntryType.CHARGE_BILLED,
        amount=-charge.amount_minor,
        currency=bill.subscription.currency,
        debit_account_id=bill.subscription.receivable_account_id,
        credit_account_id=revenue_account_id,
        source_usage_event_id=None,
        source_charge_id=charge.id,
        billing_period_id=bill.period.id,
        usage_meter_id=None,
        calculation_run_id=bill.calculation_run_id,
        description=charge.description,
    )


def _is_last(subscription: Subscription, period: BillingPeriod) -> bool:
    return subscription.cancel_at is not None and period.period_end >= subscription.cancel_at


def _next_period(open_periods: OpenPeriods) -> BillingPeriod:
    if len(open_periods.periods) > 1:
        return open_periods.periods[1]
    return open_periods.open_following()


def _joins(run: BillingRun, subscription: Subscription, period: BillingPeriod) -> bool:
    """Whether a batch run goes on with the next period: missed periods are billed oldest first."""
    return (
        run.run_type is not BillingRunType.SINGLE
        and subscription.status is SubscriptionStatus.ACTIVE
        and period.period_end <= run.as_of
    )


def _moved(subscription: Subscription, period: BillingPeriod, *, now: datetime) -> Subscription:
    return replace(
        subscription,
        plan_version_id=period.plan_version_id,
        current_period_id=period.id,
        current_period_start=period.period_start,
        current_period_end=period.period_end,
        updated_at=now,
    )


def _cancelled(subscription: Subscription, *, now: datetime) -> Subscription:
    return replace(
        subscription,
        status=SubscriptionStatus.CANCELLED,
        paused_at=None,
        cancelled_at=subscription.cancel_at,
        updated_at=now,
    )
