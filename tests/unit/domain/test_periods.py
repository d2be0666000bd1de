"""Billing periods: a series without gaps, counted from its anchor."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.catalog import BillingInterval, IntervalUnit
from billing.domain.identifiers import new_id
from billing.domain.periods import (
    BillingPeriod,
    BillingPeriodStatus,
    OpenPeriods,
    boundary,
    new_period,
    next_boundary,
)
from tests.factories.domain import (
    BEGIN,
    MONTHLY,
    a_version,
    instants,
    intervals,
    open_periods_of,
)

SHORTEST = timedelta(microseconds=1)
YEARLY = BillingInterval(IntervalUnit.YEAR, 1)


def day(text: str) -> datetime:
    """Noon of a date, so that the time of day shows."""
    return datetime.fromisoformat(f"{text}T12:00:00+00:00")


def require_series(periods: list[BillingPeriod]) -> None:
    """Fail unless the periods are spans that follow each other without gap or overlap."""
    assert all(period.period_start < period.period_end for period in periods)
    assert all(earlier.period_end == later.period_start for earlier, later in pairwise(periods))
    assert len({period.id for period in periods}) == len(periods)


@pytest.mark.parametrize(
    ("unit", "length", "anchor", "boundaries"),
    [
        ("month", 1, "2026-01-31", ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("month", 1, "2023-12-31", ["2024-01-31", "2024-02-29", "2024-03-31"]),
        ("month", 1, "2026-01-29", ["2026-02-28", "2026-03-29"]),
        ("month", 3, "2025-11-30", ["2026-02-28", "2026-05-30", "2026-08-30", "2026-11-30"]),
        ("year", 1, "2024-02-29", ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("year", 4, "2096-02-29", ["2100-02-28", "2104-02-29"]),
        ("week", 1, "2026-02-25", ["2026-03-04", "2026-03-11"]),
        ("week", 2, "2025-12-25", ["2026-01-08", "2026-01-22"]),
        ("day", 1, "2028-02-28", ["2028-02-29", "2028-03-01"]),
        ("day", 10, "2026-02-25", ["2026-03-07", "2026-03-17"]),
        ("day", 366, "2026-03-01", ["2027-03-02"]),
    ],
)
def test_boundaries_count_from_the_anchor(
    unit: str, length: int, anchor: str, boundaries: list[str]
) -> None:
    interval = BillingInterval(IntervalUnit(unit), length)
    expected = [day(text) for text in boundaries]
    assert [boundary(day(anchor), interval, n + 1) for n in range(len(expected))] == expected
    starts = [day(anchor), *expected[:-1]]
    assert [next_boundary(day(anchor), interval, start) for start in starts] == expected


@given(instants(), st.integers(1, 240))
def test_month_ends_come_back(anchor: datetime, index: int) -> None:
    reached = boundary(anchor, MONTHLY, index)
    months = anchor.year * 12 + anchor.month - 1 + index
    year, month = divmod(months, 12)
    last_day = monthrange(year, month + 1)[1]
    assert (reached.year, reached.month) == (year, month + 1)
    assert reached.day == min(anchor.day, last_day)
    assert reached.timetz() == anchor.timetz()


@given(instants(), st.integers(1, 40))
def test_leap_days_come_back(anchor: datetime, index: int) -> None:
    reached = boundary(anchor, YEARLY, index)
    leap_day_lost = (anchor.month, anchor.day) == (2, 29) and monthrange(reached.year, 2)[1] == 28
    assert reached.year == anchor.year + index
    assert (reached.month, reached.day) == (anchor.month, anchor.day - leap_day_lost)


@given(instants(), intervals(), st.timedeltas(timedelta(0), timedelta(days=1500)))
def test_the_next_boundary_is_the_least_one_after_the_moment(
    anchor: datetime, interval: BillingInterval, elapsed: timedelta
) -> None:
    moment = anchor + elapsed
    series = (boundary(anchor, interval, index) for index in count(1))
    assert next_boundary(anchor, interval, moment) == next(b for b in series if b > moment)


@given(instants(), intervals(), st.integers(1, 60))
def test_a_boundary_begins_the_next_period(
    anchor: datetime, interval: BillingInterval, index: int
) -> None:
    reached, following = (boundary(anchor, interval, index + n) for n in (0, 1))
    assert reached < following
    assert next_boundary(anchor, interval, reached - SHORTEST) == reached
    assert next_boundary(anchor, interval, reached) == following


@given(
    instants(last_year=2030),
    intervals(),
    st.lists(st.timedeltas(timedelta(0), timedelta(days=800)), min_size=1, max_size=4),
)
def test_opened_periods_are_one_series_that_holds_every_moment(
    anchor: datetime, interval: BillingInterval, elapsed: list[timedelta]
) -> None:
    open_periods = open_periods_of(a_version(interval=interval), start=anchor)
    for moment in [anchor + delta for delta in elapsed]:
        open_periods.open_until(moment)
        opened = list(open_periods.periods)
        held = open_periods.holding(moment)
        assert held is not None
        assert [period for period in opened if period.holds(moment)] == [held]
        open_periods.open_until(moment)
        assert open_periods.periods == opened
    require_series(open_periods.periods)
    assert open_periods.periods[0].period_start == anchor
    assert open_periods.opened == open_periods.periods[1:]
    assert open_periods.last.period_start <= anchor + max(elapsed)
    assert {period.anchor_at for period in open_periods.periods} == {anchor}


def test_a_new_period_is_open_and_half_open() -> None:
    version, subscription_id = a_version(), new_id()
    period = new_period(subscription_id, version, BEGIN, anchor_at=BEGIN)
    assert period.status is BillingPeriodStatus.OPEN
    assert not period.awaits_invoice
    assert (period.subscription_id, period.plan_version_id) == (subscription_id, version.id)
    assert period.holds(BEGIN)
    assert period.holds(period.period_end - SHORTEST)
    assert not period.holds(BEGIN - SHORTEST)
    assert not period.holds(period.period_end)


FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)


def test_the_next_period_takes_the_version_published_by_its_start() -> None:
    first, second = a_version(), a_version(number=2, created_at=FEBRUARY)
    third = a_version(number=3, created_at=FEBRUARY + SHORTEST)
    open_periods = open_periods_of(first, second, third)
    february, march = open_periods.open_following(), open_periods.open_following()
    assert open_periods.version_of(open_periods.oldest) is first
    assert open_periods.version_of(february) is second
    assert open_periods.version_of(march) is third
    assert february.anchor_at == open_periods.oldest.anchor_at


def test_a_period_never_takes_an_older_version_than_the_one_before() -> None:
    bought = a_version(number=2, created_at=day("2026-06-01"))
    open_periods = open_periods_of(bought, a_version(number=1, created_at=day("2025-01-01")))
    assert open_periods.version_of(open_periods.open_following()) is bought


def test_a_changed_interval_counts_from_the_periods_own_start() -> None:
    weekly = a_version(interval=BillingInterval(IntervalUnit.WEEK, 1), number=2)
    open_periods = open_periods_of(a_version(), weekly, start=day("2026-01-31"))
    open_periods.open_until(day("2026-03-10"))
    spans = [(p.period_start, p.period_end) for p in open_periods.periods]
    assert spans == [
        (day("2026-01-31"), day("2026-02-28")),
        (day("2026-02-28"), day("2026-03-07")),
        (day("2026-03-07"), day("2026-03-14")),
    ]
    assert [p.anchor_at for p in open_periods.opened] == [day("2026-02-28")] * 2


def resumed_at(moment: datetime) -> OpenPeriods:
    """A subscription that began on 31 January and was paused over its period's end."""
    open_periods = open_periods_of(a_version(), start=day("2026-01-31"))
    open_periods.open_at(moment)
    return open_periods


def test_a_period_opened_at_a_moment_counts_from_there_and_leaves_a_gap() -> None:
    open_periods = resumed_at(datetime(2026, 3, 30, 8, 15, tzinfo=UTC))
    assert open_periods.holding(day("2026-03-15")) is None
    assert open_periods.oldest.period_end == day("2026-02-28")
    following = open_periods.open_following()
    assert open_periods.last is following
    require_series(open_periods.opened)
    assert following.period_start == datetime(2026, 4, 30, 8, 15, tzinfo=UTC)
    assert following.period_end == datetime(2026, 5, 30, 8, 15, tzinfo=UTC)
