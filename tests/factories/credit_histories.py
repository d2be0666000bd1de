"""Histories of subscriptions with credits: random steps, as requests to whoever plays them.

A step says what to do in terms of what there is by then ("the last credit but one"); a request
names it. The reference and the service are asked the same requests.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from tests.factories.reference_credits import Credit
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_payments import Payment, Refund
from tests.factories.reference_periods import Period
from tests.factories.reference_subscription import Refused


@dataclass(frozen=True)
class Request:
    """A method of the reference to call, and of what stands for it at the service."""

    action: str
    arguments: Mapping[str, Any]

    def play(self, subscription: ReferenceSubscription, now: datetime) -> Any:
        """Ask the reference; raises Refused."""
        return getattr(subscription, self.action)(now, **self.arguments)


def without_late_usage(
    each: Request, subscription: ReferenceSubscription, now: datetime
) -> Request:
    """Move usage from before a credit's end that is over to that end.

    Usage is paid by a credit that nobody has expired yet: late usage tells whether somebody has.
    Usage that is held does not: it is paid by the recalculation, which expires what is over first.
    """
    ends = [credit.expires_at for credit in subscription.credits if credit.is_over(now)]
    last_end = max((end for end in ends if end is not None), default=None)
    if each.action != "use" or last_end is None:
        return each
    held = [p for p in subscription.periods if p.billed_at and subscription.plan.holds_late_usage]
    events = [
        (what, much, when if any(p.start <= when < p.end for p in held) else max(when, last_end))
        for what, much, when in each.arguments["events"]
    ]
    return request("use", events=events)


def request(action: str, **arguments: Any) -> Request:
    """Write a request."""
    return Request(action, arguments)


Requests: TypeAlias = Iterator[Request]


@dataclass(frozen=True)
class Step:
    """Something to do to one subscription, or to all; hours pass first."""

    hours: int
    subscription: int

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """What to ask, one after the other as long as nothing is refused."""
        raise NotImplementedError


def picked(things: Sequence[Any], pick: int) -> Any:
    """One of the things, counted from the last; None of none."""
    return things[-1 - pick % len(things)] if things else None


@dataclass(frozen=True)
class Use(Step):
    """Send usage in one call; events are (component, hundredths of a unit, hours ago)."""

    events: Sequence[tuple[int, int, int]]

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Usage of before the subscription's beginning is left out."""
        events = [
            (component, f"{quantity // 100}.{quantity % 100:02}", now - timedelta(hours=ago))
            for component, quantity, ago in self.events
        ]
        events = [event for event in events if event[2] >= subscription.started_at]
        if events:
            yield request("use", events=events)


@dataclass(frozen=True)
class Grant(Step):
    """Grant a credit that begins in some hours, or some hours ago, and lasts for some hours.

    Its ends may be aligned with those of a period. ``scope`` is of the kinds of limits there are.
    """

    amount: int
    begins_in: int | None
    lasts: int | None
    priority: int
    covers_charges: bool
    scope: str

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Of the periods only the oldest open one and the last billed one are known outside."""
        begins_in, lasts = self.begins_in, self.lasts
        effective_at = None if begins_in is None else on_the_hour(now, begins_in)
        expires_at = None if lasts is None else on_the_hour(effective_at or now, lasts)
        if expires_at is not None and lasts == 0:
            expires_at = subscription.periods[-1].end
        period = known_period(subscription, self.scope)
        yield request(
            "grant",
            amount=self.amount,
            effective_at=effective_at,
            expires_at=expires_at,
            priority=self.priority,
            covers_charges=self.covers_charges,
            period=None if period is None else period.number,
            component=int(self.scope[-1]) if self.scope.startswith("component") else None,
        )


def known_period(subscription: ReferenceSubscription, name: str) -> Period | None:
    """The period that a step calls ``open`` or ``billed``, if there is one."""
    if name == "open":
        return subscription.oldest_open
    billed = [period for period in subscription.periods if period.billed_at is not None]
    return billed[-1] if billed and name == "billed" else None


def on_the_hour(moment: datetime, hours: int) -> datetime:
    """The beginning of the hour some hours later."""
    return moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=hours)


@dataclass(frozen=True)
class Void(Step):
    """Void a credit."""

    pick: int

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without credits."""
        credit: Credit | None = picked(subscription.credits, self.pick)
        if credit is not None:
            yield request("void", number=credit.number)


