"""Reads the open periods of locked subscriptions, with all that pricing them needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from billing.domain.catalog import Component, PlanVersion
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.subscriptions import Subscription
from billing.domain.usage import UsageTally
from billing.store.billing_periods import BillingPeriodStore
from billing.store.catalog import CatalogStore
from billing.store.database import Transaction
from billing.store.usage import UsageStore


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """The components of a period in their order, and what their usage costs, in minor units."""

    components: Sequence[Component]
    rated_minor: Mapping[UUID, int]


class PeriodReader:
    """Puts together periods, plan versions and usage aggregates, a set of subscriptions at once."""

    def __init__(
        self, periods: BillingPeriodStore, catalog: CatalogStore, usage: UsageStore
    ) -> None:
        self._periods = periods
        self._catalog = catalog
        self._usage = usage

    async def read_open_periods(
        self, tx: Transaction, subscriptions: Iterable[Subscription]
    ) -> dict[UUID, OpenPeriods]:
        """Return the open periods of each subscription; a cancelled one has none."""
        by_id = {subscription.id: subscription for subscription in subscriptions}
        periods = await self._periods.list_open_periods(tx, by_id)
        versions = await self._catalog.get_versions_of_plans(
            tx, {subscription.plan_id for subscription in by_id.values()}
        )
        return {
            subscription.id: OpenPeriods(
                periods.get(subscription.id, []), versions[subscription.plan_id]
            )
            for subscription in by_id.values()
        }

    async def read_tallies(
        self, tx: Transaction, open_periods: Mapping[UUID, OpenPeriods]
    ) -> dict[UUID, dict[tuple[UUID, UUID], UsageTally]]:
        """Return the usage aggregates of open periods, by subscription, by (period, component)."""
        every = [period for listed in open_periods.values() for period in listed.periods]
        return await self.read_tallies_of(tx, open_periods, every)

    async def read_tallies_of(
        self,
        tx: Transaction,
        open_periods: Mapping[UUID, OpenPeriods],
        periods: Sequence[BillingPeriod],
    ) -> dict[UUID, dict[tuple[UUID, UUID], UsageTally]]:
        """Return the usage aggregates of periods of these subscriptions, also of billed ones.

        By subscription, by (period, component).
        """
        if not periods:
            return {}
        owners = {period.id: period.subscription_id for period in periods}
        components = {
            (period.id, component.id): component
            for period in periods
            for component in open_periods[period.subscription_id].version_of(period).components
        }
        tallies = await self._usage.list_tallies(
            tx, owners, component_of=lambda period, component: components[period, component]
        )
        by_subscription: dict[UUID, dict[tuple[UUID, UUID], UsageTally]] = {}
        for key, tally in tallies.items():
            by_subscription.setdefault(owners[key[0]], {})[key] = tally
        return by_subscription

    async def read_usage(
        self, tx: Transaction, subscription: Subscription, period: BillingPeriod
    ) -> tuple[PlanVersion, dict[UUID, UsageTally]]:
        """Return the plan version of one period, and its usage aggregates by component."""
        versions = await self._catalog.get_versions_of_plans(tx, {subscription.plan_id})
        version = versions[subscription.plan_id][period.plan_version_id]
        by_id = {component.id: component for component in version.components}
        tallies = await self._usage.list_tallies(
            tx, [period.id], component_of=lambda _, component_id: by_id[component_id]
        )
        return version, {component_id: tally for (_, component_id), tally in tallies.items()}

    async def read_period_usage(
        self, tx: Transaction, subscription: Subscription, period: BillingPeriod
    ) -> PeriodUsage:
        """Return the usage of one period, open or closed."""
        version, tallies = await self.read_usage(tx, subscription, period)
        return PeriodUsage(
            version.components, {owner: tally.rated_minor for owner, tally in tallies.items()}
        )
