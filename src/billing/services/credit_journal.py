"""Gathers what one transaction writes about credits, and writes it in sets.

Values of credits and receivables of periods change here and nowhere else, always together with
the entries that say so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_consumption import NewApplication
from billing.domain.credit_reassignment import LiveApplication
from billing.domain.credits import (
    CreditApplicationKind,
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentType,
    UsageCredit,
    new_adjustment,
)
from billing.domain.ledger import LedgerEntryStatus, LedgerSourceType
from billing.domain.subscriptions import Subscription
from billing.services import credit_entries
from billing.store.billing_periods import BillingPeriodStore
from billing.store.credit_applications import CreditApplicationStore, NewCreditApplication
from billing.store.credits import BalanceChange, CreditStore
from billing.store.database import Transaction
from billing.store.ledger import (
    LedgerEntryKey,
    LedgerStore,
    NewLedgerEntry,
    NewLedgerTransaction,
)
from billing.store.ledger_accounts import LedgerAccountStore, TenantAccounts


@dataclass(slots=True)
class ValueChange:
    """How the value of a credit changes, in minor units, and whether it ends with that."""

    credit: UsageCredit
    remaining_minor: int = 0
    held_minor: int = 0
    voided_at: datetime | None = None
    expired_at: datetime | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves the credit as it was."""
        ends = self.voided_at is not None or self.expired_at is not None
        return self.remaining_minor == 0 and self.held_minor == 0 and not ends

    def to_row(self) -> BalanceChange:
        """Return the change as it is written, with the status that it leads to."""
        credit = self.credit
        voided_at = credit.voided_at or self.voided_at
        expired_at = credit.expired_at or self.expired_at
        value_minor = (
            credit.remaining_minor + credit.held_minor + self.remaining_minor + self.held_minor
        )
        return BalanceChange(
            credit.id,
            self.remaining_minor,
            self.held_minor,
            credit.status_with(value_minor, voided_at=voided_at, expired_at=expired_at),
            voided_at,
            expired_at,
        )


@dataclass(slots=True)
class CreditJournal:
    """What a transaction writes about credits."""

    now: datetime
    accounts: Mapping[str, TenantAccounts]
    credits: list[UsageCredit] = field(default_factory=list)
    applications: list[NewCreditApplication] = field(default_factory=list)
    adjustments: list[CreditBalanceAdjustment] = field(default_factory=list)
    posted: list[NewLedgerEntry] = field(default_factory=list)
    pending: list[NewLedgerEntry] = field(default_factory=list)
    to_post: list[LedgerEntryKey] = field(default_factory=list)
    to_discard: list[LedgerEntryKey] = field(default_factory=list)
    receivables: Counter[UUID] = field(default_factory=Counter)
    changes: dict[UUID, ValueChange] = field(default_factory=dict)

    @property
    def entry_count(self) -> int:
        """How many entries were gathered so far."""
        return len(self.posted) + len(self.pending)

    def change(self, credit: UsageCredit) -> ValueChange:
        """Return the change of a credit's value, to add to."""
        return self.changes.setdefault(credit.id, ValueChange(credit))

    def apply(
        self,
        applications: Iterable[NewApplication],
        subscription: Subscription,
        ledger_transaction_id: UUID,
        *,
        kind: CreditApplicationKind,
        billing_period_id: UUID,
        calculation_run_id: UUID,
    ) -> None:
        """Let credits pay usage and charges: pending first, posted as the transaction ends."""
        for application in applications:
            entry = self._note(
                application,
                subscription,
                ledger_transaction_id,
                kind=kind,
                billing_period_id=billing_period_id,
                calculation_run_id=calculation_run_id,
            )
            self.pending.append(entry)
            self.to_post.append(entry.key)
            self.change(application.credit).remaining_minor -= application.amount_minor
            self.receivables[billing_period_id] -= application.amount_minor

    def estimate(
        self,
        applications: Iterable[NewApplication],
        subscription: Subscription,
        ledger_transaction_id: UUID,
        *,
        billing_period_id: UUID,
        calculation_run_id: UUID,
    ) -> None:
        """Hold what credits would pay; the entries stay pending until somebody discards them."""
        for application in applications:
            entry = self._note(
                application,
                subscription,
                ledger_transaction_id,
                kind=CreditApplicationKind.RUN,
                billing_period_id=billing_period_id,
                calculation_run_id=calculation_run_id,
            )
            self.pending.append(entry)
            self.hold(application.credit, application.amount_minor)

    def _note(
        self,
        application: NewApplication,
        subscription: Subscription,
        ledger_transaction_id: UUID,
        *,
        kind: CreditApplicationKind,
        billing_period_id: UUID,
        calculation_run_id: UUID,
    ) -> NewLedgerEntry:
        """Note an application, and return its entry."""
        entry = credit_entries.applied(
            application,
            subscription,
            ledger_transaction_id,
            billing_period_id=billing_period_id,
            calculation_run_id=calculation_run_id,
        )
        self.applications.append(
            NewCreditApplication(
                application.id,
                subscription.id,
                application.credit.id,
                kind,
                calculation_run_id,
                billing_period_id,
                application.component.id if application.component else None,
                entry.usage_meter_id,
                application.amount_minor,
                entry.currency,
                application.usage_from,
                application.usage_until,
                ledger_transaction_id,
            )
        )
        return entry

    def release(
        self,
        application: LiveApplication,
        amount_minor: int,
        credit: UsageCredit,
        subscription: Subscription,
        ledger_transaction_id: UUID,
        description: str,
    ) -> None:
        """Take back what a credit paid: it has its value again, and the period owes it again."""
        self.posted.append(
            credit_entries.unapplied(
                application, amount_minor, credit, subscription, ledger_transaction_id, description
            )
        )
        self.change(credit).remaining_minor += amount_minor
        self.receivables[application.billing_period_id] += amount_minor

    def sweep(self, credit: UsageCredit, amount_minor: int, ledger_transaction_id: UUID) -> None:
        """Take value that came back to a credit which has come to its end."""
        if credit.voided_at is None:
            self.expire(credit, amount_minor, ledger_transaction_id)
            return
        adjustment = new_adjustment(
            credit,
            ledger_transaction_id,
            CreditBalanceAdjustmentType.VOID,
            amount_minor,
            reason="Came back to a voided credit",
            by_user_id="",
            now=self.now,
        )
        self.adjustments.append(adjustment)
        accounts = self.accounts[credit.currency]
        self.posted.append(credit_entries.decreased(credit, adjustment, amount_minor, accounts))
        self.change(credit).remaining_minor -= amount_minor

    def expire(self, credit: UsageCredit, amount_minor: int, ledger_transaction_id: UUID) -> None:
        """Take what is left of a credit whose time is over."""
        accounts = self.accounts[credit.currency]
        self.posted.append(
            credit_entries.expired(credit, amount_minor, ledger_transaction_id, accounts)
        )
        change = self.change(credit)
        change.remaining_minor -= amount_minor
        change.expired_at = self.now

    def hold(self, credit: UsageCredit, amount_minor: int) -> None:
        """Keep value of a credit from being spent; a negative amount gives it back."""
        change = self.change(credit)
        change.remaining_minor -= amount_minor
        change.held_minor += amount_minor


