"""Posts recalculations: what a billed period costs as its usage and its credits are now.

In the caller's transaction and under its locks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import CalculationType
from billing.domain.credit_reassignment import CoveredPeriod, Reassignment
from billing.domain.ledger import LedgerSourceType
from billing.domain.periods import BillingPeriod
from billing.domain.recalculations import (
    ComponentChange,
    Recalculation,
    adjustment_charges,
    compare_components,
    invoiced_change,
    plan_documents,
)
from billing.domain.subscriptions import Subscription
from billing.domain.usage import UsageTally
from billing.services import receivable_entries
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.credit_reassignment import CreditReassigner
from billing.services.open_periods import PeriodReader
from billing.services.recalculation_documents import to_documents
from billing.services.receivable_restoring import ReceivableRestorer
from billing.store.billing_periods import BillingPeriodStore
from billing.store.bills import BillOrigin, BillStore, CalculatedPeriod, ChargedPeriod
from billing.store.calculations import CalculationStore
from billing.store.database import Transaction
from billing.store.ledger import LedgerStore, NewLedgerTransaction
from billing.store.recalculations import RecalculationStore
from billing.store.usage import UsageStore
from billing.store.usage_corrections import UsageCorrectionStore


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a recalculation would change; nothing of it is written yet."""

    id: UUID
    subscription: Subscription
    period: BillingPeriod
    ledger_transaction_id: UUID
    journal: CreditJournal
    tallies: Sequence[UsageTally]
    covered: CoveredPeriod
    moved: Reassignment
    changes: Sequence[ComponentChange]

    @property
    def is_empty(self) -> bool:
        """Whether the period is as it was, and nothing waits for it."""
        return not self.journal.to_discard and all(change.is_none for change in self.changes)

    @property
    def raw_change_minor(self) -> int:
        """What its usage costs more."""
        return sum(change.raw_change_minor for change in self.changes)


class RecalculationPosting:
    """Calculates a billed period anew, and writes what that changes in one ledger transaction."""

    def __init__(
        self,
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
        reassigner: CreditReassigner,
        restorer: ReceivableRestorer,
    ) -> None:
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
        self._reassigner = reassigner
        self._restorer = restorer

    async def post_recalculation(
        self,
        tx: Transaction,
        subscription: Subscription,
        period: BillingPeriod,
        *,
        reason: str,
        now: datetime,
    ) -> UUID | None:
        """Write what changes; return the recalculation, None if nothing does."""
        draft = await self._draft(tx, subscription, period, now=now)
        if draft.is_empty:
            return None
        _journalize(draft)
        restored = await self._restorer.restore(
            tx,
            draft.journal,
            subscription,
            draft.covered,
            draft.moved,
            receivable_minor=period.receivable_minor + draft.journal.receivables[period.id],
            ledger_transaction_id=draft.ledger_transaction_id,
            calculation_run_id=draft.id,
        )
        recalculation = Recalculation(
            id=draft.id,
            subscription_id=subscription.id,
            billing_period_id=period.id,
            ledger_transaction_id=draft.ledger_transaction_id,
            currency=subscription.currency,
            reason=reason,
            raw_change_minor=draft.raw_change_minor,
            credits_change_minor=draft.moved.change_minor,
            net_change_minor=draft.raw_change_minor - draft.moved.change_minor,
            recovered_minor=restored.recovered_minor,
            released_minor=restored.released_minor,
            surplus_minor=restored.surplus_minor,
            created_at=now,
        )
        await self._write(tx, draft, recalculation, now=now)
        await self._restorer.record(tx, restored, now=now)
        return recalculation.id

    async def _draft(
        self, tx: Transaction, subscription: Subscription, period: BillingPeriod, *, now: datetime
    ) -> _Draft:
        """Take in what waits, and let credits pay as they would have; on paper."""
        recalculation_id, transaction_id = identifiers.new_id(), identifiers.new_id()
        version, tallies = await self._period_reader.read_usage(tx, subscription, period)
        journal = await self._posting.open_journal(tx, [subscription.currency], now=now)
        journal.to_discard += await self._corrections.list_pending_entries(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        raw_change_minor = sum(tally.take_in() for tally in tallies.values())
        rated_minor = {owner: tally.rated_minor for owner, tally in tallies.items()}
        covered = await self._credit_reader.read_covered_period(
            tx, period, version.components, rated_minor
        )
        moved = await self._reassigner.recalculate(
            tx,
            journal,
            subscription,
            covered,
            owed_minor=period.receivable_minor + raw_change_minor,
            ledger_transaction_id=transaction_id,
            calculation_run_id=recalculation_id,
        )
        active = await self._calculations.list_active(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        credits_change = {c.id: moved.component_change_minor(c.id) for c in version.components}
        changes = compare_components(version.components, tallies, active, credits_change)
        return _Draft(
            recalculation_id,
            subscription,
            period,
            transaction_id,
            journal,
            list(tallies.values()),
            covered,
            moved,
            list(changes),
        )

    async def _write(
        self, tx: Transaction, draft: _Draft, recalculation: Recalculation, *, now: datetime
    ) -> None:
        title = f"Recalculation: {recalculation.reason}"
        transaction = NewLedgerTransaction(
            draft.ledger_transaction_id, draft.subscription.id, title
        )
        await self._ledger.insert_transactions(
            tx,
            [transaction],
            source_type=LedgerSourceType.RECALCULATION,
            source_id=recalculation.id,
            now=now,
        )
        await self._recalculations.insert_recalculation(tx, recalculation)
        await self._write_bill(tx, draft, recalculation, now=now)
        await self._posting.write(tx, draft.journal)
        await self._usage.upsert_tallies(
            tx, [(draft.subscription.id, tally) for tally in draft.tallies], now=now
        )

    async def _write_bill(
        self,
        tx: Transaction,
        draft: _Draft,
        recalculation: Recalculation,
        *,
        now: datetime,
    ) -> None:
        """Write calculations, charges, and what the invoicing service will be asked for."""
        subscription, period, changes = draft.subscription, draft.period, draft.changes
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


def _journalize(draft: _Draft) -> None:
    """Note what the usage of each component costs more or less."""
    for change in draft.changes:
        if change.raw_change_minor != 0:
            receivable_entries.adjust(
                draft.journal,
                change.new,
                change.raw_change_minor,
                draft.subscription,
                billing_period_id=draft.period.id,
                calculation_run_id=draft.id,
                ledger_transaction_id=draft.ledger_transaction_id,
                description=_description(change),
            )


def _description(change: ComponentChange) -> str:
    new = identifiers.to_typeid(identifiers.CALCULATION, change.new.id)
    replaced = f", which replaces {change.old.typeid}" if change.old is not None else ""
    return f"{change.component.name}: billing adjustment by {new}{replaced}"
