"""Use cases that correct stored usage events: amend, void."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.domain import identifiers
from billing.domain.calculation_errors import UsageEventAlreadyVoided, UsageEventUnchanged
from billing.domain.catalog import Component
from billing.domain.ledger import (
    LedgerAccountKind,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
)
from billing.domain.money import EXACT, plain
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.domain.usage import UsageEvent, UsageTally
from billing.domain.usage_corrections import UsageEventCorrection, UsageEventCorrectionType
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.credit_reassignment import CreditReassigner
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.services.realtime_credits import AddedCost, Payer, RealtimeCredits
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger import NewLedgerEntry
from billing.store.subscriptions import SubscriptionStore
from billing.store.usage import UsageStore
from billing.store.usage_corrections import UsageCorrectionStore


class UsageCorrectionService:
    """Says what usage events should have been; in a billed period, a recalculation takes it in."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        usage: UsageStore,
        corrections: UsageCorrectionStore,
        credit_reader: CreditReader,
        posting: CreditPosting,
        reassigner: CreditReassigner,
        expiry: CreditExpiry,
        realtime_credits: RealtimeCredits,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._usage = usage
        self._corrections = corrections
        self._credit_reader = credit_reader
        self._posting = posting
        self._reassigner = reassigner
        self._expiry = expiry
        self._realtime_credits = realtime_credits
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def correct_usage_event(
        self,
        scope: Scope,
        usage_event_id: UUID,
        correction_type: UsageEventCorrectionType,
        *,
        quantity: Decimal,
        reason: str,
        corrected_by_user_id: str,
        request: IdempotentRequest | None = None,
    ) -> UsageEventCorrection:
        """Let an event count with another quantity; a void one with none, for good.

        Raises ResourceNotFound, UsageEventAlreadyVoided, UsageEventUnchanged, AmountOutOfRange.
        """
        async with self._database.transaction(scope) as tx:
            event = await self._usage.get_event(tx, usage_event_id)
            subscription = await self._subscriptions.lock_subscription(tx, event.subscription_id)
            answer = await self._idempotency.find_answer(tx, request, UsageEventCorrection)
            if answer is not None:
                return answer
            now = self._clock()
            event = await self._usage.get_event(tx, usage_event_id)
            _require_change(event, correction_type, quantity)
            period, _ = await self._periods.get_period(tx, subscription.id, event.billing_period_id)
            if not period.is_closed:
                await self._expiry.settle_overdue(tx, [subscription], now=now)
            correction = _new_correction(
                event,
                correction_type,
                quantity,
                reason=reason,
                by_user_id=corrected_by_user_id,
                is_pending=period.is_closed,
                now=now,
            )
            posted = await self._post(tx, subscription, period, event, correction, now=now)
            await self._idempotency.store_answer(tx, request, posted, now=now)
            return posted

    async def list_usage_event_corrections(
        self, scope: Scope, page: PageRequest, *, usage_event_id: UUID
    ) -> Page[UsageEventCorrection]:
        """Return a page of an event's corrections, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._usage.get_event(tx, usage_event_id)
            return await self._corrections.list_corrections(tx, page, usage_event_id=usage_event_id)

    async def _post(
        self,
        tx: Transaction,
        subscription: Subscription,
        period: BillingPeriod,
        event: UsageEvent,
        correction: UsageEventCorrection,
        *,
        now: datetime,
    ) -> UsageEventCorrection:
        """Write a correction with its entry, and move what pays the usage of an open period."""
        version, tallies = await self._period_reader.read_usage(tx, subscription, period)
        tally = tallies[event.component_id]
        change = EXACT.subtract(correction.quantity_after, correction.quantity_before)
        cost_change = (tally.hold_correction if period.is_closed else tally.correct)(change)
        await self._usage.upsert_tallies(tx, [(subscription.id, tally)], now=now)
        journal, transaction_id = await self._posting.open_transaction(
            tx,
            subscription,
            f"Correction of usage: {correction.correction_type}",
            LedgerSourceType.USAGE_EVENT_CORRECTION,
            correction.id,
            now=now,
        )
        correction = replace(
            correction, cost_change_minor=cost_change, ledger_transaction_id=transaction_id
        )
        await self._corrections.insert_correction(tx, correction)
        entries = journal.pending if period.is_closed else journal.posted
        entries.append(_to_entry(correction, subscription, tally, journal))
        await self._posting.write(tx, journal)
        if not period.is_closed and cost_change < 0:
            rated_minor = {owner: one.rated_minor for owner, one in tallies.items()}
            await self._release(
                tx, subscription, period, version.components, rated_minor, correction, now=now
            )
        elif not period.is_closed and cost_change > 0:
            await self._pay(tx, subscription, event, correction, now=now)
        return correction

    async def _release(
        self,
        tx: Transaction,
        subscription: Subscription,
        period: BillingPeriod,
        components: Sequence[Component],
        rated_minor: Mapping[UUID, int],
        correction: UsageEventCorrection,
        *,
        now: datetime,
    ) -> None:
        """Take back what credits pay too much, if they pay anything: reading usage is not cheap."""
        if not await self._credit_reader.has_releasable(tx, period):
            return
        covered = await self._credit_reader.read_covered_period(tx, period, components, rated_minor)
        journal = await self._posting.open_journal(tx, [subscription.currency], now=now)
        await self._reassigner.release(
            tx,
            journal,
            subscription,
            covered,
            ledger_transaction_id=correction.ledger_transaction_id,
            calculation_run_id=identifiers.new_id(),
        )
        await self._posting.write(tx, journal)

    async def _pay(
        self,
        tx: Transaction,
        subscription: Subscription,
        event: UsageEvent,
        correction: UsageEventCorrection,
        *,
        now: datetime,
    ) -> None:
        """Let the credits of a pay-as-you-go subscription pay what its usage costs more."""
        open_periods = await self._period_reader.read_open_periods(tx, [subscription])
        payer = Payer(subscription, open_periods[subscription.id], correction.ledger_transaction_id)
        cost = AddedCost(event.component_id, event.event_timestamp, correction.cost_change_minor)
        await self._realtime_credits.pay(
            tx, [payer], {correction.billing_period_id: [cost]}, now=now
        )


def _require_change(
    event: UsageEvent, correction_type: UsageEventCorrectionType, quantity: Decimal
) -> None:
    typeid = identifiers.to_typeid(identifiers.USAGE_EVENT, event.id)
    if event.is_voided:
        raise UsageEventAlreadyVoided(usage_event_id=typeid)
    is_amendment = correction_type is UsageEventCorrectionType.AMENDMENT
    if is_amendment and quantity == event.corrected_quantity:
        raise UsageEventUnchanged(usage_event_id=typeid, quantity=plain(quantity))


def _new_correction(
    event: UsageEvent,
    correction_type: UsageEventCorrectionType,
    quantity: Decimal,
    *,
    reason: str,
    by_user_id: str,
    is_pending: bool,
    now: datetime,
) -> UsageEventCorrection:
    """Return a correction whose cost and ledger transaction are not known yet."""
    correction_id = identifiers.new_id()
    return UsageEventCorrection(
        id=correction_id,
        usage_event_id=event.id,
        subscription_id=event.subscription_id,
        billing_period_id=event.billing_period_id,
        correction_type=correction_type,
        quantity_before=event.corrected_quantity,
        quantity_after=quantity,
        cost_change_minor=0,
        currency=event.currency,
        reason=reason,
        corrected_by_user_id=by_user_id,
        status=LedgerEntryStatus.PENDING if is_pending else LedgerEntryStatus.POSTED,
        taken_in_at=None,
        ledger_transaction_id=correction_id,
        corrected_at=now,
    )


def _to_entry(
    correction: UsageEventCorrection,
    subscription: Subscription,
    tally: UsageTally,
    journal: CreditJournal,
) -> NewLedgerEntry:
    """The subscription owes more or less for its usage. The entry has the correction's id."""
    receivable = subscription.receivable_account_id
    revenue = journal.accounts[subscription.currency][LedgerAccountKind.USAGE_REVENUE]
    costs_more = correction.cost_change_minor >= 0
    return NewLedgerEntry(
        subscription.id,
        correction.ledger_transaction_id,
        correction.id,
        LedgerEntryType.USAGE_COST_CORRECTED,
        -correction.cost_change_minor,
        correction.currency,
        debit_account_id=receivable if costs_more else revenue,
        credit_account_id=revenue if costs_more else receivable,
        description=f"{tally.component.name}: {correction.reason}"[:500],
        source_usage_event_id=correction.usage_event_id,
        billing_period_id=correction.billing_period_id,
        usage_meter_id=tally.component.usage_meter_id,
    )