@dataclass(frozen=True)
class Adjust(Step):
    """Add to a credit, or take back."""

    pick: int
    amount: int
    allow_deficit: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without credits."""
        credit: Credit | None = picked(subscription.credits, self.pick)
        if credit is not None:
            allow_deficit = self.allow_deficit and self.amount < 0
            yield request(
                "adjust", number=credit.number, amount=self.amount, allow_deficit=allow_deficit
            )


@dataclass(frozen=True)
class Pay(Step):
    """Begin a payment and perhaps confirm it; ``settles`` is ``open``, ``billed`` or nothing."""

    amount: int
    settles: str
    is_confirmed: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Where there is no such period, it is a top-up."""
        period = known_period(subscription, self.settles)
        number = len(subscription.payments)
        yield request(
            "begin_payment", amount=self.amount, period=None if period is None else period.number
        )
        if self.is_confirmed:
            yield request("confirm_payment", number=number, token=f"charge-{number}")


@dataclass(frozen=True)
class EndPayment(Step):
    """Confirm a payment, perhaps again or as another one of the processor's, or let it fail."""

    pick: int
    how: str

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without payments."""
        payment: Payment | None = picked(subscription.payments, self.pick)
        if payment is not None and self.how == "fail":
            yield request("fail_payment", number=payment.number)
        elif payment is not None:
            token = f"charge-{payment.number}{'-other' * (self.how == 'otherwise')}"
            yield request("confirm_payment", number=payment.number, token=token)


@dataclass(frozen=True)
class PayBack(Step):
    """Begin a refund of some percent of a payment, and perhaps end it."""

    pick: int
    percent: int
    policy: str
    how: str

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without payments; of confirmed ones if there are any, but for high picks."""
        payments = subscription.payments
        confirmed = [payment for payment in payments if payment.status == "succeeded"]
        payment: Payment | None = picked(payments if self.pick > 3 else confirmed, self.pick)
        if payment is None:
            return
        number = len(subscription.refunds)
        amount = max(1, payment.amount * self.percent // 100)
        yield request("begin_refund", number=payment.number, amount=amount, policy=self.policy)
        if self.how == "confirm":
            yield request("confirm_refund", number=number, token=f"return-{number}")
        elif self.how == "fail":
            yield request("fail_refund", number=number)


@dataclass(frozen=True)
class EndRefund(Step):
    """Confirm a refund, perhaps again or as another one of the processor's, or let it fail."""

    pick: int
    how: str

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Nothing without refunds."""
        refund: Refund | None = picked(subscription.refunds, self.pick)
        if refund is not None and self.how == "fail":
            yield request("fail_refund", number=refund.number)
        elif refund is not None:
            token = f"return-{refund.number}{'-other' * (self.how == 'otherwise')}"
            yield request("confirm_refund", number=refund.number, token=token)


@dataclass(frozen=True)
class Expire(Step):
    """Expire the credits of the subscription."""

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Always possible."""
        yield request("expire")


@dataclass(frozen=True)
class RunOne(Step):
    """Bill the oldest due period of the subscription."""

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Refused where nothing is due."""
        yield request("run_one")


@dataclass(frozen=True)
class RunAll(Step):
    """Bill all subscriptions, perhaps while the invoicing service is down."""

    is_delivered: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """Asked of every subscription, and of the service once."""
        yield request("run", is_delivered=self.is_delivered)


@dataclass(frozen=True)
class Cancel(Step):
    """Cancel the subscription."""

    is_immediate: bool

    def requests(self, subscription: ReferenceSubscription, now: datetime) -> Requests:
        """A period that has just begun has no length to speak of: then it is left alone."""
        if not self.is_immediate or now - subscription.begun_at(now) > timedelta(minutes=5):
            yield request("cancel", is_immediate=self.is_immediate)


def refusals_of(
    each: Request, subscription: ReferenceSubscription, now: datetime
) -> frozenset[str]:
    """Ask the reference; return the reasons if it refuses."""
    try:
        each.play(subscription, now)
    except Refused as refusal:
        return refusal.reasons
    return frozenset()
