"""What the reference knows of usage: events as they come, late ones that are held, corrections."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from tests.factories.reference_books import RECEIVABLE, USAGE_REVENUE, Account, Posting
from tests.factories.reference_credits import Cost, demands_of
from tests.factories.reference_periods import Period, UsageEvent
from tests.factories.reference_subscription import SubscriptionBooks, refuse_if

MAX_CLOCK_LEAD = timedelta(hours=1)


@dataclass
class UsageBooks(SubscriptionBooks):
    """A subscription's usage events."""

    events: list[UsageEvent] = field(default_factory=list)

    def use(self, now: datetime, events: Sequence[tuple[int, str, datetime]]) -> list[str]:
        """Rate events (component, quantity, moment); return each one's refusal, or nothing."""
        refusals = [self._refusal_of(at, now) for _, _, at in events]
        if self.is_realtime and not all(refusals):
            self.discard_estimate(now)
            if self.oldest_open is not None:
                self._consume_until_last_end(self.oldest_open, now)
        before = {period.number: len(period.costs) for period in self.periods}
        for event, refusal in zip(events, refusals, strict=True):
            if not refusal:
                self._store(*event, now)
        if self.is_realtime:
            for period in self.open_periods:
                self._pay_at_once(period, period.costs[before.get(period.number, 0) :], now)
        return refusals

    def _pay_at_once(self, period: Period, costs: Sequence[Cost], now: datetime) -> None:
        """Let credits pay what has just been counted, and payments have not paid already."""
        segments = self._segments(period)
        demands = dict(demands_of(costs, segments))
        for component in self.plan.components:
            paid = sum(a.live for a in self._applied_to(period) if a.component == component)
            used = sum(cost.amount for cost in period.costs if cost.component == component)
            added = sum(cost.amount for cost in costs if cost.component == component)
            too_much = max(0, paid - (used - added))
            for key in sorted(key for key in demands if key[1] == component):
                amount = min(too_much, demands[key])
                demands[key] -= amount
                too_much -= amount
        self._consume(period, segments, demands, "realtime", now)

    def _refusal_of(self, at: datetime, now: datetime) -> str:
        if self.is_cancelled:
            return "SUBSCRIPTION_CANCELLED"
        if at > now + MAX_CLOCK_LEAD:
            return "EVENT_IN_FUTURE"
        if at < self.started_at:
            return "EVENT_BEFORE_SUBSCRIPTION"
        if self.cancel_at is not None and at >= self.cancel_at:
            return "EVENT_AFTER_CANCELLATION"
        return ""

    def _store(self, component: int, quantity: str, at: datetime, now: datetime) -> None:
        self._open_until(min(at, now))
        period = self._period_of(at)
        event = UsageEvent(len(self.events), component, at, Decimal(quantity), period.number)
        self.events.append(event)
        self._count("usage_cost", period, component, at, event.quantity, now)

    def _count(
        self,
        entry_type: str,
        period: Period,
        component: int,
        at: datetime,
        change: Decimal,
        now: datetime,
    ) -> Cost:
        """Rate a change of quantity on top of what counts; in a billed period it stays pending."""
        before = period.quantity(component) + period.pending_quantity(component)
        amount = self.plan.charge(component, before + change) - self.plan.charge(component, before)
        cost = Cost(component, at, amount)
        is_pending = period.billed_at is not None
        posting = self._post_usage(entry_type, amount, period, now, is_pending=is_pending)
        if is_pending:
            period.pending.append((cost, posting))
            period.pending_quantities[component] = period.pending_quantity(component) + change
        else:
            period.costs.append(cost)
            period.quantities[component] = period.quantity(component) + change
        return cost

    def _post_usage(
        self, entry_type: str, cost: int, period: Period, now: datetime, *, is_pending: bool = False
    ) -> Posting:
        legs = Account(RECEIVABLE), Account(USAGE_REVENUE)
        debit, credit = legs if cost >= 0 else reversed(legs)
        return self.books.post(
            entry_type, -cost, debit, credit, now, period=period.number, is_pending=is_pending
        )

    def _period_of(self, at: datetime) -> Period:
        """The period of a moment; the last one for usage ahead of it.

        Of late usage that is not held, the oldest open one.
        """
        periods = self.periods if self.plan.holds_late_usage else self.open_periods
        return max(
            (period for period in periods if period.start <= at),
            key=lambda period: period.start,
            default=self.open_periods[0],
        )

    # Corrections

    def amend(self, now: datetime, number: int, quantity: str) -> None:
        """Tell the right quantity of an event."""
        event = self.events[number]
        refuse_if(usage_event_already_voided=event.is_voided)
        refuse_if(usage_event_unchanged=event.quantity == Decimal(quantity))
        self._correct(event, Decimal(quantity), now)

    def void_event(self, now: datetime, number: int) -> None:
        """Take an event out, for good."""
        event = self.events[number]
        refuse_if(usage_event_already_voided=event.is_voided)
        self._correct(event, Decimal(0), now)
        event.is_voided = True

    def _correct(self, event: UsageEvent, quantity: Decimal, now: datetime) -> None:
        period = self.periods[event.period]
        is_open = period.billed_at is None
        if is_open:
            self.bring_up_to_date(now)
        change, event.quantity = quantity - event.quantity, quantity
        cost = self._count("usage_cost_corrected", period, event.component, event.at, change, now)
        if not is_open:
            return
        if cost.amount < 0:
            freed = self._release(period, now)
            # An earlier period that is not billed yet has first claim on what is freed.
            if freed and period is self.oldest_open:
                self._consume_until_last_end(period, now)
            self._sweep(freed, now)
        elif self.is_realtime:
            self._pay_at_once(period, [cost], now)
