"""Use cases of usage: events in, ledger entries out, in one transaction."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.errors import FieldInvalid
from billing.domain.ledger import LedgerAccountKind, LedgerSourceType
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.domain.usage import (
    AcceptedUsage,
    UsageBook,
    UsageEvent,
    UsageEventInput,
    UsageEventResult,
    UsageRejected,
    UsageTally,
    rate_events,
)
from billing.domain.usage_meters import SubscriptionUsageMeter, SubscriptionUsageMeterStatus
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock, Metering
from billing.services.realtime_credits import RealtimeCredits
from billing.store.billing_periods import BillingPeriodStore
from billing.store.database import (
    Database,
    Transaction,
    retried_on_conflict,
)
from billing.store.ledger import LedgerStore, NewLedgerTransaction
from billing.store.ledger_accounts import LedgerAccountStore
from billing.store.subscriptions import SubscriptionStore
from billing.store.usage import (
    RatedEvent,
    RatedMeter,
    UsageStore,
    properties_json,
)
from billing.store.usage_meters import SubscriptionUsageMeterStore


class UsageService:
    """Takes usage events and tells what became of them."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        period_reader: PeriodReader,
        usage: UsageStore,
        usage_meters: SubscriptionUsageMeterStore,
        ledger: LedgerStore,
        accounts: LedgerAccountStore,
        realtime_credits: RealtimeCredits,
        metering: Metering,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._period_reader = period_reader
        self._usage = usage
        self._usage_meters = usage_meters
        self._ledger = ledger
        self._accounts = accounts
        self._realtime_credits = realtime_credits
        self._metering = metering
        self._clock = clock

    async def ingest_usage_events(
        self, scope: Scope, events: Sequence[UsageEventInput | UsageRejected]
    ) -> list[UsageEventResult]:
        """Store and rate events in the order given, and return one result an event.

        An event whose own form rules it out comes as its rejection, and leaves as its result.
        """
        well_formed = [event for event in events if isinstance(event, UsageEventInput)]
        rated = iter(await self._ingest(scope, well_formed) if well_formed else [])
        results = [
            event.to_result() if isinstance(event, UsageRejected) else next(rated)
            for event in events
        ]
        for outcome, count in Counter(result.outcome for result in results).items():
            self._metering.record_usage_events(scope.tenant_id, outcome, count=count)
        return results

    @retried_on_conflict
    async def _ingest(
        self, scope: Scope, events: Sequence[UsageEventInput]
    ) -> list[UsageEventResult]:
        async with self._database.transaction(scope) as tx:
            known = await self._usage.find_events_by_key(tx, {e.idempotency_key for e in events})
            fresh = [event for event in events if event.idempotency_key not in known]
            books = await self._open_books(tx, fresh)
            # Under the locks: nothing is recorded at a moment that was over before it was posted.
            now = self._clock()
            results, accepted = rate_events(events, known, books, now=now)
            if accepted:
                await self._realtime_credits.bring_up_to_date(tx, books.values(), now=now)
                await self._store(tx, accepted, books, now=now)
            return results

    async def _open_books(
        self, tx: Transaction, events: Sequence[UsageEventInput]
    ) -> dict[UUID, UsageBook]:
        """Lock the subscriptions of the events and read what rating needs."""
        if not events:
            return {}
        subscriptions = await self._subscriptions.lock_subscriptions(
            tx, {event.subscription_id for event in events}
        )
        open_periods = await self._period_reader.read_open_periods(tx, subscriptions.values())
        tallies = await self._period_reader.read_tallies(tx, open_periods)
        late = _subscriptions_with_late_events(events, open_periods)
        closed = await self._periods.list_closed_periods(tx, late) if late else {}
        held = await self._period_reader.read_tallies_of(
            tx, open_periods, _periods_to_hold(events, open_periods, closed)
        )
        return {
            subscription.id: UsageBook(
                subscription,
                open_periods[subscription.id],
                tallies.get(subscription.id, {}) | held.get(subscription.id, {}),
                tuple(closed.get(subscription.id, ())),
            )
            for subscription in subscriptions.values()
        }

    async def _store(
        self,
        tx: Transaction,
        accepted: Sequence[AcceptedUsage],
        books: Mapping[UUID, UsageBook],
        *,
        now: datetime,
    ) -> None:
        touched = [book for book in books.values() if book.touched]
        await self._periods.insert_periods(
            tx, [period for book in books.values() for period in book.open_periods.opened]
        )
        await self._usage.upsert_tallies(
            tx,
            [(book.subscription.id, t) for book in touched for t in book.touched.values()],
            now=now,
        )
        await self._post(tx, accepted, touched, now=now)

    async def _post(
        self,
        tx: Transaction,
        accepted: Sequence[AcceptedUsage],
        books: Sequence[UsageBook],
        *,
        now: datetime,
    ) -> None:
        """Store the events and post one usage_cost each, in one transaction a subscription."""
        transactions = {
            book.subscription.id: NewLedgerTransaction(
                identifiers.new_id(), book.subscription.id, "Usage ingestion"
            )
            for book in books
        }
        await self._ledger.insert_transactions(
            tx,
            transactions.values(),
            source_type=LedgerSourceType.USAGE_INGESTION,
            source_id=identifiers.new_id(),
            now=now,
        )
        accounts = {
            currency: await self._accounts.get_tenant_accounts(tx, currency)
            for currency in {book.subscription.currency for book in books}
        }
        meters = {
            tally.id: _to_meter(
                book.subscription,
                tally,
                transactions[book.subscription.id].id,
                accounts[book.subscription.currency][LedgerAccountKind.USAGE_REVENUE],
                is_held=book.open_periods.find(tally.billing_period_id) is None,
            )
            for book in books
            for tally in book.touched.values()
        }
        numbers = {tally_id: number for number, tally_id in enumerate(meters, start=1)}
        events = [_to_event(a, numbers[a.rated.tally.id]) for a in accepted]
        await self._usage.insert_rated_events(tx, meters.values(), events, now=now)
        await self._realtime_credits.apply(
            tx, accepted, books, {owner: t.id for owner, t in transactions.items()}, now=now
        )

    async def get_usage_event(self, scope: Scope, usage_event_id: UUID) -> UsageEvent:
        """Return an event with what became of it; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._usage.get_event(tx, usage_event_id)

    async def list_usage_events(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        usage_meter_id: UUID | None,
    ) -> Page[UsageEvent]:
        """Return a page of a subscription's events; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._usage.list_events(
                tx,
                page,
                subscription_id=subscription_id,
                billing_period_id=billing_period_id,
                usage_meter_id=usage_meter_id,
            )

    async def get_subscription_usage_meter(
        self, scope: Scope, subscription_usage_meter_id: UUID
    ) -> SubscriptionUsageMeter:
        """Return the usage of a meter in a period; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._usage_meters.get_subscription_usage_meter(
                tx, subscription_usage_meter_id
            )

    async def list_subscription_usage_meters(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        usage_meter_id: UUID | None,
        billing_period_id: UUID | None,
        status: SubscriptionUsageMeterStatus | None,
        date_from: datetime | None,
        date_to: datetime | None,
    ) -> Page[SubscriptionUsageMeter]:
        """Return a page of a subscription's usage by meter and period.

        Raises ResourceNotFound, and FieldInvalid for a date range that ends before it starts.
        """
        if date_from is not None and date_to is not None and date_to <= date_from:
            raise FieldInvalid(
                "date_to",
                f"{date_to.isoformat()} is not after date_from, {date_from.isoformat()}",
            )
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._usage_meters.list_subscription_usage_meters(
                tx,
                page,
                subscription_id=subscription_id,
                usage_meter_id=usage_meter_id,
                billing_period_id=billing_period_id,
                status=status,
                date_from=date_from,
                date_to=date_to,
            )


def _subscriptions_with_late_events(
    events: Iterable[UsageEventInput], open_periods: Mapping[UUID, OpenPeriods]
) -> set[UUID]:
    begun_at = {
        subscription_id: listed.oldest.period_start
        for subscription_id, listed in open_periods.items()
        if listed.periods
    }
    return {
        event.subscription_id
        for event in events
        if event.subscription_id in begun_at
        and event.event_timestamp < begun_at[event.subscription_id]
    }


def _periods_to_hold(
    events: Iterable[UsageEventInput],
    open_periods: Mapping[UUID, OpenPeriods],
    closed: Mapping[UUID, Sequence[BillingPeriod]],
) -> list[BillingPeriod]:
    """Return the billed periods whose plans hold the late events among these."""
    moments: dict[UUID, list[datetime]] = {}
    for event in events:
        if event.subscription_id in closed:
            moments.setdefault(event.subscription_id, []).append(event.event_timestamp)
    return [
        period
        for subscription_id, late in moments.items()
        for period in closed[subscription_id]
        if open_periods[subscription_id].version_of(period).holds_late_usage
        and any(period.holds(moment) for moment in late)
    ]


def _to_meter(
    subscription: Subscription,
    tally: UsageTally,
    ledger_transaction_id: UUID,
    revenue_account_id: UUID,
    *,
    is_held: bool,
) -> RatedMeter:
    return RatedMeter(
        tally.id,
        subscription.id,
        ledger_transaction_id,
        tally.billing_period_id,
        tally.component.usage_meter_id,
        subscription.currency,
        subscription.receivable_account_id,
        revenue_account_id,
        tally.component.name,
        is_held,
    )


def _to_event(accepted: AcceptedUsage, meter_number: int) -> RatedEvent:
    event = accepted.event
    return RatedEvent(
        meter_number,
        accepted.id,
        event.idempotency_key,
        accepted.payload_hash,
        event.quantity,
        event.event_timestamp,
        properties_json(event.properties),
        accepted.rated.disposition,
        accepted.rated.cost_minor,
    )
