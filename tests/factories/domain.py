"""Values of the domain with sensible defaults, and strategies for hypothesis."""

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from hypothesis import strategies as st

from billing.domain.catalog import BillingInterval, Component, IntervalUnit, PlanVersion
from billing.domain.credit_consumption import CreditBook, PeriodCredits
from billing.domain.identifiers import new_id
from billing.domain.periods import OpenPeriods, new_period
from billing.domain.subscriptions import Subscription, SubscriptionStatus

MONTHLY = BillingInterval(IntervalUnit.MONTH, 1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def a_component(
    *, unit_price: str = "0.015", included: str = "0", name: str = "API Calls"
) -> Component:
    """A component of a meter of its own."""
    return Component(new_id(), new_id(), name, Decimal(unit_price), Decimal(included))


def a_version(
    *components: Component,
    interval: BillingInterval = MONTHLY,
    base_price_minor: int = 2000,
    name: str = "Pro Plan",
    number: int = 1,
    created_at: datetime = BEGIN,
) -> PlanVersion:
    """A published version of a plan of its own."""
    return PlanVersion(
        id=new_id(),
        plan_id=new_id(),
        version=number,
        name=name,
        base_price_minor=base_price_minor,
        currency="USD",
        interval=interval,
        components=components,
        created_at=created_at,
    )


def open_periods_of(
    version: PlanVersion, *later: PlanVersion, start: datetime = BEGIN
) -> OpenPeriods:
    """The open periods of a new subscription: its first one."""
    period = new_period(new_id(), version, start, anchor_at=start)
    return OpenPeriods([period], {listed.id: listed for listed in (version, *later)})


def a_subscription(
    open_periods: OpenPeriods,
    *,
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE,
    cancel_at: datetime | None = None,
) -> Subscription:
    """The subscription of open periods."""
    period = open_periods.oldest
    return Subscription(
        id=period.subscription_id,
        customer_id="cus-1",
        plan_id=open_periods.version_of(period).plan_id,
        plan_version_id=period.plan_version_id,
        currency="USD",
        status=status,
        started_at=period.period_start,
        receivable_account_id=UUID(int=0),
        current_period_id=period.id,
        current_period_start=period.period_start,
        current_period_end=period.period_end,
        cancel_at=cancel_at,
        paused_at=BEGIN if status is SubscriptionStatus.PAUSED else None,
        cancelled_at=BEGIN if status is SubscriptionStatus.CANCELLED else None,
        created_at=BEGIN,
        updated_at=BEGIN,
    )


def no_credits() -> PeriodCredits:
    """What a period without credits is billed with."""
    return PeriodCredits(CreditBook([]))


def decimals(*, whole_digits: int) -> st.SearchStrategy[Decimal]:
    """Decimals of 0 or more with so many digits before and 12 after the point, and round ones."""
    fine = st.integers(0, 10 ** (whole_digits + 12) - 1).map(
        lambda number: Decimal(f"{number}E-12")
    )
    return st.one_of(fine, st.integers(0, 1000).map(Decimal))


def intervals() -> st.SearchStrategy[BillingInterval]:
    """Billing intervals of all units."""
    return st.builds(BillingInterval, st.sampled_from(IntervalUnit), st.integers(1, 24))


def instants(first_year: int = 2016, last_year: int = 2036) -> st.SearchStrategy[datetime]:
    """Moments in UTC, to the microsecond."""
    days = st.dates(date(first_year, 1, 1), date(last_year, 12, 31))
    return st.builds(datetime.combine, days, st.times(), st.just(UTC))
