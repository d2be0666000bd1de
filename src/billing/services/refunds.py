"""Use cases of refunds: begin, confirm, fail.

A refund is one ledger transaction. What it takes back is held as pending entries until the
processor has answered; then they are posted together with what the refund gives, or discarded.
"""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_errors import (
    RefundConfirmedOtherwise,
    RefundExceedsPayment,
    require_currency,
)
from billing.domain.credits import (
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentType,
    UsageCredit,
    new_adjustment,
)
from billing.domain.errors import FieldInvalid
from billing.domain.ledger import LedgerEntry, LedgerEntryType, LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.payments import Payment, Refund, RefundStatus, RefundTerms
from billing.domain.scope import Scope
from billing.domain.settlement import Clawback, new_refund, plan_clawback
from billing.domain.subscriptions import Subscription
from billing.services import credit_entries
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.store.credit_applications import CreditApplicationStore, ReversibleApplication
from billing.store.credits import CreditStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger import LedgerEntryKey, LedgerStore
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.payments import PaymentStore, RefundStore
from billing.store.subscriptions import SubscriptionStore


class RefundService:
    """Keeps refunds, and takes back what their policies say."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        credits_: CreditStore,
        applications: CreditApplicationStore,
        payments: PaymentStore,
        refunds: RefundStore,
        ledger: LedgerStore,
        accounts: LedgerAccountStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._credits = credits_
        self._applications = applications
        self._payments = payments
        self._refunds = refunds
        self._ledger = ledger
        self._accounts = accounts
        self._posting = posting
        self._expiry = expiry
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def create_refund(
        self, scope: Scope, terms: RefundTerms, *, request: IdempotentRequest | None = None
    ) -> Refund:
        """Begin a refund, and hold what it takes back.

        Raises ResourceNotFound, PaymentNotSucceeded, CurrencyMismatch, or RefundExceedsPayment.
        """
        async with self._database.transaction(scope) as tx:
            payment = await self._payments.get_payment(tx, terms.payment_id)
            subscription = await self._subscriptions.lock_subscription(tx, payment.subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Refund)
            if answer is not None:
                return answer
            now = self._clock()
            payment = await self._payments.get_payment(tx, terms.payment_id)
            _require_refundable(payment, terms)
            await self._expiry.settle_overdue(tx, [subscription], now=now)
            assert payment.usage_credit_id is not None, "a confirmed payment has its credit"
            credit = await self._credits.lock_credit(tx, payment.usage_credit_id)
            clawback = plan_clawback(
                terms.credit_policy,
                terms.amount_minor,
                remaining_minor=credit.remaining_minor,
                settlements=await self._applications.list_settlements(tx, credit.id),
            )
            refund = await self._hold(tx, terms, payment, credit, subscription, clawback, now=now)
            await self._idempotency.store_answer(tx, request, refund, now=now)
            return refund

    @retried_on_conflict
    async def confirm_refund(
        self,
        scope: Scope,
        refund_id: UUID,
        *,
        gateway_refund_id: str,
        refund_processed_at: datetime | None,
        request: IdempotentRequest | None = None,
    ) -> Refund:
        """Post what was held, and give the rest.

        A repeat changes nothing. Raises ResourceNotFound, RefundNotPending of a failed one,
        RefundConfirmedOtherwise, GatewayRefundTaken, and FieldInvalid for the future.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._lock_owner(tx, refund_id)
            answer = await self._idempotency.find_answer(tx, request, Refund)
            if answer is not None:
                return answer
            now = self._clock()
            refund = await self._refunds.get_refund(tx, refund_id)
            if refund.status is RefundStatus.SUCCEEDED:
                _require_same_refund(refund, gateway_refund_id)
                await self._idempotency.store_answer(tx, request, refund, now=now)
                return refund
            refund.require_pending()
            if refund_processed_at is not None and refund_processed_at > now:
                raise FieldInvalid(
                    "refund_processed_at",
                    f"{refund_processed_at.isoformat()} lies in the future; the server's clock "
                    f"says {now.isoformat()}",
                )
            confirmed = replace(
                refund,
                status=RefundStatus.SUCCEEDED,
                gateway_refund_id=gateway_refund_id,
                refund_processed_at=refund_processed_at or now,
                updated_at=now,
            )
            # What it takes back is owed from now on: what is over by now has paid without it.
            await self._expiry.settle_overdue(tx, [subscription], now=now)
            await self._refunds.update_refund(tx, confirmed)
            await self._post(tx, confirmed, subscription, now=now)
            await self._idempotency.store_answer(tx, request, confirmed, now=now)
            return confirmed

    @retried_on_conflict
    async def fail_refund(
        self,
        scope: Scope,
        refund_id: UUID,
        *,
        failure_reason: str,
        request: IdempotentRequest | None = None,
    ) -> Refund:
        """Discard what was held; a repeat changes nothing.

        Raises ResourceNotFound, and RefundNotPending of a confirmed one.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._lock_owner(tx, refund_id)
            answer = await self._idempotency.find_answer(tx, request, Refund)
            if answer is not None:
                return answer
            now = self._clock()
            refund = await self._refunds.get_refund(tx, refund_id)
            if refund.status is not RefundStatus.FAILED:
                refund.require_pending()
                # What it held can be spent from now on: what is over by now has paid without it.
                await self._expiry.settle_overdue(tx, [subscription], now=now)
                credit = await self._lock_credit(tx, refund)
                journal = await self._posting.open_journal(tx, [subscription.currency], now=now)
                journal.to_discard += [
                    _key(entry) for entry in await self._list_pending(tx, refund)
                ]
                journal.hold(credit, -refund.clawed_back_minor)
                await self._posting.write(tx, journal)
                refund = replace(
                    refund,
                    status=RefundStatus.FAILED,
                    failure_reason=failure_reason,
                    updated_at=now,
                )
                await self._refunds.update_refund(tx, refund)
            await self._idempotency.store_answer(tx, request, refund, now=now)
            return refund

    async def get_refund(self, scope: Scope, refund_id: UUID) -> Refund:
        """Return a refund; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._refunds.get_refund(tx, refund_id)

    async def list_refunds(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        payment_id: UUID | None,
        status: RefundStatus | None,
    ) -> Page[Refund]:
        """Return a page of a subscription's refunds, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._refunds.list_refunds(
                tx, page, subscription_id=subscription_id, payment_id=payment_id, status=status
            )

    async def _hold(
        self,
        tx: Transaction,
        terms: RefundTerms,
        payment: Payment,
        credit: UsageCredit,
        subscription: Subscription,
        clawback: Clawback[ReversibleApplication],
        *,
        now: datetime,
    ) -> Refund:
        """Write a pending refund with the entries that hold what it takes back."""
        clearing_account_id = await self._clearing_account(tx, subscription, now=now)
        refund_id = identifiers.new_id()
        journal, transaction_id = await self._posting.open_transaction(
            tx,
            subscription,
            f"Refund of {payment.processor_transaction_id}",
            LedgerSourceType.REFUND,
            refund_id,
            now=now,
        )
        refund = new_refund(refund_id, terms, payment, clawback, transaction_id, now=now)
        await self._refunds.insert_refund(tx, refund)
        accounts = journal.accounts[refund.currency]
        journal.pending.append(
            credit_entries.refunded(refund, payment, clearing_account_id, accounts)
        )
        for application, reversed_minor in clawback.reversals:
            journal.pending.append(
                credit_entries.unapplied(
                    application, reversed_minor, credit, subscription, transaction_id
                )
            )
        if clawback.total_minor > 0:
            adjustment = _adjustment(refund, credit, clawback, now=now)
            journal.adjustments.append(adjustment)
            _hold_value(journal, credit, adjustment, clawback, clearing_account_id)
            if clawback.deficit_minor > 0:
                journal.pending.append(
                    credit_entries.deficit(
                        credit,
                        adjustment,
                        subscription,
                        clearing_account_id,
                        billing_period_id=subscription.current_period_id,
                    )
                )
        await self._posting.write(tx, journal)
        return refund

    async def _post(
        self, tx: Transaction, refund: Refund, subscription: Subscription, *, now: datetime
    ) -> None:
        """Post what a refund holds, and what it gives."""
        credit = await self._lock_credit(tx, refund)
        clearing_account_id = await self._clearing_account(tx, subscription, now=now)
        journal = await self._posting.open_journal(tx, [subscription.currency], now=now)
        for entry in await self._list_pending(tx, refund):
            is_deficit = entry.entry_type is LedgerEntryType.CREDIT_DEFICIT_CHARGED
            if is_deficit and entry.billing_period_id != subscription.current_period_id:
                # Its period was billed meanwhile: it is for the next invoice.
                journal.to_discard.append(_key(entry))
                journal.posted.append(
                    credit_entries.moved(entry, billing_period_id=subscription.current_period_id)
                )
                journal.receivables[subscription.current_period_id] -= entry.amount_minor
                continue
            journal.to_post.append(_key(entry))
            if entry.debit_account_id == subscription.receivable_account_id:
                assert entry.billing_period_id is not None, "what is owed is owed for a period"
                journal.receivables[entry.billing_period_id] -= entry.amount_minor
        if refund.reversed_minor > 0:
            adjustment_id = await self._applications.find_adjustment_of_refund(tx, refund.id)
            assert adjustment_id is not None, "a refund that reverses has its adjustment"
            journal.posted.append(
                credit_entries.passed_on(refund, credit, adjustment_id, clearing_account_id)
            )
        if refund.absorbed_minor > 0:
            accounts = journal.accounts[refund.currency]
            journal.posted.append(credit_entries.absorbed(refund, clearing_account_id, accounts))
        journal.change(credit).held_minor -= refund.clawed_back_minor
        await self._posting.write(tx, journal)

    async def _list_pending(self, tx: Transaction, refund: Refund) -> list[LedgerEntry]:
        """Return what a pending refund holds."""
        transaction = await self._ledger.get_transaction(tx, refund.ledger_transaction_id)
        return [
            entry
            for entry in transaction.entries
            if entry.posted_at is None and entry.discarded_at is None
        ]

    async def _lock_owner(self, tx: Transaction, refund_id: UUID) -> Subscription:
        """Lock the subscription of a refund: whoever changes the refund has this lock."""
        refund = await self._refunds.get_refund(tx, refund_id)
        return await self._subscriptions.lock_subscription(tx, refund.subscription_id)

    async def _lock_credit(self, tx: Transaction, refund: Refund) -> UsageCredit:
        payment = await self._payments.get_payment(tx, refund.payment_id)
        assert payment.usage_credit_id is not None, "a refunded payment has its credit"
        return await self._credits.lock_credit(tx, payment.usage_credit_id)

    async def _clearing_account(
        self, tx: Transaction, subscription: Subscription, *, now: datetime
    ) -> UUID:
        return await self._accounts.get_refund_clearing_account(
            tx, subscription_id=subscription.id, currency=subscription.currency, now=now
        )


def _require_refundable(payment: Payment, terms: RefundTerms) -> None:
    payment.require_succeeded()
    require_currency(terms.currency, payment.currency, of=payment.typeid)
    if payment.refunded_minor + terms.amount_minor > payment.amount_minor:
        raise RefundExceedsPayment(
            payment_id=payment.typeid,
            amount_minor=terms.amount_minor,
            paid_minor=payment.amount_minor,
            refunded_minor=payment.refunded_minor,
        )


def _require_same_refund(refund: Refund, gateway_refund_id: str) -> None:
    if refund.gateway_refund_id != gateway_refund_id:
        raise RefundConfirmedOtherwise(
            refund_id=refund.typeid, confirmed=refund.gateway_refund_id, told=gateway_refund_id
        )


def _hold_value(
    journal: CreditJournal,
    credit: UsageCredit,
    adjustment: CreditBalanceAdjustment,
    clawback: Clawback[ReversibleApplication],
    clearing_account_id: UUID,
) -> None:
    """Hold what is left of a credit, in an entry with the adjustment's id."""
    if clawback.unused_minor > 0:
        journal.pending.append(
            credit_entries.clawed_back(
                credit, adjustment, clawback.unused_minor, clearing_account_id
            )
        )
        journal.hold(credit, clawback.unused_minor)


def _adjustment(
    refund: Refund,
    credit: UsageCredit,
    clawback: Clawback[ReversibleApplication],
    *,
    now: datetime,
) -> CreditBalanceAdjustment:
    adjustment = new_adjustment(
        credit,
        refund.ledger_transaction_id,
        CreditBalanceAdjustmentType.CLAWBACK_REFUND,
        clawback.total_minor,
        reason=f"Refund {refund.typeid}",
        by_user_id=refund.initiated_by_user_id,
        now=now,
    )
    return replace(adjustment, deficit_minor=clawback.deficit_minor, source_refund_id=refund.id)


def _key(entry: LedgerEntry) -> LedgerEntryKey:
    return LedgerEntryKey(entry.subscription_id, entry.ledger_transaction_id, entry.id)
