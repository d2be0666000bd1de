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
from billing.domain.credit_consumption import PeriodCredits
from billing.domain.credits import (
    CreditApplicationKind,
    CreditTerms,
    UsageCredit,
    UsageCreditType,
    new_credit,
)
from billing.domain.errors import BillingError, SubscriptionUnbillable
from billing.domain.ledger import LedgerAccountKind, LedgerEntryType, LedgerSourceType
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription, SubscriptionStatus
from billing.domain.usage import UsageTally
from billing.services import credit_entries
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.credit_reading import CreditReader
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
from billing.store.calculations import CalculationStore
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
        calculations: CalculationStore,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        credit_reader: CreditReader,
        ledger: LedgerStore,
        credit_posting: CreditPosting,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._bills = bills
        self._calculations = calculations
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._credit_reader = credit_reader
        self._ledger = ledger
        self._credit_posting = credit_posting
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
        period_credits = await self._credit_reader.read_period_credits(
            tx, [open_periods[owner.id].oldest for owner in owners], tallies, now=now
        )
        bills: list[tuple[UUID, PeriodBill]] = []
        outcomes: list[CompletedResult] = []
        for result, subscription in zip(results, owners, strict=True):
            bill = _bill(
                tx.scope,
                subscription,
                open_periods[subscription.id],
                tallies.get(subscription.id, {}),
                period_credits,
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
        await self._calculations.supersede_estimates(
            tx,
            [bill.subscription.id for bill in bills],
            calculation_run_ids=[bill.calculation_run_id for bill in bills],
        )
        await self._post_entries(tx, run, bills, now=now)
        await self._periods.insert_invoice_requests(tx, bills, now=now)
        await self._periods.close_periods(tx, bills, now=now)

    async def _post_entries(
        self, tx: Transaction, run: BillingRun, bills: Sequence[PeriodBill], *, now: datetime
    ) -> None:
        """Post what is not in the ledger yet, in one ledger transaction a period."""
        posted = [
            (bill, NewLedgerTransaction(identifiers.new_id(), bill.subscription.id, _title(bill)))
            for bill in bills
            if bill.posts_entries
        ]
        if not posted:
            return
        await self._ledger.insert_transactions(
            tx,
            [transaction for _, transaction in posted],
            source_type=LedgerSourceType.BILLING_RUN,
            source_id=run.id,
            now=now,
        )
        currencies = {bill.subscription.currency for bill, _ in posted}
        journal = await self._credit_posting.open_journal(tx, currencies, now=now)
        for bill, transaction in posted:
            _journalize(journal, bill, transaction.id)
        # Closing the periods writes what they are owed, all in all.
        journal.receivables.clear()
        await self._credit_posting.write(tx, journal)

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
    period_credits: Mapping[UUID, PeriodCredits],
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
            period_credits[period.id],
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


def _journalize(journal: CreditJournal, bill: PeriodBill, ledger_transaction_id: UUID) -> None:
    """Note all that billing a period posts: charges, what credits pay, surplus, expiries."""
    subscription = bill.subscription
    revenue = journal.accounts[subscription.currency][LedgerAccountKind.SUBSCRIPTION_REVENUE]
    for charge in bill.recurring_charges:
        journal.posted.append(_to_entry(bill, charge, ledger_transaction_id, revenue))
    journal.apply(
        bill.applications,
        subscription,
        ledger_transaction_id,
        kind=CreditApplicationKind.RUN,
        billing_period_id=bill.period.id,
        calculation_run_id=bill.calculation_run_id,
    )
    for credit, left_minor in bill.expiries:
        journal.expire(credit, left_minor, ledger_transaction_id)
    if bill.surplus_minor > 0:
        surplus = _surplus_credit(bill, now=journal.now)
        journal.credits.append(surplus)
        journal.posted.append(
            credit_entries.carried(
                surplus,
                subscription,
                ledger_transaction_id,
                billing_period_id=bill.period.id,
                calculation_run_id=bill.calculation_run_id,
            )
        )


def _to_entry(
    bill: PeriodBill, charge: Charge, ledger_transaction_id: UUID, revenue_account_id: UUID
) -> NewLedgerEntry:
    assert charge.ledger_entry_id is not None, "a charge that is posted has an entry"
    receivable, revenue = bill.subscription.receivable_account_id, revenue_account_id
    is_owed = charge.amount_minor > 0
    return NewLedgerEntry(
        bill.subscription.id,
        ledger_transaction_id,
        charge.ledger_entry_id,
        LedgerEntryType.CHARGE_BILLED,
        -charge.amount_minor,
        bill.subscription.currency,
        debit_account_id=receivable if is_owed else revenue,
        credit_account_id=revenue if is_owed else receivable,
        description=charge.description,
        source_charge_id=charge.id,
        billing_period_id=bill.period.id,
        calculation_run_id=bill.calculation_run_id,
    )


def _surplus_credit(bill: PeriodBill, *, now: datetime) -> UsageCredit:
    terms = CreditTerms(
        subscription_id=bill.subscription.id,
        credit_type=UsageCreditType.SURPLUS,
        issued_minor=bill.surplus_minor,
        currency=bill.subscription.currency,
        # Of the period's end, whenever that is billed: periods missed since use it too.
        effective_at=bill.period.period_end,
        source_reference_id=bill.period.typeid,
    )
    return new_credit(terms, now=now)


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
