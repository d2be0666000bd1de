"""Reads what there is to pay billing periods with, a set of locked subscriptions at once."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from billing.domain.catalog import Component
from billing.domain.credit_consumption import CreditBook, PeriodCredits, cuts_within
from billing.domain.credit_reassignment import CoveredPeriod
from billing.domain.credits import UsageCredit
from billing.domain.periods import BillingPeriod
from billing.domain.usage import UsageTally
from billing.store.calculations import CalculationStore
from billing.store.credit_applications import CreditApplicationStore, PeriodCoverage
from billing.store.credits import CreditStore, PeriodSpan
from billing.store.database import Transaction
from billing.store.ledger import LedgerStore

Tallies = Mapping[UUID, Mapping[tuple[UUID, UUID], UsageTally]]
"""Usage aggregates by subscription, by (period, component)."""


class CreditReader:
    """Puts together credits, how they divide periods, and what was applied before."""

    def __init__(
        self,
        credits_: CreditStore,
        applications: CreditApplicationStore,
        calculations: CalculationStore,
        ledger: LedgerStore,
    ) -> None:
        self._credits = credits_
        self._applications = applications
        self._calculations = calculations
        self._ledger = ledger

    async def read_period_credits(
        self,
        tx: Transaction,
        periods: Sequence[BillingPeriod],
        tallies: Tallies,
        *,
        now: datetime,
    ) -> dict[UUID, PeriodCredits]:
        """Return by period what can pay it; one period a subscription.

        Estimates' pending applications to the periods are discarded first: this replaces them.
        """
        coverage = await self._applications.list_coverage(tx, [p.id for p in periods])
        estimated = [period_id for period_id, found in coverage.items() if found.has_pending]
        await self._discard_pending(tx, estimated, now=now)
        live = await self._credits.lock_live_credits(tx, [p.subscription_id for p in periods])
        paid = [period for period in periods if period.subscription_id in live]
        cuts = await self.read_cuts(tx, paid)
        unpaid = [period for period in paid if not _is_paid(period, coverage, tallies)]
        usage = await self._read_divided_usage(tx, unpaid, cuts, tallies)
        return {
            period.id: PeriodCredits(
                CreditBook(live.get(period.subscription_id, [])),
                cuts.get(period.id, ()),
                usage.get(period.id),
                coverage[period.id].posted if period.id in coverage else (),
            )
            for period in periods
        }

    async def discard_estimates(
        self, tx: Transaction, subscription_ids: Collection[UUID], *, now: datetime
    ) -> None:
        """Give back what estimates hold of the credits of locked subscriptions.

        Whoever judges credits does this first: an estimate is no claim on them.
        """
        estimated = await self._calculations.discard_estimates(tx, subscription_ids)
        await self._discard_pending(tx, estimated, now=now)

    async def has_releasable(self, tx: Transaction, period: BillingPeriod) -> bool:
        """Whether credits pay usage of a period; payments of the period are not released."""
        applications = await self._applications.list_live(tx, period.id)
        return any(a.component_id is not None and not a.is_settlement for a in applications)

    async def read_covered_period(
        self,
        tx: Transaction,
        period: BillingPeriod,
        components: Sequence[Component],
        rated_minor: Mapping[UUID, int],
    ) -> CoveredPeriod:
        """Return the usage of one period by time, as it is rated now, and what pays it."""
        cuts = (await self.read_cuts(tx, [period])).get(period.id, [])
        usage: Mapping[tuple[UUID, int], int] = {
            (component_id, 0): amount_minor for component_id, amount_minor in rated_minor.items()
        }
        if cuts:
            usage = await self._sum_usage(tx, period, cuts, sum(rated_minor.values()))
        applications = await self._applications.list_live(tx, period.id)
        return CoveredPeriod(period, components, cuts, usage, applications)

    async def _sum_usage(
        self, tx: Transaction, period: BillingPeriod, cuts: Sequence[datetime], rated_minor: int
    ) -> Mapping[tuple[UUID, int], int]:
        """Return the usage of a divided period by segment; it adds up to what is rated."""
        divided = [(period, cuts)]
        usage = (await self._applications.sum_usage_by_segment(tx, divided))[period.id]
        if sum(usage.values()) == rated_minor:
            return usage
        again = await self._applications.sum_usage_by_segment(tx, divided, of_any_age=True)
        assert sum(again[period.id].values()) == rated_minor, "every cost has its entry"
        return again[period.id]

    async def lock_credits(
        self, tx: Transaction, subscription_id: UUID, credit_ids: Collection[UUID]
    ) -> dict[UUID, UsageCredit]:
        """Return, and lock, the live credits of a locked subscription and these, by id."""
        live = await self._credits.lock_live_credits(tx, [subscription_id])
        found = {credit.id: credit for credit in live.get(subscription_id, [])}
        for credit_id in sorted(set(credit_ids) - set(found)):
            found[credit_id] = await self._credits.lock_credit(tx, credit_id)
        return found

    async def read_live_credits(
        self, tx: Transaction, subscription_ids: Collection[UUID]
    ) -> dict[UUID, list[UsageCredit]]:
        """Return, and lock, the credits of which something can be spent, by subscription."""
        return await self._credits.lock_live_credits(tx, subscription_ids)

    async def read_cuts(
        self, tx: Transaction, periods: Sequence[BillingPeriod]
    ) -> dict[UUID, list[datetime]]:
        """Return by period the moments that divide it, where there are any."""
        if not periods:
            return {}
        moments = await self._credits.list_moments(
            tx, [PeriodSpan(p.id, p.subscription_id, p.period_start, p.period_end) for p in periods]
        )
        return {
            period.id: cuts_within(period, moments[period.id])
            for period in periods
            if period.id in moments
        }

    async def _discard_pending(
        self, tx: Transaction, billing_period_ids: Collection[UUID], *, now: datetime
    ) -> None:
        if billing_period_ids:
            pending = await self._applications.list_pending(tx, billing_period_ids)
            await self._ledger.discard_entries(tx, [p.entry for p in pending], now=now)
            await self._applications.release_pending(tx, pending, now=now)

    async def _read_divided_usage(
        self,
        tx: Transaction,
        periods: Sequence[BillingPeriod],
        cuts: Mapping[UUID, Sequence[datetime]],
        tallies: Tallies,
    ) -> dict[UUID, dict[tuple[UUID, int], int]]:
        """Return the usage of divided periods by segment; it adds up to their aggregates."""
        divided = [(period, cuts[period.id]) for period in periods if period.id in cuts]
        usage = await self._applications.sum_usage_by_segment(tx, divided)
        incomplete = [
            (period, moments)
            for period, moments in divided
            if not _is_complete(period, usage[period.id], tallies)
        ]
        again = await self._applications.sum_usage_by_segment(tx, incomplete, of_any_age=True)
        return usage | again


def _is_paid(
    period: BillingPeriod, coverage: Mapping[UUID, PeriodCoverage], tallies: Tallies
) -> bool:
    """Whether earlier applications pay all usage of a period: then its times do not matter."""
    paid_minor: Counter[UUID] = Counter()
    for applied in coverage[period.id].posted if period.id in coverage else ():
        if applied.component_id is not None:
            paid_minor[applied.component_id] += applied.amount_minor
    return all(
        paid_minor[component_id] >= tally.rated_minor
        for (period_id, component_id), tally in tallies.get(period.subscription_id, {}).items()
        if period_id == period.id
    )


def _is_complete(
    period: BillingPeriod, usage: Mapping[tuple[UUID, int], int], tallies: Tallies
) -> bool:
    rated_minor = sum(
        tally.rated_minor
        for (period_id, _), tally in tallies.get(period.subscription_id, {}).items()
        if period_id == period.id
    )
    return sum(usage.values()) == rated_minor
