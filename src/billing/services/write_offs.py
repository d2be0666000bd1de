"""Use cases of write-offs: give a receivable up, take that back."""

from dataclasses import replace
from uuid import UUID

from billing.domain import identifiers
from billing.domain.calculation_errors import (
    BillingPeriodNotInvoiced,
    WriteOffExceeded,
    WriteOffExceedsReceivable,
)
from billing.domain.credit_errors import require_currency
from billing.domain.ledger import LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriodStatus
from billing.domain.scope import Scope
from billing.domain.write_offs import WriteOff
from billing.services import receivable_entries
from billing.services.credit_journal import CreditPosting
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Database, retried_on_conflict
from billing.store.subscriptions import SubscriptionStore
from billing.store.write_offs import WriteOffStore


class WriteOffService:
    """Gives up what nobody expects to collect. A payment takes that back by itself."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        write_offs: WriteOffStore,
        posting: CreditPosting,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._write_offs = write_offs
        self._posting = posting
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def write_off_receivable(
        self,
        scope: Scope,
        subscription_id: UUID,
        billing_period_id: UUID,
        *,
        amount_minor: int,
        currency: str,
        reason: str,
        written_off_by_user_id: str,
        request: IdempotentRequest | None = None,
    ) -> WriteOff:
        """Give up an amount that an invoiced period owes, all of it for 0.

        Raises ResourceNotFound, CurrencyMismatch, BillingPeriodNotInvoiced,
        WriteOffExceedsReceivable.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, WriteOff)
            if answer is not None:
                return answer
            now = self._clock()
            require_currency(currency, subscription.currency, of=subscription.typeid)
            period, _ = await self._periods.get_period(tx, subscription.id, billing_period_id)
            if period.status is not BillingPeriodStatus.INVOICED:
                raise BillingPeriodNotInvoiced(
                    billing_period_id=period.typeid, status=period.status, action="written off"
                )
            given_up_minor = amount_minor or period.receivable_minor
            if given_up_minor > period.receivable_minor or given_up_minor <= 0:
                raise WriteOffExceedsReceivable(
                    billing_period_id=period.typeid,
                    amount_minor=given_up_minor,
                    receivable_minor=period.receivable_minor,
                )
            write_off_id = identifiers.new_id()
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                f"Write-off: {reason}",
                LedgerSourceType.WRITE_OFF,
                write_off_id,
                now=now,
            )
            write_off = WriteOff(
                id=write_off_id,
                subscription_id=subscription.id,
                billing_period_id=period.id,
                amount_minor=given_up_minor,
                recovered_minor=0,
                currency=subscription.currency,
                reason=reason,
                written_off_by_user_id=written_off_by_user_id,
                ledger_transaction_id=transaction_id,
                created_at=now,
                updated_at=now,
            )
            await self._write_offs.insert_write_off(tx, write_off)
            receivable_entries.write_off(journal, write_off, subscription)
            await self._posting.write(tx, journal)
            await self._idempotency.store_answer(tx, request, write_off, now=now)
            return write_off

    @retried_on_conflict
    async def recover_write_off(
        self,
        scope: Scope,
        write_off_id: UUID,
        *,
        amount_minor: int,
        request: IdempotentRequest | None = None,
    ) -> WriteOff:
        """Let an amount of a write-off be owed again, all that is left of it for 0.

        Raises ResourceNotFound, WriteOffExceeded.
        """
        async with self._database.transaction(scope) as tx:
            write_off = await self._write_offs.get_write_off(tx, write_off_id)
            subscription = await self._subscriptions.lock_subscription(
                tx, write_off.subscription_id
            )
            answer = await self._idempotency.find_answer(tx, request, WriteOff)
            if answer is not None:
                return answer
            now = self._clock()
            write_off = await self._write_offs.get_write_off(tx, write_off_id)
            recovered_minor = amount_minor or write_off.left_minor
            if recovered_minor > write_off.left_minor or recovered_minor <= 0:
                raise WriteOffExceeded(
                    write_off_id=write_off.typeid,
                    amount_minor=recovered_minor,
                    left_minor=write_off.left_minor,
                )
            journal, transaction_id = await self._posting.open_transaction(
                tx,
                subscription,
                "Recovery of a write-off",
                LedgerSourceType.WRITE_OFF_RECOVERY,
                write_off.id,
                now=now,
            )
            receivable_entries.recover(
                journal, write_off, recovered_minor, subscription, transaction_id
            )
            await self._posting.write(tx, journal)
            await self._write_offs.update_recovered(tx, write_off.id, recovered_minor, now=now)
            recovered = replace(
                write_off,
                recovered_minor=write_off.recovered_minor + recovered_minor,
                updated_at=now,
            )
            await self._idempotency.store_answer(tx, request, recovered, now=now)
            return recovered

    async def get_write_off(self, scope: Scope, write_off_id: UUID) -> WriteOff:
        """Return a write-off; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._write_offs.get_write_off(tx, write_off_id)

    async def list_write_offs(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[WriteOff]:
        """Return a page of a subscription's write-offs, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._write_offs.list_write_offs(
                tx, page, subscription_id=subscription_id, billing_period_id=billing_period_id
            )
