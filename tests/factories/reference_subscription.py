"""What the reference keeps of a subscription: periods, usage, and the consumption of credits.

Nothing of the service is used here: plain integers in minor units, decimals, datetimes in UTC.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.factories.reference_books import (
    BREAKAGE,
    CREDIT,
    PROMOTIONAL_EXPENSE,
    RECEIVABLE,
    Account,
    Books,
    Plan,
    Posting,
)
from tests.factories.reference_credits import (
    CHARGES,
    Application,
    Credit,
    Demands,
    Segment,
    Taking,
    excess_of,
    segments_of,
    take,
    unpaid_demands,
)
from tests.factories.reference_periods import Estimate, Period


class Refused(Exception):
    """An operation that must be refused, for any of the reasons that hold."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = frozenset(reasons)


def refuse_if(**reasons: bool) -> None:
    """Raise Refused with those reasons that hold; they are written in lower case."""
    holding = [reason.upper() for reason, holds in reasons.items() if holds]
    if holding:
        raise Refused(*holding)


class Balance(NamedTuple):
    """What a subscription owes and has."""

    unbilled: int
    billed_not_invoiced: int
    invoiced: int
    credit_balance: int
    available_credit: int
    net: int

    @property
    def outstanding(self) -> int:
        """All that is owed."""
        return self.unbilled + self.billed_not_invoiced + self.invoiced


class Expiry(NamedTuple):
    """What expiring the credits of a subscription did."""

    expired: int
    amount: int
    deferred: int


