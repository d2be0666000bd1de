"""Lets credits pay the usage of pay-as-you-go subscriptions in the transaction that takes it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.credit_consumption import (
    CreditBook,
    NewApplication,
    Segment,
    consume,
    consume_last,
    segment_number,
    segments_of,
)
from billing.domain.credits import CreditApplicationKind
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.subscriptions import CreditApplicationMode, Subscription
from billing.domain.usage import AcceptedUsage, UsageBook
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.open_periods import PeriodReader
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import Transaction
from billing.store.usage_corrections import UsageCorrectionStore


class AddedCost(NamedTuple):
    """What usage of a moment adds to a component's cost, in minor units."""

    component_id: UUID
    event_timestamp: datetime
    amount_minor: int


class Payer(NamedTuple):
    """A locked subscription whose usage grew, with the ledger transaction that says so."""

    subscription: Subscription
    open_periods: OpenPeriods
    ledger_transaction_id: UUID


class RealtimeCredits:
    """Applies credits to usage as it arrives, by the time of the usage, as a run would."""

    def __init__(
        self,
        reader: CreditReader,
        period_reader: PeriodReader,
        periods: BillingPeriodStore,
        corrections: UsageCorrectionStore,
        posting: CreditPosting,
        expiry: CreditExpiry,
    ) -> None:
        self._reader = reader
        self._period_reader = period_reader
        self._periods = periods
        self._corrections = corrections
        self._posting = posting
        self._expiry = expiry

    async def bring_up_to_date(
        self, tx: Transaction, books: Iterable[UsageBook], *, now: datetime
    ) -> None:
        """Let earlier usage have what is over by now, before new usage is stored.

        Nothing expires here: usage that is a little late still finds its credit.
        """
        realtime = [book.subscription for book in books if _is_realtime(book.subscription)]
        if realtime:
            await self._expiry.pay_overdue(tx, realtime, now=now)

    async def apply(
        self,
        tx: Transaction,
        accepted: Iterable[AcceptedUsage],
        books: Iterable[UsageBook],
        transactions: Mapping[UUID, UUID],
        *,
        now: datetime,
    ) -> None:
        """Pay the new usage of locked subscriptions, in their ledger transactions of the call."""
        payers = [
            Payer(book.subscription, book.open_periods, transactions[book.subscription.id])
            for book in books
            if _is_realtime(book.subscription)
        ]
        if payers:
            await self.pay(tx, payers, _by_period(accepted), now=now)

    async def pay(
        self,
        tx: Transaction,
        payers: Iterable[Payer],
        costs: Mapping[UUID, Sequence[AddedCost]],
        *,
        now: datetime,
    ) -> None:
        """Let credits pay what was added to open periods; ``costs`` are by period.

        Only of locked subscriptions that pay as they go.
        """
        realtime = {p.subscription.id: p for p in payers if _is_realtime(p.subscription)}
        if not realtime:
            return
        live = await self._reader.read_live_credits(tx, realtime)
        paying = [realtime[subscription_id] for subscription_id in sorted(live)]
        if not paying:
            return
        periods = [p for payer in paying for p in payer.open_periods.periods if p.id in costs]
        cuts = await self._reader.read_cuts(tx, periods)
        corrected = await self._corrections.list_corrected_periods(tx, periods)
        currencies = {payer.subscription.currency for payer in paying}
        journal = await self._posting.open_journal(tx, currencies, now=now)
        for payer in paying:
            credit_book = CreditBook(live[payer.subscription.id])
            for period in payer.open_periods.periods:
                if period.id not in costs:
                    continue
                moments = cuts.get(period.id, ())
                segments = segments_of(period, moments, _cost_by_segment(costs[period.id], moments))
                components = payer.open_periods.version_of(period).components
                journal.apply(
                    await self._pay_rest(tx, payer, period, segments, components, credit_book)
                    if period.id in corrected
                    else consume(credit_book, period, segments, components),
                    payer.subscription,
                    payer.ledger_transaction_id,
                    kind=CreditApplicationKind.REALTIME,
                    billing_period_id=period.id,
                    calculation_run_id=identifiers.new_id(),
                )
        await self._posting.write(tx, journal)

    async def _pay_rest(
        self,
        tx: Transaction,
        payer: Payer,
        period: BillingPeriod,
        segments: Sequence[Segment],
        components: Sequence[Component],
        book: CreditBook,
    ) -> list[NewApplication]:
        """Pay what was added to corrected usage, as far as no payment has paid for it already.

        A payment of the period stays when its usage is corrected: it may pay too much by now.
        """
        _, tallies = await self._period_reader.read_usage(tx, payer.subscription, period)
        rated = {owner: tally.rated_minor for owner, tally in tallies.items()}
        covered = await self._reader.read_covered_period(tx, period, components, rated)
        for component in components:
            paid = sum(a.live_minor for a in covered.applications if a.component_id == component.id)
            added = sum(segment.uncovered.get(component.id, 0) for segment in segments)
            too_much = paid - (rated.get(component.id, 0) - added)
            for segment in segments:
                too_much = segment.cover(component.id, too_much)
        current, _ = await self._periods.get_period(tx, payer.subscription.id, period.id)
        *earlier, last = segments
        applications = consume(book, period, earlier, components)
        applied_minor = sum(application.amount_minor for application in applications)
        owed_minor = current.receivable_minor + sum(rated.values()) - applied_minor
        return applications + consume_last(
            book, period, last, components, [], limit_minor=max(0, owed_minor)
        )


def _is_realtime(subscription: Subscription) -> bool:
    return subscription.credit_application is CreditApplicationMode.REALTIME


def _by_period(accepted: Iterable[AcceptedUsage]) -> dict[UUID, list[AddedCost]]:
    """Return what new usage costs, by its period."""
    by_period: dict[UUID, list[AddedCost]] = {}
    for event, tally, cost_minor in (
        (usage.event, usage.rated.tally, usage.rated.cost_minor) for usage in accepted
    ):
        if cost_minor > 0:
            cost = AddedCost(tally.component.id, event.event_timestamp, cost_minor)
            by_period.setdefault(tally.billing_period_id, []).append(cost)
    return by_period


def _cost_by_segment(
    added: Iterable[AddedCost], moments: Sequence[datetime]
) -> dict[tuple[UUID, int], int]:
    costs: dict[tuple[UUID, int], int] = {}
    for cost in added:
        key = (cost.component_id, segment_number(moments, cost.event_timestamp))
        costs[key] = costs.get(key, 0) + cost.amount_minor
    return costs
