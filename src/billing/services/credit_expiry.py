"""Expires credits whose time is over, after they have paid the usage before that.

It does what the billing run would do at the period's end, only earlier: the result does not depend
on when it runs. What may still pay a period that has ended is left to the run that bills it.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_consumption import PeriodCredits, consume, segments_of
from billing.domain.credits import CreditApplicationKind, ExpiryOutcome, UsageCredit
from billing.domain.errors import DatabaseUnavailable
from billing.domain.ledger import LedgerSourceType
from billing.domain.periods import OpenPeriods
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services.credit_journal import CreditJournal, CreditPosting
from billing.services.credit_reading import CreditReader
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock
from billing.store.credits import CreditStore, PeriodSpan
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.ledger import LedgerStore, NewLedgerTransaction
from billing.store.subscriptions import SubscriptionStore

_logger = logging.getLogger(__name__)
_BATCH_SIZE: Final = 200


@dataclass(slots=True)
class _Expired:
    """What was done, so far; amounts in minor units by currency."""

    expired_count: int = 0
    deferred_count: int = 0
    amounts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Expired") -> None:
        self.expired_count += other.expired_count
        self.deferred_count += other.deferred_count
        self.amounts.update(other.amounts)


class CreditExpiry:
    """Expires credits, of a whole tenant or of the subscriptions that somebody works on."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        credits_: CreditStore,
        period_reader: PeriodReader,
        credit_reader: CreditReader,
        ledger: LedgerStore,
        posting: CreditPosting,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._credits = credits_
        self._period_reader = period_reader
        self._credit_reader = credit_reader
        self._ledger = ledger
        self._posting = posting
        self._clock = clock

    async def expire_credits(self, scope: Scope, *, subscription_id: UUID | None) -> ExpiryOutcome:
        """Expire what is over by now, a batch of subscriptions at a time.

        A subscription that cannot be brought up to date is logged and stops nobody else. Raises
        ResourceNotFound for an unknown subscription.
        """
        done, failed_count, after = _Expired(), 0, None
        now = self._clock()
        while True:
            async with self._database.transaction(scope) as tx:
                if subscription_id is not None:
                    await self._subscriptions.get_subscription(tx, subscription_id)
                batch = await self._credits.list_overdue_subscriptions(
                    tx, now=now, subscription_id=subscription_id, after=after, limit=_BATCH_SIZE
                )
            failed_count += await self._expire_batch(scope, batch, done)
            if len(batch) < _BATCH_SIZE:
                return ExpiryOutcome(
                    done.expired_count, done.deferred_count, failed_count, dict(done.amounts)
                )
            after = batch[-1]

    async def _expire_batch(self, scope: Scope, batch: Sequence[UUID], done: _Expired) -> int:
        """Expire a batch at once, or one by one if that fails; return how many failed."""
        if not batch:
            return 0
        try:
            done.add(await self._expire(scope, batch))
        except Exception as error:
            if isinstance(error, DatabaseUnavailable):
                raise
            if len(batch) == 1:
                typeid = identifiers.to_typeid(identifiers.SUBSCRIPTION, batch[0])
                _logger.exception("credits of %s cannot be expired", typeid)
                return 1
            return sum([await self._expire_batch(scope, [one], done) for one in batch])
        return 0

    @retried_on_conflict
    async def _expire(self, scope: Scope, subscription_ids: Sequence[UUID]) -> _Expired:
        async with self._database.transaction(scope) as tx:
            subscriptions = await self._subscriptions.lock_subscriptions(tx, subscription_ids)
            return await self._settle(tx, list(subscriptions.values()), now=self._clock())

    async def settle_overdue(
        self, tx: Transaction, subscriptions: Collection[Subscription], *, now: datetime
    ) -> None:
        """Bring locked subscriptions up to date before somebody judges their credits.

        Usage from before an expiry is paid even if nothing is left to expire: who comes later must
        not find it.
        """
        await self._settle(tx, subscriptions, now=now)

    async def pay_overdue(
        self, tx: Transaction, subscriptions: Collection[Subscription], *, now: datetime
    ) -> None:
        """Let usage from before an expiry be paid, and expire nothing yet."""
        await self._settle(tx, subscriptions, now=now, expires=False)

    async def _settle(
        self,
        tx: Transaction,
        subscriptions: Collection[Subscription],
        *,
        now: datetime,
        expires: bool = True,
    ) -> _Expired:
        ids = [subscription.id for subscription in subscriptions]
        await self._credit_reader.discard_estimates(tx, ids, now=now)
        live = await self._credit_reader.read_live_credits(tx, ids)
        touched = [subscription for subscription in subscriptions if subscription.id in live]
        if not touched:
            return _Expired()
        open_periods = await self._period_reader.read_open_periods(tx, touched)
        current = [listed.oldest for listed in open_periods.values() if listed.periods]
        until = await self._credits.list_last_expiries(
            tx,
            [PeriodSpan(p.id, p.subscription_id, p.period_start, p.period_end) for p in current],
            now=now,
        )
        over = {s.id: [c for c in live[s.id] if expires and c.is_over(now)] for s in touched}
        due = {s.id: _due(over[s.id], open_periods[s.id]) for s in touched}
        done = _Expired(deferred_count=sum(len(over[s.id]) - len(due[s.id]) for s in touched))
        ended = {period.subscription_id for period in current if period.id in until}
        touched = [s for s in touched if due[s.id] or s.id in ended]
        if touched:
            await self._expire_due(tx, touched, open_periods, due, until, done, now=now)
        return done

    async def _expire_due(
        self,
        tx: Transaction,
        subscriptions: Sequence[Subscription],
        open_periods: Mapping[UUID, OpenPeriods],
        due: Mapping[UUID, Collection[UsageCredit]],
        until: Mapping[UUID, datetime],
        done: _Expired,
        *,
        now: datetime,
    ) -> None:
        tallies = await self._period_reader.read_tallies(tx, open_periods)
        current = [open_periods[s.id].oldest for s in subscriptions if open_periods[s.id].periods]
        period_credits = await self._credit_reader.read_period_credits(
            tx, current, tallies, now=now
        )
        journal = await self._posting.open_journal(tx, {s.currency for s in subscriptions}, now=now)
        transactions = []
        for subscription in subscriptions:
            listed = open_periods[subscription.id]
            transaction = NewLedgerTransaction(
                identifiers.new_id(), subscription.id, "Expiry of credits"
            )
            gone = [(credit, credit.remaining_minor) for credit in due[subscription.id]]
            before = journal.entry_count
            if listed.periods:
                credits_ = period_credits[listed.oldest.id]
                moment = until.get(listed.oldest.id)
                if moment is not None:
                    _consume_until(journal, subscription, listed, credits_, moment, transaction.id)
                gone = [(credit, credits_.book.remaining[credit.id]) for credit, _ in gone]
            for credit, left_minor in gone:
                if left_minor > 0:
                    journal.expire(credit, left_minor, transaction.id)
                    done.expired_count += 1
                    done.amounts[credit.currency] += left_minor
            if journal.entry_count > before:
                transactions.append(transaction)
        if not transactions:
            return
        await self._ledger.insert_transactions(
            tx,
            transactions,
            source_type=LedgerSourceType.CREDIT_EXPIRATION,
            source_id=identifiers.new_id(),
            now=now,
        )
        await self._posting.write(tx, journal)


def _due(overdue: Collection[UsageCredit], open_periods: OpenPeriods) -> list[UsageCredit]:
    """Leave out what may still pay the current period: its run has to come first."""
    if not open_periods.periods:
        return list(overdue)
    end = open_periods.oldest.period_end
    return [c for c in overdue if c.expires_at is not None and c.expires_at < end]


def _consume_until(
    journal: CreditJournal,
    subscription: Subscription,
    open_periods: OpenPeriods,
    credits_: PeriodCredits,
    moment: datetime,
    ledger_transaction_id: UUID,
) -> None:
    """Let the credits pay the usage of the current period up to a moment, as its run would."""
    period = open_periods.oldest
    components = open_periods.version_of(period).components
    usage = credits_.usage
    if usage is None:
        # Nothing divides the period: what is over now was over before it began.
        return
    segments = [
        segment
        for segment in segments_of(period, credits_.cuts, usage, credits_.prior)
        if segment.end <= moment
    ]
    journal.apply(
        consume(credits_.book, period, segments, components),
        subscription,
        ledger_transaction_id,
        kind=CreditApplicationKind.RUN,
        billing_period_id=period.id,
        calculation_run_id=identifiers.new_id(),
    )
