"""Steps that put things right: corrections of usage, estimates, recalculations, write-offs.

See ``credit_histories``.
"""

from dataclasses import dataclass
from datetime import datetime

from tests.factories.credit_histories import Requests, Step, known_period, picked, request
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_payments import WriteOff
from tests.factories.reference_periods import Period, UsageEvent


def billed_period(subscription: ReferenceSubscription, pick: int) -> Period | None:
    """One of the billed periods, counted from the last."""
    billed = [period for period in subscription.periods if period.billed_at is not None]
    period: Period | None = picked(billed, pick)
    return period


@dataclass(frozen=True)
class Correct(Step):
    """Correct an event: to hundredths of a unit, or void it; ``where`` is it counted.

    Perhaps its period is calculated anew then.
    """

    pick: int
    hundredths: int | None
    where: str
    is_recalculated: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without events."""
        events = [
            event
            for event in subscription.events
            if (subscription.periods[event.period].billed_at is None) == (self.where == "open")
        ]
        event: UsageEvent | None = picked(events or subscription.events, self.pick)
        if event is None:
            return
        if self.hundredths is None:
            yield request("void_event", number=event.number)
        else:
            quantity = f"{self.hundredths // 100}.{self.hundredths % 100:02}"
            yield request("amend", number=event.number, quantity=quantity)
        period = subscription.periods[event.period]
        if self.is_recalculated and period.billed_at is not None:
            yield request("recalculate", number=period.number)


@dataclass(frozen=True)
class EstimatePeriod(Step):
    """Estimate the ``open`` period, or one that is ``billed``."""

    where: str

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing where there is no such period."""
        period = known_period(subscription, self.where)
        if period is not None:
            yield request("estimate_period", period=period.number)


@dataclass(frozen=True)
class Recalculate(Step):
    """Calculate a billed period anew, perhaps while the invoicing service is down."""

    pick: int
    is_delivered: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing where no period is billed."""
        period = billed_period(subscription, self.pick)
        if period is None:
            return
        yield request("recalculate", number=period.number, is_delivered=self.is_delivered)
        if not self.is_delivered:
            yield request("deliver_recalculations", number=period.number)


@dataclass(frozen=True)
class GiveUp(Step):
    """Write off some percent of what a billed period owes, or all without saying how much."""

    pick: int
    percent: int

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Periods that owe something first: of the others there is nothing to give up."""
        billed = [p for p in subscription.periods if p.billed_at is not None]
        owed = {p.number: subscription.books.receivable(p.number, now) for p in billed}
        numbers = [number for number, amount in owed.items() if amount > 0] or list(owed)
        number: int | None = picked(numbers, self.pick)
        if number is not None:
            yield request("write_off", period=number, amount=owed[number] * self.percent // 100)


@dataclass(frozen=True)
class Recover(Step):
    """Take some percent of a write-off back, or all without saying how much."""

    pick: int
    percent: int

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without write-offs."""
        write_off: WriteOff | None = picked(subscription.write_offs, self.pick)
        if write_off is not None:
            amount = write_off.amount * self.percent // 100
            yield request("recover", number=write_off.number, amount=amount)
