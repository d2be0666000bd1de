"""Use cases that change the value of usage credits: void, adjust."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_errors import (
    CreditBalanceInsufficient,
    CreditFullyUsed,
    require_currency,
)
from billing.domain.credits import (
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentDirection,
    CreditBalanceAdjustmentType,
    UsageCredit,
    new_adjustment,
)
from billing.domain.ledger import LedgerAccountKind, LedgerSourceType
from billing.domain.money import checked_amount
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services import credit_entries
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.credit_applications import CreditApplicationStore
from billing.store.credits import CreditStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger import LedgerEntryKey
from billing.store.payments import RefundStore
from billing.store.subscriptions import SubscriptionStore


class AdjustedCredit(NamedTuple):
    """An adjustment, and the credit after it."""

    adjustment: CreditBalanceAdjustment
    credit: UsageCredit


class CreditAdjustmentService:
    """Changes what usage credits are worth."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        credits_: CreditStore,
        applications: CreditApplicationStore,
        refunds: RefundStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._credits = credits_
        self._applications = applications
        self._refunds = refunds
        self._posting = posting
        self._expiry = expiry
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def void_credit(
        self,
        scope: Scope,
        usage_credit_id: UUID,
        *,
        reason: str,
        voided_by_user_id: str,
        request: IdempotentRequest | None = None,
    ) -> UsageCredit:
        """Take what is left of a credit, also what pending refunds hold of it.

        Raises ResourceNotFound, CreditAlreadyVoided, CreditAlreadyExpired, or CreditFullyUsed.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._lock_owner(tx, usage_credit_id)
            answer = await self._idempotency.find_answer(tx, request, UsageCredit)
            if answer is not None:
                return answer
            now = self._clock()
            credit = await self._lock_up_to_date(tx, subscription, usage_credit_id, now=now)
            credit.require_alive(now)
            value_minor = credit.remaining_minor + credit.held_minor
            if value_minor == 0:
                raise CreditFullyUsed(
                    usage_credit_id=credit.typeid, issued_minor=credit.issued_minor
                )
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                "Credit voided",
                LedgerSourceType.CREDIT_VOID,
                credit.id,
                now=now,
            )
            await self._discard_holds(tx, journal, credit)
            adjustment = new_adjustment(
                credit,
                transaction_id,
                CreditBalanceAdjustmentType.VOID,
                value_minor,
                reason=reason,
                by_user_id=voided_by_user_id,
                now=now,
            )
            accounts = journal.accounts[credit.currency]
            journal.adjustments.append(adjustment)
            journal.posted.append(
                credit_entries.decreased(credit, adjustment, value_minor, accounts)
            )
            change = journal.change(credit)
            change.remaining_minor -= value_minor
            change.voided_at = now
            await self._posting.write(tx, journal)
            voided = await self._credits.get_credit(tx, credit.id)
            await self._idempotency.store_answer(tx, request, voided, now=now)
            return voided

    @retried_on_conflict
    async def adjust_credit_balance(
        self,
        scope: Scope,
        usage_credit_id: UUID,
        *,
        adjustment_type: CreditBalanceAdjustmentType,
        direction: CreditBalanceAdjustmentDirection,
        amount_minor: int,
        currency: str,
        reason: str,
        adjusted_by_user_id: str,
        allow_deficit: bool,
        notes: str = "",
        metadata: Mapping[str, str] | None = None,
        request: IdempotentRequest | None = None,
    ) -> AdjustedCredit:
        """Change the value of a credit.

        A decrease beyond what is left is charged to the subscription, if that is allowed. Raises
        ResourceNotFound, CurrencyMismatch, CreditAlreadyVoided, CreditAlreadyExpired,
        CreditBalanceInsufficient, or AmountOutOfRange for a deficit that no invoice can hold.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._lock_owner(tx, usage_credit_id)
            answer = await self._idempotency.find_answer(tx, request, AdjustedCredit)
            if answer is not None:
                return answer
            now = self._clock()
            credit = await self._lock_up_to_date(tx, subscription, usage_credit_id, now=now)
            require_currency(currency, credit.currency, of=credit.typeid)
            credit.require_alive(now)
            deficit_minor = 0
            if direction is CreditBalanceAdjustmentDirection.DECREASE:
                deficit_minor = max(0, amount_minor - credit.remaining_minor)
            if deficit_minor > 0 and not allow_deficit:
                raise CreditBalanceInsufficient(
                    usage_credit_id=credit.typeid,
                    amount_minor=amount_minor,
                    remaining_minor=credit.remaining_minor,
                )
            await self._require_room(tx, subscription, deficit_minor)
            adjustment_id = identifiers.new_id()
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                "Credit adjusted",
                LedgerSourceType.CREDIT_BALANCE_ADJUSTMENT,
                adjustment_id,
                now=now,
            )
            adjustment = replace(
                new_adjustment(
                    credit,
                    transaction_id,
                    adjustment_type,
                    amount_minor,
                    reason=reason,
                    by_user_id=adjusted_by_user_id,
                    now=now,
                ),
                id=adjustment_id,
                direction=direction,
                deficit_minor=deficit_minor,
                notes=notes,
                metadata=metadata or {},
            )
            _journalize_adjustment(journal, credit, adjustment, subscription)
            await self._posting.write(tx, journal)
            adjusted = AdjustedCredit(adjustment, await self._credits.get_credit(tx, credit.id))
            await self._idempotency.store_answer(tx, request, adjusted, now=now)
            return adjusted

    async def list_credit_balance_adjustments(
        self, scope: Scope, page: PageRequest, *, usage_credit_id: UUID
    ) -> Page[CreditBalanceAdjustment]:
        """Return a page of a credit's adjustments, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._credits.get_credit(tx, usage_credit_id)
            return await self._applications.list_adjustments(
                tx, page, usage_credit_id=usage_credit_id
            )

    async def _require_room(
        self, tx: Transaction, subscription: Subscription, deficit_minor: int
    ) -> None:
        """Raise AmountOutOfRange for a deficit that its period's invoice could not hold."""
        if deficit_minor > 0:
            period, _ = await self._periods.get_period(
                tx, subscription.id, subscription.current_period_id
            )
            checked_amount(period.receivable_minor + deficit_minor)

    async def _lock_owner(self, tx: Transaction, usage_credit_id: UUID) -> Subscription:
        """Lock the subscription of a credit: whoever changes the credit's value has this lock."""
        credit = await self._credits.get_credit(tx, usage_credit_id)
        return await self._subscriptions.lock_subscription(tx, credit.subscription_id)

    async def _lock_up_to_date(
        self, tx: Transaction, subscription: Subscription, usage_credit_id: UUID, *, now: datetime
    ) -> UsageCredit:
        """Return a credit after all that is over by now has expired."""
        await self._expiry.settle_overdue(tx, [subscription], now=now)
        return await self._credits.lock_credit(tx, usage_credit_id)

    async def _discard_holds(
        self, tx: Transaction, journal: CreditJournal, credit: UsageCredit
    ) -> None:
        """Take from pending refunds what they hold of a credit: they are given then."""
        for refund in await self._refunds.list_pending_of_credit(tx, credit.id):
            if refund.clawed_back_minor == 0:
                continue
            hold_id = await self._applications.find_adjustment_of_refund(tx, refund.id)
            assert hold_id is not None, "a refund that holds value has its adjustment"
            journal.to_discard.append(
                LedgerEntryKey(refund.subscription_id, refund.ledger_transaction_id, hold_id)
            )
            journal.hold(credit, -refund.clawed_back_minor)
            await self._refunds.update_refund(
                tx, replace(refund, clawed_back_minor=0, updated_at=journal.now)
            )


def _journalize_adjustment(
    journal: CreditJournal,
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    subscription: Subscription,
) -> None:
    accounts = journal.accounts[credit.currency]
    journal.adjustments.append(adjustment)
    if adjustment.direction is CreditBalanceAdjustmentDirection.INCREASE:
        journal.posted.append(credit_entries.increased(credit, adjustment, accounts))
        journal.change(credit).remaining_minor += adjustment.adjusted_minor
        return
    taken_minor = adjustment.adjusted_minor - adjustment.deficit_minor
    if taken_minor > 0:
        journal.posted.append(credit_entries.decreased(credit, adjustment, taken_minor, accounts))
        journal.change(credit).remaining_minor -= taken_minor
    if adjustment.deficit_minor > 0:
        # The current period of a cancelled subscription is its last one.
        period_id = subscription.current_period_id
        taker = accounts[LedgerAccountKind.PROMOTIONAL_EXPENSE]
        journal.posted.append(
            credit_entries.deficit(
                credit, adjustment, subscription, taker, billing_period_id=period_id
            )
        )
        journal.receivables[period_id] += adjustment.deficit_minor
