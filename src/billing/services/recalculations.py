"""Use cases of recalculations: put an invoiced billing period right, and tell what that changed."""

from dataclasses import dataclass
from uuid import UUID

from billing.domain import identifiers
from billing.domain.calculation_errors import (
    BillingPeriodNotInvoiced,
    RecalculationDocumentDelivered,
    RecalculationNotDelivered,
)
from billing.domain.calculations import KeptCalculation
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod, BillingPeriodStatus
from billing.domain.recalculations import (
    Recalculation,
)
from billing.domain.scope import Scope
from billing.services.credit_expiry import CreditExpiry
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.ports import Clock
from billing.services.recalculation_delivery import RecalculationDelivery
from billing.services.recalculation_posting import RecalculationPosting
from billing.store.billing_periods import BillingPeriodStore
from billing.store.calculations import CalculationStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.recalculations import RecalculationStore
from billing.store.subscriptions import SubscriptionStore


@dataclass(frozen=True, slots=True)
class RecalculationAnswer:
    """What is remembered of a request: the recalculation, None where nothing changed."""

    recalculation_id: UUID | None


@dataclass(frozen=True, slots=True)
class RecalculatedPeriod:
    """A period after a recalculation, None where nothing changed, with what it costs now."""

    recalculation: Recalculation | None
    calculations: tuple[KeptCalculation, ...]


class RecalculationService:
    """Calculates billed periods anew, without rewriting history."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        calculations: CalculationStore,
        recalculations: RecalculationStore,
        posting: RecalculationPosting,
        expiry: CreditExpiry,
        delivery: RecalculationDelivery,
        idempotency: Idempotency,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._calculations = calculations
        self._recalculations = recalculations
        self._posting = posting
        self._expiry = expiry
        self._delivery = delivery
        self._idempotency = idempotency
        self._clock = clock

    async def recalculate_billing_period(
        self,
        scope: Scope,
        subscription_id: UUID,
        billing_period_id: UUID,
        *,
        reason: str,
        request: IdempotentRequest | None = None,
    ) -> RecalculatedPeriod:
        """Take in held usage and corrections, let credits pay as they would have, and tell.

        Where nothing changes, nothing is written. Documents that cannot be delivered now are
        delivered later. Raises ResourceNotFound, BillingPeriodNotInvoiced,
        RecalculationNotDelivered, AmountOutOfRange.
        """
        answer = await self._recalculate(
            scope, subscription_id, billing_period_id, reason=reason, request=request
        )
        if answer.recalculation_id is not None:
            await self._delivery.deliver(scope, answer.recalculation_id)
        async with self._database.transaction(scope) as tx:
            recalculation = None
            if answer.recalculation_id is not None:
                recalculation = await self._recalculations.get_recalculation(
                    tx, answer.recalculation_id
                )
            calculations = await self._calculations.list_active(
                tx, subscription_id=subscription_id, billing_period_id=billing_period_id
            )
            return RecalculatedPeriod(recalculation, tuple(calculations))

    @retried_on_conflict
    async def resolve_document(
        self,
        scope: Scope,
        document_id: UUID,
        *,
        delivered_id: str,
        request: IdempotentRequest | None = None,
    ) -> Recalculation:
        """Note what was made by hand in place of a document that is not delivered.

        Raises ResourceNotFound, RecalculationDocumentDelivered.
        """
        async with self._database.transaction(scope) as tx:
            document = await self._recalculations.lock_document(tx, document_id)
            answer = await self._idempotency.find_answer(tx, request, RecalculationAnswer)
            if answer is None:
                now = self._clock()
                if document.delivered_at is not None:
                    raise RecalculationDocumentDelivered(
                        recalculation_document_id=document.typeid, document_id=document.document_id
                    )
                await self._recalculations.update_delivered(tx, document_id, delivered_id, now=now)
                answer = RecalculationAnswer(document.recalculation_id)
                await self._idempotency.store_answer(tx, request, answer, now=now)
            return await self._recalculations.get_recalculation(tx, document.recalculation_id)

    async def get_recalculation(self, scope: Scope, recalculation_id: UUID) -> Recalculation:
        """Return a recalculation; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._recalculations.get_recalculation(tx, recalculation_id)

    async def list_recalculations(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[Recalculation]:
        """Return a page of a subscription's recalculations, oldest first.

        Raises ResourceNotFound.
        """
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._recalculations.list_recalculations(
                tx, page, subscription_id=subscription_id, billing_period_id=billing_period_id
            )

    @retried_on_conflict
    async def _recalculate(
        self,
        scope: Scope,
        subscription_id: UUID,
        billing_period_id: UUID,
        *,
        reason: str,
        request: IdempotentRequest | None,
    ) -> RecalculationAnswer:
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.lock_subscription(tx, subscription_id)
            answer = await self._idempotency.find_answer(tx, request, RecalculationAnswer)
            if answer is not None:
                return answer
            now = self._clock()
            period, _ = await self._periods.get_period(tx, subscription.id, billing_period_id)
            await self._require_recalculable(tx, period)
            await self._expiry.settle_overdue(tx, [subscription], now=now)
            written = await self._posting.post_recalculation(
                tx, subscription, period, reason=reason, now=now
            )
            answer = RecalculationAnswer(written)
            await self._idempotency.store_answer(tx, request, answer, now=now)
            return answer

    async def _require_recalculable(self, tx: Transaction, period: BillingPeriod) -> None:
        if period.status is not BillingPeriodStatus.INVOICED:
            raise BillingPeriodNotInvoiced(
                billing_period_id=period.typeid, status=period.status, action="recalculated"
            )
        document = await self._recalculations.find_undelivered_of_period(
            tx, subscription_id=period.subscription_id, billing_period_id=period.id
        )
        if document is not None:
            raise RecalculationNotDelivered(
                billing_period_id=period.typeid,
                recalculation_id=identifiers.to_typeid(
                    identifiers.CALCULATION_RUN, document.recalculation_id
                ),
                document_id=document.typeid,
            )
