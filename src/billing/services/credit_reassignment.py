"""Moves credits after the usage that they pay has changed, in the caller's journal and locks."""

from datetime import datetime
from uuid import UUID

from billing.domain.credit_reassignment import (
    CoveredPeriod,
    Reassignment,
    find_releases,
    reassign,
)
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.subscriptions import Subscription
from billing.services.credit_journal import CreditJournal
from billing.services.credit_reading import CreditReader
from billing.store.billing_periods import BillingPeriodStore
from billing.store.credits import CreditStore, PeriodSpan
from billing.store.database import Transaction


class CreditReassigner:
    """Releases what pays too much, lets it pay what nothing pays, and returns the rest."""

    def __init__(
        self, reader: CreditReader, credits_: CreditStore, periods: BillingPeriodStore
    ) -> None:
        self._reader = reader
        self._credits = credits_
        self._periods = periods

    async def release(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        covered: CoveredPeriod,
        *,
        ledger_transaction_id: UUID,
        calculation_run_id: UUID,
    ) -> Reassignment:
        """Fit the credits of an open period to its usage, as if that had always been so.

        What is freed pays at once what lies before the last expiry; the rest is left to the run,
        as is all of a period that others come before.
        """
        releases = find_releases(covered)
        if not releases:
            return Reassignment()
        period = covered.period
        until: dict[UUID, datetime] = {}
        if period.id == subscription.current_period_id:
            span = PeriodSpan(
                period.id, period.subscription_id, period.period_start, period.period_end
            )
            until = await self._credits.list_last_expiries(tx, [span], now=journal.now)
        owners = {application.usage_credit_id for application, _ in releases}
        credits_ = await self._reader.lock_credits(tx, subscription.id, owners)
        moved = reassign(covered, releases, credits_.values(), until=until.get(period.id))
        await self._write(
            tx,
            journal,
            subscription,
            period.id,
            moved,
            credits_,
            ledger_transaction_id=ledger_transaction_id,
            calculation_run_id=calculation_run_id,
        )
        return moved

    async def recalculate(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        covered: CoveredPeriod,
        *,
        owed_minor: int,
        ledger_transaction_id: UUID,
        calculation_run_id: UUID,
    ) -> Reassignment:
        """Let credits pay a billed period as its usage is now; it owes so much before that."""
        releases = find_releases(covered)
        owners = {application.usage_credit_id for application, _ in releases}
        credits_ = await self._reader.lock_credits(tx, subscription.id, owners)
        moved = reassign(
            covered,
            releases,
            credits_.values(),
            until=None,
            owed_minor=owed_minor + sum(amount_minor for _, amount_minor in releases),
        )
        await self._write(
            tx,
            journal,
            subscription,
            covered.period.id,
            moved,
            credits_,
            ledger_transaction_id=ledger_transaction_id,
            calculation_run_id=calculation_run_id,
        )
        return moved

    async def _write(
        self,
        tx: Transaction,
        journal: CreditJournal,
        subscription: Subscription,
        billing_period_id: UUID,
        moved: Reassignment,
        credits_: dict[UUID, UsageCredit],
        *,
        ledger_transaction_id: UUID,
        calculation_run_id: UUID,
    ) -> None:
        for application, amount_minor in moved.releases:
            journal.release(
                application,
                amount_minor,
                credits_[application.usage_credit_id],
                subscription,
                ledger_transaction_id,
                "Credit released: the usage costs less",
            )
        journal.apply(
            moved.applications,
            subscription,
            ledger_transaction_id,
            kind=CreditApplicationKind.RUN,
            billing_period_id=billing_period_id,
            calculation_run_id=calculation_run_id,
        )
        ends_at = await self.current_period_end(tx, subscription)
        for credit_id, amount_minor in moved.returned.items():
            if has_ended(credits_[credit_id], ends_at, now=journal.now):
                journal.sweep(credits_[credit_id], amount_minor, ledger_transaction_id)

    async def current_period_end(
        self, tx: Transaction, subscription: Subscription
    ) -> datetime | None:
        """Return the end of the oldest period that is not billed, if there is one."""
        listed = await self._periods.list_open_periods(tx, [subscription.id])
        periods = listed.get(subscription.id, [])
        return periods[0].period_end if periods else None


def has_ended(credit: UsageCredit, current_period_end: datetime | None, *, now: datetime) -> bool:
    """Whether nothing can be done any more with value that comes back to a credit.

    A credit whose time is over may still pay the current period, if it expires no earlier.
    """
    if credit.voided_at is not None or credit.expired_at is not None:
        return True
    if not credit.is_over(now):
        return False
    assert credit.expires_at is not None, "what is over has an end"
    return current_period_end is None or credit.expires_at < current_period_end
