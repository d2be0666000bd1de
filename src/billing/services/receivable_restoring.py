"""Keeps a billed period from owing less than nothing, in the caller's journal and locks."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from billing.domain.credit_reassignment import (
    CoveredPeriod,
    LiveApplication,
    Reassignment,
    plan_settlement_release,
)
from billing.domain.credits import CreditTerms, UsageCreditType, new_credit
from billing.domain.subscriptions import Subscription
from billing.domain.write_offs import WriteOff, plan_recovery
from billing.services import credit_entries, receivable_entries
from billing.services.credit_journal import CreditJournal
from billing.services.credit_reading import CreditReader
from billing.services.credit_reassignment import CreditReassigner, has_ended
from billing.store.database import Transaction
from billing.store.write_offs import WriteOffStore


@dataclass(slots=True)
class RestoredReceivable:
    """What was done so that a period owes nothing at least, in minor units."""

    recovered: list[tuple[WriteOff, int]] = field(default_factory=list)
    released: list[tuple[LiveApplication, int]] = field(default_factory=list)
    surplus_minor: int = 0

    @property
    def recovered_minor(self) -> int:
        """What of write-offs was taken back: it was never owed."""
        return sum(amount_minor for _, amount_minor in self.recovered)

    @property
    def released_minor(self) -> int:
        """What of payments is credit again."""
        return sum(amount_minor for _, amount_minor in self.released)


class ReceivableRestorer:
    """Recovers write-offs, releases settlements, and credits the rest, in this order."""

    def __init__(
        self, write_offs: WriteOffStore, reader: CreditReader, reassigner: CreditReassigner
    ) -> None:
        self._write_offs = write_offs
        self._reader = reader
        self._reassigner = reassigner

    async def restore(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        covered: CoveredPeriod,
        moved: Reassignment,
        *,
        receivable_minor: int,
        ledger_transaction_id: UUID,
        calculation_run_id: UUID,
    ) -> RestoredReceivable:
        """Bring a receivable below zero to zero; the newest write-offs and payments go first."""
        restored = RestoredReceivable()
        if receivable_minor >= 0:
            return restored
        period = covered.period
        write_offs = await self._write_offs.list_of_period(
            tx, subscription_id=subscription.id, billing_period_id=period.id
        )
        restored.recovered += plan_recovery(reversed(write_offs), -receivable_minor)
        for write_off, amount_minor in restored.recovered:
            receivable_entries.recover(
                journal, write_off, amount_minor, subscription, ledger_transaction_id
            )
        left_minor = -receivable_minor - restored.recovered_minor
        restored.released += plan_settlement_release(covered, moved, left_minor)
        left_minor -= restored.released_minor
        await self._release(tx, journal, subscription, restored, ledger_transaction_id)
        restored.surplus_minor = left_minor
        if left_minor > 0:
            _carry(
                journal,
                subscription,
                left_minor,
                covered,
                ledger_transaction_id=ledger_transaction_id,
                calculation_run_id=calculation_run_id,
            )
        return restored

    async def record(self, tx: Transaction, restored: RestoredReceivable, *, now: datetime) -> None:
        """Count on the write-offs what was recovered of them, once the entries are written."""
        for write_off, amount_minor in restored.recovered:
            await self._write_offs.update_recovered(tx, write_off.id, amount_minor, now=now)

    async def _release(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        restored: RestoredReceivable,
        ledger_transaction_id: UUID,
    ) -> None:
        if not restored.released:
            return
        owners = {application.usage_credit_id for application, _ in restored.released}
        credits_ = await self._reader.lock_credits(tx, subscription.id, owners)
        ends_at = await self._reassigner.current_period_end(tx, subscription)
        for application, amount_minor in restored.released:
            credit = credits_[application.usage_credit_id]
            journal.release(
                application,
                amount_minor,
                credit,
                subscription,
                ledger_transaction_id,
                "Payment released: the period costs less",
            )
            if has_ended(credit, ends_at, now=journal.now):
                journal.sweep(credit, amount_minor, ledger_transaction_id)


def _carry(
    journal: CreditJournal,
    subscription: Subscription,
    amount_minor: int,
    covered: CoveredPeriod,
    *,
    ledger_transaction_id: UUID,
    calculation_run_id: UUID,
) -> None:
    """Make a credit of what nobody is owed."""
    period = covered.period
    terms = CreditTerms(
        subscription_id=subscription.id,
        credit_type=UsageCreditType.SURPLUS,
        issued_minor=amount_minor,
        currency=subscription.currency,
        source_reference_id=period.typeid,
    )
    surplus = new_credit(terms, now=journal.now)
    journal.credits.append(surplus)
    journal.posted.append(
        credit_entries.carried(
            surplus,
            subscription,
            ledger_transaction_id,
            billing_period_id=period.id,
            calculation_run_id=calculation_run_id,
        )
    )
    journal.receivables[period.id] += amount_minor