@dataclass
class SubscriptionBooks:
    """One subscription with all that is known of it."""

    plan: Plan
    started_at: datetime
    is_realtime: bool = False
    books: Books = field(default_factory=Books)
    periods: list[Period] = field(default_factory=list)
    credits: list[Credit] = field(default_factory=list)
    applications: list[Application] = field(default_factory=list)
    cancel_at: datetime | None = None
    is_cancelled: bool = False
    estimate: Estimate | None = None

    def __post_init__(self) -> None:
        self._open_following()

    # Periods

    @property
    def open_periods(self) -> list[Period]:
        """The periods that are not billed, oldest first."""
        return [period for period in self.periods if period.billed_at is None]

    @property
    def oldest_open(self) -> Period | None:
        """The next period to be billed; a cancelled subscription has none."""
        return next(iter(self.open_periods), None)

    def _open_following(self) -> None:
        start = self.periods[-1].end if self.periods else self.started_at
        number = len(self.periods)
        self.periods.append(Period(number, start, self.plan.boundary(self.started_at, number + 1)))

    def begun_at(self, moment: datetime) -> datetime:
        """When the last period begins that there is at a moment, opened or not."""
        return self._span_at(moment)[0]

    def ends_at(self, moment: datetime) -> datetime:
        """When the last period ends that there is at a moment, opened or not."""
        return self._span_at(moment)[1]

    def _span_at(self, moment: datetime) -> tuple[datetime, datetime]:
        start, end, index = self.periods[-1].start, self.periods[-1].end, len(self.periods)
        while end <= moment and not self.is_cancelled:
            index += 1
            start, end = end, self.plan.boundary(self.started_at, index)
        return start, end

    def _open_until(self, moment: datetime) -> None:
        while self.periods[-1].end <= moment:
            self._open_following()

    # Consumption and expiry

    def _segments(self, period: Period) -> list[Segment]:
        return segments_of(period.start, period.end, self.credits)

    def _applied_to(self, period: Period) -> list[Application]:
        return [each for each in self.applications if each.period == period.number]

    def _unpaid(self, period: Period) -> Demands:
        """What of a period nothing has paid; its charges are those of the last segment."""
        segments = self._segments(period)
        applied = self._applied_to(period)
        unpaid = unpaid_demands(period.costs, segments, applied)
        paid_charges = sum(each.live for each in applied if each.component is CHARGES)
        return {**unpaid, (len(segments) - 1, CHARGES): period.charges - paid_charges}

    def _consume(
        self,
        period: Period,
        segments: Sequence[Segment],
        demands: Demands,
        kind: str,
        now: datetime,
    ) -> None:
        takings = take(
            self.credits,
            segments,
            demands,
            period=period.number,
            components=self.plan.components,
            limit=max(0, self.books.receivable(period.number, now)),
        )
        for taking in takings:
            self._apply(taking, period, kind, now)

    def _apply(self, taking: Taking, period: Period, kind: str, now: datetime) -> None:
        is_settlement = kind == "settlement"
        self.applications.append(
            Application(
                credit=taking.credit.number,
                kind=kind,
                period=period.number,
                component=taking.component,
                amount=taking.amount,
                since=None if is_settlement else taking.segment.start,
                until=None if is_settlement else taking.segment.end,
            )
        )
        target = "charge" if taking.component is CHARGES else "usage"
        self.books.post(
            f"credit_applied_to_{target}",
            taking.amount,
            Account(CREDIT, taking.credit.number),
            Account(RECEIVABLE),
            now,
            period=period.number,
        )

    def expire(self, now: datetime) -> Expiry:
        """Do what the job does: nothing where nothing is left to expire.

        What an estimate holds is not left: so it holds that until something else overtakes it.
        """
        if not any(credit.is_over(now) and credit.remaining > 0 for credit in self.credits):
            return Expiry(0, 0, 0)
        return self.bring_up_to_date(now)

    def bring_up_to_date(self, now: datetime) -> Expiry:
        """Expire what is over, after it has paid the usage before its end.

        Whatever but usage changes what past usage needs, or what there is to pay it with, does
        this first: so the result does not depend on when it is done without such a reason.
        """
        self.discard_estimate(now)
        period = self.oldest_open
        over = [credit for credit in self.credits if self._is_due(credit, now)]
        if period is not None:
            self._consume_until_last_end(period, now)
        expired = [self._expire(credit, now) for credit in over if credit.remaining > 0]
        deferred = [c for c in self.credits if c.is_over(now) and c.remaining > 0]
        return Expiry(len(expired), sum(expired), len(deferred))

    def _consume_until_last_end(self, period: Period, now: datetime) -> None:
        # Of all credits: that one is used up already does not undo that its time has ended.
        ends = [
            credit.expires_at
            for credit in self.credits
            if credit.expires_at is not None
            and period.start < credit.expires_at < period.end
            and credit.is_over(now)
        ]
        if not ends:
            return
        last_end = max(ends)
        segments = self._segments(period)
        ended = sum(segment.end <= last_end for segment in segments)
        demands = {key: amount for key, amount in self._unpaid(period).items() if key[0] < ended}
        self._consume(period, segments, demands, "run", now)

    def discard_estimate(self, now: datetime, status: str = "discarded") -> None:
        """Give back what an estimate holds."""
        if self.estimate is None:
            return
        for hold in self.estimate.holds:
            hold.posting.discarded_at = now
            self.credits[hold.credit].held -= hold.amount
            self.credits[hold.credit].remaining += hold.amount
        for calculation in self.estimate.calculations:
            calculation.status = status
        self.estimate = None

    def _release(self, period: Period, now: datetime) -> list[Credit]:
        """Take back what credits pay too much of a period's usage, and return those credits."""
        freed: dict[int, Credit] = {}
        excess = excess_of(period.costs, self._segments(period), self._applied_to(period))
        for application, amount in excess:
            self._reverse_application(application, amount, now)
            freed[application.credit] = self.credits[application.credit]
        return list(freed.values())

    def _reverse_application(self, application: Application, amount: int, now: datetime) -> None:
        application.reversed += amount
        self.credits[application.credit].remaining += amount
        self.books.post(
            "credit_application_reversed",
            -amount,
            Account(RECEIVABLE),
            Account(CREDIT, application.credit),
            now,
            period=application.period,
        )

    def _sweep(self, credits_: Sequence[Credit], now: datetime) -> None:
        """Take what came back to credits that are dead, or that no open period can use any more."""
        for credit in credits_:
            if credit.remaining == 0:
                continue
            if credit.voided_at is not None:
                amount, credit.remaining = credit.remaining, 0
                self._write_off(credit, "credit_balance_adjusted", amount, now)
            elif credit.expired_at is not None or self._is_due(credit, now):
                self._expire(credit, now)

    def _is_due(self, credit: Credit, now: datetime) -> bool:
        """Whether a credit is to be expired: what may pay an ended period waits for its run."""
        period = self.oldest_open
        if credit.expires_at is None or not credit.is_over(now):
            return False
        return period is None or credit.expires_at < period.end

    def _expire(self, credit: Credit, now: datetime) -> int:
        amount, credit.remaining = credit.remaining, 0
        credit.expired_at = now
        self._write_off(credit, "credit_grant_expired", amount, now)
        return amount

    def _write_off(self, credit: Credit, entry_type: str, amount: int, now: datetime) -> None:
        taker = BREAKAGE if credit.is_paid else PROMOTIONAL_EXPENSE
        self.books.post(entry_type, -amount, Account(CREDIT, credit.number), Account(taker), now)

    def _issue(
        self,
        credit: Credit,
        entry_type: str,
        source: str,
        now: datetime,
        period: int | None = None,
    ) -> None:
        credit.remaining = credit.issued
        self.credits.append(credit)
        account = Account(CREDIT, credit.number)
        self.books.post(entry_type, credit.issued, Account(source), account, now, period=period)

    def _issue_surplus(self, period: Period, amount: int, now: datetime) -> None:
        """Make a credit of what a period was paid too much, a look at the clock later."""
        made_at = now + timedelta(microseconds=1)
        credit = Credit(
            number=len(self.credits),
            is_paid=True,
            issued=amount,
            effective_at=made_at,
            expires_at=None,
            issued_at=made_at,
        )
        self._issue(credit, "surplus_credited", RECEIVABLE, now, period.number)

    def _charge_deficit(
        self, amount: int, taker: str, now: datetime, *, is_pending: bool = False
    ) -> Posting:
        """Charge what a credit cannot give back to the open period, or else to the last."""
        period = self.oldest_open or self.periods[-1]
        if not is_pending:
            period.charges += amount
        return self.books.post(
            "credit_deficit_charged",
            -amount,
            Account(RECEIVABLE),
            Account(taker),
            now,
            period=period.number,
            is_pending=is_pending,
        )

    @contextmanager
    def _up_to_date(self, now: datetime) -> Iterator[None]:
        """Expire first; a refusal in the block undoes that too."""
        changes = self.estimate is not None or any(c.is_over(now) for c in self.credits)
        kept = copy.deepcopy(self.__dict__) if changes else self.__dict__
        self.bring_up_to_date(now)
        try:
            yield
        except Refused:
            self.__dict__ = kept
            raise

    # What it comes to

    def balance(self, at: datetime) -> Balance:
        """What was owed and what was there at a moment, by recorded time."""
        unbilled = billed = invoiced = 0
        for period in self.periods:
            owed = self.books.receivable(period.number, at)
            if period.invoiced_at is not None and period.invoiced_at <= at:
                invoiced += owed
            elif period.billed_at is not None and period.billed_at <= at:
                billed += owed
            else:
                unbilled += owed
        credit_balance = sum(self.books.credit_value(c.number, at) for c in self.credits)
        net = credit_balance - unbilled - billed - invoiced
        assert net == self.books.net(at), "the balance is not what moved"
        assert self.books.clearing(at) == 0
        available = sum(self.available(credit, at) for credit in self.credits)
        return Balance(unbilled, billed, invoiced, credit_balance, available, net)

    def available(self, credit: Credit, at: datetime) -> int:
        """What could be spent of a credit at a moment."""
        is_voided = credit.voided_at is not None and credit.voided_at <= at
        if is_voided or credit.is_over(at):
            return 0
        if credit.period is not None:
            billed_at = self.periods[credit.period].billed_at
            if billed_at is not None and billed_at <= at:
                return 0
        value = self.books.credit_value(credit.number, at)
        return value - self.books.credit_held(credit.number, at)
