"""Lets credits pay the usage of pay-as-you-go subscriptions in the transaction that takes it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers
from billing.domain.credit_consumption import CreditBook, consume, segment_number, segments_of
from billing.domain.credits import CreditApplicationKind
from billing.domain.subscriptions import CreditApplicationMode
from billing.domain.usage import AcceptedUsage, UsageBook
from billing.services.credit_expiry import CreditExpiry
from billing.services.credit_journal import CreditPosting
from billing.services.credit_reading import CreditReader
from billing.store.database import Transaction

_Accepted = Mapping[UUID, Sequence[AcceptedUsage]]


class RealtimeCredits:
    """Applies credits to usage as it arrives, by the time of the usage, as a run would."""

    def __init__(self, reader: CreditReader, posting: CreditPosting, expiry: CreditExpiry) -> None:
        self._expiry = expiry
        self._reader = reader
        self._posting = posting

    async def bring_up_to_date(
        self, tx: Transaction, books: Iterable[UsageBook], *, now: datetime
    ) -> None:
        """Let earlier usage have what is over by now, before new usage is stored.

        Nothing expires here: usage that is a little late still finds its credit.
        """
        realtime = [book.subscription for book in books if _is_realtime(book)]
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
        realtime = {book.subscription.id: book for book in books if _is_realtime(book)}
        if not realtime:
            return
        live = await self._reader.read_live_credits(tx, realtime)
        paying = [realtime[subscription_id] for subscription_id in sorted(live)]
        if not paying:
            return
        usage = _by_period(accepted, live)
        periods = [p for book in paying for p in book.open_periods.periods if p.id in usage]
        cuts = await self._reader.read_cuts(tx, periods)
        journal = await self._posting.open_journal(
            tx, {book.subscription.currency for book in paying}, now=now
        )
        for book in paying:
            credit_book = CreditBook(live[book.subscription.id])
            for period in book.open_periods.periods:
                if period.id not in usage:
                    continue
                moments = cuts.get(period.id, ())
                segments = segments_of(period, moments, _cost_by_segment(usage[period.id], moments))
                components = book.open_periods.version_of(period).components
                journal.apply(
                    consume(credit_book, period, segments, components),
                    book.subscription,
                    transactions[book.subscription.id],
                    kind=CreditApplicationKind.REALTIME,
                    billing_period_id=period.id,
                    calculation_run_id=identifiers.new_id(),
                )
        await self._posting.write(tx, journal)


def _is_realtime(book: UsageBook) -> bool:
    return book.subscription.credit_application is CreditApplicationMode.REALTIME


def _by_period(accepted: Iterable[AcceptedUsage], live: Mapping[UUID, object]) -> _Accepted:
    """Return the new usage that a credit may pay, by its period."""
    by_period: dict[UUID, list[AcceptedUsage]] = {}
    for usage in accepted:
        if usage.event.subscription_id in live and usage.rated.cost_minor > 0:
            by_period.setdefault(usage.rated.tally.billing_period_id, []).append(usage)
    return by_period


def _cost_by_segment(
    accepted: Iterable[AcceptedUsage], moments: Sequence[datetime]
) -> dict[tuple[UUID, int], int]:
    costs: dict[tuple[UUID, int], int] = {}
    for usage in accepted:
        number = segment_number(moments, usage.event.event_timestamp)
        key = (usage.rated.tally.component.id, number)
        costs[key] = costs.get(key, 0) + usage.rated.cost_minor
    return costs
