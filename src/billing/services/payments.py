"""Use cases of payments: begin, confirm, fail. Callers tell what the processor outside answered."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_errors import PaymentConfirmedOtherwise, require_currency
from billing.domain.credits import (
    CreditApplicationKind,
    CreditTerms,
    UsageCredit,
    UsageCreditType,
    new_credit,
)
from billing.domain.errors import FieldInvalid, ResourceNotFound
from billing.domain.ledger import LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.payments import Payment, PaymentPurpose, PaymentStatus, PaymentTerms
from billing.domain.periods import BillingPeriod
from billing.domain.scope import Scope
from billing.domain.settlement import settle
from billing.domain.subscriptions import Subscription
from billing.domain.write_offs import plan_recovery
from billing.services import credit_entries, receivable_entries
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.store.billing_periods import BillingPeriodStore
from billing.store.credit_applications import CreditApplicationStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.payments import PaymentStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.write_offs import WriteOffStore

_CREDIT_TYPES = {
    PaymentPurpose.TOP_UP: UsageCreditType.PAYMENT_TOP_UP,
    PaymentPurpose.PERIOD_SETTLEMENT: UsageCreditType.PAYMENT_PERIOD_SETTLEMENT,
}


class PaymentService:
    """Keeps payments, and makes credits of them once they are confirmed."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        applications: CreditApplicationStore,
        payments: PaymentStore,
        write_offs: WriteOffStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._applications = applications
        self._payments = payments
        self._write_offs = write_offs
        self._posting = posting
        self._expiry = expiry
        self._idempotency = idempotency
        self._clock = clock

    @retried_on_conflict
    async def create_payment(
        self, scope: Scope, terms: PaymentTerms, *, request: IdempotentRequest | None = None
    ) -> Payment:
        """Record a payment that was begun.

        Raises ResourceNotFound, CurrencyMismatch, FieldInvalid for a billing period that is missing
        or not the subscription's, and SubscriptionAlreadyCancelled for a top-up.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, terms.subscription_id)
            answer = await self._idempotency.find_answer(tx, request, Payment)
            if answer is not None:
                return answer
            now = self._clock()
            require_currency(terms.currency, subscription.currency, of=subscription.typeid)
            if terms.purpose is PaymentPurpose.TOP_UP:
                subscription.require_not_cancelled()
            await self._require_period(tx, subscription, terms)
            payment = _new_payment(terms, now=now)
            await self._payments.insert_payment(tx, payment)
            await self._idempotency.store_answer(tx, request, payment, now=now)
            return payment

    @retried_on_conflict
    async def confirm_payment(
        self,
        scope: Scope,
        payment_id: UUID,
        *,
        processor_transaction_id: str,
        processed_at: datetime | None,
        payment_method_details: Mapping[str, str],
        request: IdempotentRequest | None = None,
    ) -> Payment:
        """Make the payment's credit, and let a settlement pay what its period owes.

        A repeat changes nothing. Raises ResourceNotFound, PaymentNotPending of a failed one,
        PaymentConfirmedOtherwise, ProcessorTransactionTaken, and FieldInvalid for the future.
        """
        async with self._database.transaction(scope) as tx:
            subscription = await self._lock_owner(tx, payment_id)
            answer = await self._idempotency.find_answer(tx, request, Payment)
            if answer is not None:
                return answer
            now = self._clock()
            payment = await self._payments.get_payment(tx, payment_id)
            if payment.status is PaymentStatus.SUCCEEDED:
                _require_same_transaction(payment, processor_transaction_id)
                await self._idempotency.store_answer(tx, request, payment, now=now)
                return payment
            payment.require_pending()
            _require_not_ahead("processed_at", processed_at, now=now)
            confirmed = replace(
                payment,
                status=PaymentStatus.SUCCEEDED,
                processor_transaction_id=processor_transaction_id,
                processed_at=processed_at or now,
                payment_method_details={
                    **payment.payment_method_details,
                    **payment_method_details,
                },
                updated_at=now,
            )
            await self._recognize(tx, subscription, confirmed, now=now)
            answer = await self._payments.get_payment(tx, payment_id)
            await self._idempotency.store_answer(tx, request, answer, now=now)
            return answer

    @retried_on_conflict
    async def fail_payment(
        self,
        scope: Scope,
        payment_id: UUID,
        *,
        failure_reason: str,
        request: IdempotentRequest | None = None,
    ) -> Payment:
        """Note that a payment failed; a repeat changes nothing.

        Raises ResourceNotFound, and PaymentNotPending of a confirmed one.
        """
        async with self._database.transaction(scope) as tx:
            await self._lock_owner(tx, payment_id)
            answer = await self._idempotency.find_answer(tx, request, Payment)
            if answer is not None:
                return answer
            now = self._clock()
            payment = await self._payments.get_payment(tx, payment_id)
            if payment.status is not PaymentStatus.FAILED:
                payment.require_pending()
                payment = replace(
                    payment,
                    status=PaymentStatus.FAILED,
                    failure_reason=failure_reason,
                    updated_at=now,
                )
                await self._payments.update_payment(tx, payment)
            await self._idempotency.store_answer(tx, request, payment, now=now)
            return payment

    async def get_payment(self, scope: Scope, payment_id: UUID) -> Payment:
        """Return a payment; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._payments.get_payment(tx, payment_id)

    async def list_payments(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        status: PaymentStatus | None,
        billing_period_id: UUID | None,
    ) -> Page[Payment]:
        """Return a page of a subscription's payments, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._payments.list_payments(
                tx,
                page,
                subscription_id=subscription_id,
                status=status,
                billing_period_id=billing_period_id,
            )

    async def _recognize(
        self, tx: Transaction, subscription: Subscription, payment: Payment, *, now: datetime
    ) -> None:
        """Post a confirmed payment: its credit, and what that pays at once."""
        is_settlement = payment.purpose is PaymentPurpose.PERIOD_SETTLEMENT
        if is_settlement:
            # What the period owes is what no credit has paid: those that are over come first.
            await self._expiry.settle_overdue(tx, [subscription], now=now)
        journal, transaction_id = await self._posting.open_transaction(
            tx,
            subscription,
            f"Payment {payment.processor_transaction_id}",
            LedgerSourceType.PAYMENT,
            payment.id,
            now=now,
        )
        credit = _credit_of(payment, now=now)
        accounts = journal.accounts[credit.currency]
        journal.credits.append(credit)
        journal.posted.append(credit_entries.paid(credit, payment, transaction_id, accounts))
        invoice_id = payment.invoice_id
        if is_settlement:
            paid_invoice_id = await self._settle(
                tx, journal, subscription, payment, credit, transaction_id
            )
            invoice_id = invoice_id or paid_invoice_id
        await self._posting.write(tx, journal)
        await self._payments.update_payment(
            tx, replace(payment, usage_credit_id=credit.id, invoice_id=invoice_id)
        )

    async def _settle(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        payment: Payment,
        credit: UsageCredit,
        ledger_transaction_id: UUID,
    ) -> str:
        """Let a credit pay what its payment's period owes; return the period's invoice, if any."""
        assert payment.billing_period_id is not None, "a settlement names its billing period"
        period, invoice_id = await self._periods.get_period(
            tx, subscription.id, payment.billing_period_id
        )
        usage = await self._period_reader.read_period_usage(tx, subscription, period)
        coverage = await self._applications.list_coverage(tx, [period.id])
        prior = coverage[period.id].posted if period.id in coverage else []
        owed_minor = period.receivable_minor
        if not period.is_closed:
            owed_minor += sum(usage.rated_minor.values())
        owed_minor += await self._recover(
            tx,
            journal,
            subscription,
            period,
            credit.issued_minor - owed_minor,
            ledger_transaction_id,
        )
        journal.apply(
            settle(credit, usage.components, usage.rated_minor, prior, owed_minor=owed_minor),
            subscription,
            ledger_transaction_id,
            kind=CreditApplicationKind.SETTLEMENT,
            billing_period_id=period.id,
            calculation_run_id=identifiers.new_id(),
        )
        return invoice_id

    async def _recover(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        period: BillingPeriod,
        amount_minor: int,
        ledger_transaction_id: UUID,
    ) -> int:
        """Let a payment's rest pay what of the period was written off; return how much that is."""
        write_offs = await self._write_offs.list_of_period(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        recovered = list(plan_recovery(write_offs, max(0, amount_minor)))
        for write_off, recovered_minor in recovered:
            receivable_entries.recover(
                journal, write_off, recovered_minor, subscription, ledger_transaction_id
            )
            await self._write_offs.update_recovered(
                tx, write_off.id, recovered_minor, now=journal.now
            )
        return sum(recovered_minor for _, recovered_minor in recovered)

    async def _lock_owner(self, tx: Transaction, payment_id: UUID) -> Subscription:
        """Lock the subscription of a payment: whoever changes the payment has this lock."""
        payment = await self._payments.get_payment(tx, payment_id)
        return await self._subscriptions.lock_subscription(tx, payment.subscription_id)

    async def _require_period(
        self, tx: Transaction, subscription: Subscription, terms: PaymentTerms
    ) -> None:
        if terms.purpose is PaymentPurpose.TOP_UP:
            if terms.billing_period_id is not None:
                raise FieldInvalid("billing_period_id", "a top-up is for no billing period")
            return
        if terms.billing_period_id is None:
            raise FieldInvalid("billing_period_id", "a settlement names its billing period")
        try:
            await self._periods.get_period(tx, subscription.id, terms.billing_period_id)
        except ResourceNotFound:
            raise FieldInvalid(
                "billing_period_id", f"{subscription.typeid} has no such billing period"
            ) from None


def _new_payment(terms: PaymentTerms, *, now: datetime) -> Payment:
    return Payment(
        id=identifiers.new_id(),
        subscription_id=terms.subscription_id,
        purpose=terms.purpose,
        amount_minor=terms.amount_minor,
        currency=terms.currency,
        status=PaymentStatus.PENDING,
        billing_period_id=terms.billing_period_id,
        invoice_id=terms.invoice_id,
        payment_method_details=terms.payment_method_details or {},
        processor_transaction_id="",
        processed_at=None,
        failure_reason="",
        usage_credit_id=None,
        settled_minor=0,
        refunded_minor=0,
        metadata=terms.metadata or {},
        created_at=now,
        updated_at=now,
    )


def _credit_of(payment: Payment, *, now: datetime) -> UsageCredit:
    terms = CreditTerms(
        subscription_id=payment.subscription_id,
        credit_type=_CREDIT_TYPES[payment.purpose],
        issued_minor=payment.amount_minor,
        currency=payment.currency,
        source_reference_id=payment.typeid,
    )
    return new_credit(terms, now=now)


def _require_same_transaction(payment: Payment, processor_transaction_id: str) -> None:
    if payment.processor_transaction_id != processor_transaction_id:
        raise PaymentConfirmedOtherwise(
            payment_id=payment.typeid,
            confirmed=payment.processor_transaction_id,
            told=processor_transaction_id,
        )


def _require_not_ahead(field: str, moment: datetime | None, *, now: datetime) -> None:
    if moment is not None and moment > now:
        raise FieldInvalid(
            field,
            f"{moment.isoformat()} lies in the future; the server's clock says {now.isoformat()}",
        )