class CreditPosting:
    """Opens journals and writes them, in the caller's transaction and under its locks."""

    def __init__(
        self,
        credits_: CreditStore,
        applications: CreditApplicationStore,
        periods: BillingPeriodStore,
        ledger: LedgerStore,
        accounts: LedgerAccountStore,
    ) -> None:
        self._credits = credits_
        self._applications = applications
        self._periods = periods
        self._ledger = ledger
        self._accounts = accounts

    async def open_journal(
        self, tx: Transaction, currencies: Iterable[str], *, now: datetime
    ) -> CreditJournal:
        """Return an empty journal that knows the tenant's accounts."""
        accounts = {
            currency: await self._accounts.get_tenant_accounts(tx, currency)
            for currency in set(currencies)
        }
        return CreditJournal(now, accounts)

    async def open_transaction(
        self,
        tx: Transaction,
        subscription: Subscription,
        description: str,
        source_type: LedgerSourceType,
        source_id: UUID,
        *,
        now: datetime,
    ) -> tuple[CreditJournal, UUID]:
        """Begin one operation on a subscription: return a journal, and its ledger transaction."""
        transaction = NewLedgerTransaction(identifiers.new_id(), subscription.id, description)
        await self._ledger.insert_transactions(
            tx, [transaction], source_type=source_type, source_id=source_id, now=now
        )
        return await self.open_journal(tx, [subscription.currency], now=now), transaction.id

    async def write(self, tx: Transaction, journal: CreditJournal) -> None:
        """Write a journal; its ledger transactions are there already."""
        now = journal.now
        if journal.credits:
            await self._accounts.insert_credit_accounts(
                tx, [(c.id, c.currency, c.subscription_id) for c in journal.credits], now=now
            )
            await self._credits.insert_credits(tx, journal.credits)
        await self._applications.insert_applications(tx, journal.applications, now=now)
        for adjustment in journal.adjustments:
            await self._applications.insert_adjustment(tx, adjustment)
        await self._ledger.discard_entries(tx, journal.to_discard, now=now)
        pending = LedgerEntryStatus.PENDING
        await self._ledger.insert_entries(tx, journal.pending, now=now, status=pending)
        await self._ledger.insert_entries(tx, journal.posted, now=now)
        await self._ledger.post_entries(tx, journal.to_post, now=now)
        changes = [c.to_row() for c in journal.changes.values() if not c.is_nothing]
        await self._credits.update_balances(tx, changes, now=now)
        await self._periods.change_receivables(tx, journal.receivables)
