"""Billing periods: half-open spans of one subscription, counted from an anchor.

Boundaries are anchor + k intervals, never previous boundary + 1 interval: a monthly subscription
of the 31st comes back to the 31st after February.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from dateutil.relativedelta import relativedelta

from billing.domain import identifiers
from billing.domain.catalog import BillingInterval, IntervalUnit, PlanVersion

SHORTEST_SPAN: Final = timedelta(microseconds=1)
"""What is left of a period that a cancellation cuts before it has begun."""


class BillingPeriodStatus(StrEnum):
    """``open`` takes usage, ``billed`` is in the ledger, ``invoiced`` has (or needs no) invoice."""

    OPEN = "open"
    BILLED = "billed"
    INVOICED = "invoiced"


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """Half-open ``[period_start, period_end)`` of one subscription, priced by one plan version.

    Its end is a boundary of the series that counts from ``anchor_at``. ``receivable_minor`` is what
    the ledger holds for it, of an open one without its usage.
    """

    id: UUID
    subscription_id: UUID
    plan_version_id: UUID
    anchor_at: datetime
    period_start: datetime
    period_end: datetime
    status: BillingPeriodStatus
    receivable_minor: int = 0

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.BILLING_PERIOD, self.id)

    @property
    def is_stub(self) -> bool:
        """Whether the period was cut before it had begun: it has usage at most, and no price."""
        return self.period_end - self.period_start <= SHORTEST_SPAN

    @property
    def is_closed(self) -> bool:
        """Whether the period is billed."""
        return self.status is not BillingPeriodStatus.OPEN

    @property
    def awaits_invoice(self) -> bool:
        """Whether the period is billed, but has no invoice yet."""
        return self.status is BillingPeriodStatus.BILLED

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies in the period."""
        return self.period_start <= moment < self.period_end


_DELTAS = {
    IntervalUnit.DAY: lambda count: relativedelta(days=count),
    IntervalUnit.WEEK: lambda count: relativedelta(weeks=count),
    IntervalUnit.MONTH: lambda count: relativedelta(months=count),
    IntervalUnit.YEAR: lambda count: relativedelta(years=count),
}

_APPROXIMATE_DAYS = {
    IntervalUnit.DAY: 1.0,
    IntervalUnit.WEEK: 7.0,
    IntervalUnit.MONTH: 30.4375,
    IntervalUnit.YEAR: 365.25,
}


def boundary(anchor: datetime, interval: BillingInterval, index: int) -> datetime:
    """Return the boundary ``index`` intervals after the anchor."""
    return anchor + _DELTAS[interval.unit](interval.count * index)


def next_boundary(anchor: datetime, interval: BillingInterval, after: datetime) -> datetime:
    """Return the first boundary of the anchor's series that lies later than ``after``."""
    elapsed_days = (after - anchor).total_seconds() / 86_400
    # One below the estimate: calendar months and years are shorter or longer than their mean.
    index = max(1, int(elapsed_days / (_APPROXIMATE_DAYS[interval.unit] * interval.count)) - 1)
    candidate = boundary(anchor, interval, index)
    while candidate <= after:
        index += 1
        candidate = boundary(anchor, interval, index)
    return candidate


def new_period(
    subscription_id: UUID, version: PlanVersion, period_start: datetime, *, anchor_at: datetime
) -> BillingPeriod:
    """Return the open period that begins at ``period_start`` under a plan version."""
    return BillingPeriod(
        id=identifiers.new_id(),
        subscription_id=subscription_id,
        plan_version_id=version.id,
        anchor_at=anchor_at,
        period_start=period_start,
        period_end=next_boundary(anchor_at, version.interval, period_start),
        status=BillingPeriodStatus.OPEN,
    )


@dataclass(slots=True)
class OpenPeriods:
    """The open periods of one locked subscription, oldest first, and those opened beyond them.

    ``plan_versions`` are all versions of the plan by id, in order. A newly opened period takes the
    newest one that was published by its start, and never an older one than the period before: what
    a period costs does not depend on when somebody came to open it.
    """

    periods: list[BillingPeriod]
    plan_versions: Mapping[UUID, PlanVersion]
    opened: list[BillingPeriod] = field(default_factory=list)

    @property
    def oldest(self) -> BillingPeriod:
        """The current period: the next to be billed."""
        return self.periods[0]

    @property
    def last(self) -> BillingPeriod:
        """The period that the next one follows."""
        return self.periods[-1]

    def version_of(self, period: BillingPeriod) -> PlanVersion:
        """Return the plan version that prices a period."""
        return self.plan_versions[period.plan_version_id]

    def version_at(self, moment: datetime) -> PlanVersion:
        """Return the plan version that a period takes which begins at the moment."""
        current = self.version_of(self.last)
        published = [v for v in self.plan_versions.values() if v.created_at <= moment]
        return max([current, *published], key=lambda version: version.version)

    def holding(self, moment: datetime) -> BillingPeriod | None:
        """Return the open period that holds a moment."""
        for period in self.periods:
            if period.holds(moment):
                return period
        return None

    def find(self, billing_period_id: UUID) -> BillingPeriod | None:
        """Return the open period with an id."""
        return next((period for period in self.periods if period.id == billing_period_id), None)

    def open_until(self, moment: datetime) -> None:
        """Open periods until the last one ends after the moment."""
        while self.last.period_end <= moment:
            self.open_following()

    def open_following(self) -> BillingPeriod:
        """Open the period after the last; a changed interval counts from the period's own start."""
        last = self.last
        following = self.version_at(last.period_end)
        same_interval = self.version_of(last).interval == following.interval
        return self._open(
            last.period_end, anchor_at=last.anchor_at if same_interval else last.period_end
        )

    def open_at(self, moment: datetime) -> BillingPeriod:
        """Open a period that begins at the moment and counts from there."""
        return self._open(moment, anchor_at=moment)

    def _open(self, period_start: datetime, *, anchor_at: datetime) -> BillingPeriod:
        version = self.version_at(period_start)
        period = new_period(self.last.subscription_id, version, period_start, anchor_at=anchor_at)
        self.periods.append(period)
        self.opened.append(period)
        return period
