"""Use cases of recalculations: put an invoiced billing period right, and tell what that changed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import CalculationType
from billing.domain.calculation_errors import (
    BillingPeriodNotInvoiced,
    RecalculationDocumentDelivered,
    RecalculationNotDelivered,
)
from billing.domain.calculations import KeptCalculation
from billing.domain.ledger import LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod, BillingPeriodStatus
from billing.domain.recalculations import (
    ComponentChange,
    Recalculation,
    adjustment_charges,
    compare_components,
    invoiced_change,
    plan_documents,
)
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services import receivable_entries
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.credit_reassignment import CreditReassigner
from billing.services.idempotency import Idempotency, IdempotentRequest
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.services.recalculation_delivery import RecalculationDelivery
from billing.services.recalculation_documents import to_documents
from billing.services.receivable_restoring import ReceivableRestorer
from billing.store.billing_periods import BillingPeriodStore
from billing.store.bills import BillOrigin, BillStore, CalculatedPeriod, ChargedPeriod
from billing.store.calculations import CalculationStore
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger import LedgerStore, NewLedgerTransaction
from billing.store.recalculations import RecalculationStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.usage import UsageStore
from billing.store.usage_corrections import UsageCorrectionStore


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
        period_reader: PeriodReader,
        usage: UsageStore,
        corrections: UsageCorrectionStore,
        credit_reader: CreditReader,
        bills: BillStore,
        calculations: CalculationStore,
        recalculations: RecalculationStore,
        ledger: LedgerStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
        reassigner: CreditReassigner,
        restorer: ReceivableRestorer,
        delivery: RecalculationDelivery,
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
        self._bills = bills
        self._calculations = calculations
        self._recalculations = recalculations
        self._ledger = ledger
        self._posting = posting
        self._expiry = expiry
        self._reassigner = reassigner
        self._restorer = restorer
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
            written = await self._write(tx, subscription, period, reason=reason, now=now)
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

    async def _write(
        self,
        tx: Transaction,
        subscription: Subscription,
        period: BillingPeriod,
        *,
        reason: str,
        now: datetime,
    ) -> UUID | None:
        """Write what changes in one ledger transaction; return the recalculation, if any."""
        recalculation_id = identifiers.new_id()
        transaction = NewLedgerTransaction(
            identifiers.new_id(), subscription.id, f"Recalculation: {reason}"
        )
        version, tallies = await self._period_reader.read_usage(tx, subscription, period)
        journal = await self._posting.open_journal(tx, [subscription.currency], now=now)
        journal.to_discard += await self._corrections.list_pending_entries(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        raw_change_minor = sum(tally.take_in() for tally in tallies.values())
        covered = await self._credit_reader.read_covered_period(
            tx,
            period,
            version.components,
            {owner: tally.rated_minor for owner, tally in tallies.items()},
        )
        moved = await self._reassigner.recalculate(
            tx,
            journal,
            subscription,
            covered,
            owed_minor=period.receivable_minor + raw_change_minor,
            ledger_transaction_id=transaction.id,
            calculation_run_id=recalculation_id,
        )
        active = await self._calculations.list_active(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        changes = list(
            compare_components(
                version.components,
                tallies,
                active,
                {c.id: moved.component_change_minor(c.id) for c in version.components},
            )
        )
        if not journal.to_discard and all(change.is_none for change in changes):
            return None
        _journalize(journal, changes, subscription, period, transaction.id, recalculation_id)
        restored = await self._restorer.restore(
            tx,
            journal,
            subscription,
            covered,
            moved,
            receivable_minor=period.receivable_minor + journal.receivables[period.id],
            ledger_transaction_id=transaction.id,
            calculation_run_id=recalculation_id,
        )
        recalculation = Recalculation(
            id=recalculation_id,
            subscription_id=subscription.id,
            billing_period_id=period.id,
            ledger_transaction_id=transaction.id,
            currency=subscription.currency,
            reason=reason,
            raw_change_minor=sum(change.raw_change_minor for change in changes),
            credits_change_minor=moved.change_minor,
            net_change_minor=sum(c.raw_change_minor for c in changes) - moved.change_minor,
            recovered_minor=restored.recovered_minor,
            released_minor=restored.released_minor,
            surplus_minor=restored.surplus_minor,
            created_at=now,
        )
        await self._ledger.insert_transactions(
            tx,
            [transaction],
            source_type=LedgerSourceType.RECALCULATION,
            source_id=recalculation_id,
            now=now,
        )
        await self._recalculations.insert_recalculation(tx, recalculation)
        await self._write_bill(tx, subscription, period, recalculation, changes, now=now)
        await self._posting.write(tx, journal)
        await self._restorer.record(tx, restored, now=now)
        await self._usage.upsert_tallies(
            tx, [(subscription.id, tally) for tally in tallies.values()], now=now
        )
        return recalculation_id

    async def _write_bill(
        self,
        tx: Transaction,
        subscription: Subscription,
        period: BillingPeriod,
        recalculation: Recalculation,
        changes: list[ComponentChange],
        *,
        now: datetime,
    ) -> None:
        """Write calculations, charges, and what the invoicing service will be asked for."""
        await self._calculations.supersede(
            tx, {c.old.id: c.new.id for c in changes if c.old is not None}
        )
        origin = BillOrigin(
            CalculationType.ADJUSTMENT_RECALCULATION,
            recalculation_id=recalculation.id,
            notes=recalculation.reason,
        )
        owner = (recalculation.id, subscription.id, period.id, subscription.currency)
        await self._bills.insert_calculations(
            tx, origin, [CalculatedPeriod(*owner, [change.new for change in changes])], now=now
        )
        total_minor = await self._recalculations.sum_charges(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        change_minor = invoiced_change(total_minor, recalculation.net_change_minor)
        charges = adjustment_charges(
            changes,
            credits_change_minor=recalculation.credits_change_minor,
            carried_minor=change_minor - recalculation.net_change_minor,
        )
        await self._bills.insert_charges(tx, origin, [ChargedPeriod(*owner, charges)], now=now)
        planned = plan_documents(
            change_minor,
            await self._recalculations.list_issued_invoices(tx, period.id),
            receivable_minor=period.receivable_minor,
        )
        documents = to_documents(
            list(planned), tx.scope, subscription, period, recalculation, charges
        )
        await self._recalculations.insert_documents(tx, recalculation, documents)
        await self._periods.change_total(tx, period.id, change_minor)


def _journalize(
    journal: CreditJournal,
    changes: list[ComponentChange],
    subscription: Subscription,
    period: BillingPeriod,
    ledger_transaction_id: UUID,
    recalculation_id: UUID,
) -> None:
    """Note what the usage of each component costs more or less."""
    for change in changes:
        if change.raw_change_minor != 0:
            receivable_entries.adjust(
                journal,
                change.new,
                change.raw_change_minor,
                subscription,
                billing_period_id=period.id,
                calculation_run_id=recalculation_id,
                ledger_transaction_id=ledger_transaction_id,
                description=_description(change),
            )


def _description(change: ComponentChange) -> str:
    new = identifiers.to_typeid(identifiers.CALCULATION, change.new.id)
    replaced = f", which replaces {change.old.typeid}" if change.old is not None else ""
    return f"{change.component.name}: billing adjustment by {new}{replaced}"
