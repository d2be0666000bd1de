"""What holds of consumption whatever the credits, the usage, and the moments of earlier jobs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.domain.billing import PeriodBill, bill_period
from billing.domain.credit_consumption import (
    Coverage,
    CreditBook,
    NewApplication,
    PeriodCredits,
    consume,
    cuts_within,
    pays,
    pays_charges,
    segments_of,
)
from billing.domain.credits import UsageCredit, UsageCreditType
from billing.domain.identifiers import new_id
from billing.domain.scope import Scope
from billing.domain.usage import UsageTally
from tests.factories.domain import BEGIN, a_component, a_subscription, a_version, open_periods_of
from tests.factories.domain_credits import END, a_credit, coverage_of, day, left_of

SCOPE = Scope("acme", livemode=True)
COMPONENTS = (a_component(name="calls", unit_price="1"), a_component(name="tokens", unit_price="1"))
VERSION = a_version(*COMPONENTS)
OPEN_PERIODS = open_periods_of(VERSION)
SUBSCRIPTION = a_subscription(OPEN_PERIODS)
PERIOD = OPEN_PERIODS.oldest

DAYS = st.sampled_from([day(number) for number in (-5, 1, 5, 10, 15, 20, 32, 40)])
AMOUNTS = st.integers(0, 60)


@st.composite
def a_grant(draw: st.DrawFn) -> UsageCredit:
    effective_at = draw(DAYS)
    expires_at = draw(st.none() | DAYS.filter(lambda each: each > max(effective_at, BEGIN)))
    scope: dict[str, Any] = draw(
        st.sampled_from(
            [
                {},
                {"covers_charges": True},
                {"component_id": COMPONENTS[0].id},
                {"usage_meter_id": COMPONENTS[1].usage_meter_id},
                {"billing_period_id": PERIOD.id},
                {"billing_period_id": new_id()},
            ]
        )
    )
    return a_credit(
        draw(st.integers(1, 100)),
        credit_type=draw(st.sampled_from(UsageCreditType)),
        priority=draw(st.integers(-1, 1)),
        effective_at=effective_at,
        expires_at=expires_at,
        issued_at=draw(DAYS),
        **scope,
    )


@dataclass
class Books:
    """A period with its credits, worked on by whoever comes; ``usage`` by component, segment."""

    credits: list[UsageCredit]
    cuts: Sequence[datetime]
    usage: dict[tuple[UUID, int], int]
    base: int
    applied: list[NewApplication] = field(default_factory=list)
    expired: Counter[UUID] = field(default_factory=Counter)

    @property
    def prior(self) -> list[Coverage]:
        return coverage_of(self.applied)

    @property
    def gross(self) -> int:
        return self.base + sum(self.usage.values())

    def expire(self, now: datetime) -> None:
        """Do what the expiry of credits does at a moment within the period."""
        over = [c.expires_at for c in self.credits if c.is_over(now) and c.remaining_minor > 0]
        moments = [moment for moment in over if moment is not None and moment < END]
        if not moments:
            return
        book = CreditBook(list(self.credits))
        segments = segments_of(PERIOD, self.cuts, self.usage, self.prior)
        self.applied += consume(
            book, PERIOD, [s for s in segments if s.end <= max(moments)], COMPONENTS
        )
        self.write_off(book.over_by(max(moments)))
        self.credits = [c for c in left_of(book) if c.id not in self.expired]

    def bill(self) -> PeriodBill:
        """Bill the period at its end."""
        tallies = {}
        for component in COMPONENTS:
            quantity = sum(m for (owner, _), m in self.usage.items() if owner == component.id)
            tallies[component.id] = UsageTally(new_id(), PERIOD.id, component)
            tallies[component.id].add(Decimal(quantity))
        applied_minor = sum(application.amount_minor for application in self.applied)
        billed = bill_period(
            SCOPE,
            SUBSCRIPTION,
            replace(PERIOD, receivable_minor=-applied_minor),
            replace(VERSION, base_price_minor=self.base),
            tallies,
            PeriodCredits(CreditBook(list(self.credits)), self.cuts, self.usage, self.prior),
            billed_at=END + timedelta(hours=1),
        )
        self.applied += billed.applications
        self.write_off(billed.expiries)
        return billed

    def write_off(self, expiries: Iterable[tuple[UsageCredit, int]]) -> None:
        self.expired.update({credit.id: left_minor for credit, left_minor in expiries})

    @property
    def outcome(self) -> tuple[Counter[Any], Counter[UUID]]:
        """What each credit paid of what, and what of each expired."""
        paid: Counter[Any] = Counter()
        for each in self.applied:
            component_id = each.component.id if each.component else None
            paid[each.credit.id, component_id, each.usage_from, each.usage_until] += (
                each.amount_minor
            )
        return paid, self.expired

    def copy(self) -> "Books":
        return Books(list(self.credits), self.cuts, self.usage, self.base)


@st.composite
def books(draw: st.DrawFn) -> Books:
    credits_ = draw(st.lists(a_grant(), max_size=6))
    moments = [m for c in credits_ for m in (c.effective_at, c.expires_at) if m is not None]
    cuts = cuts_within(PERIOD, moments)
    usage = {
        (component.id, number): draw(AMOUNTS)
        for component in COMPONENTS
        for number in range(len(cuts) + 1)
    }
    return Books(credits_, cuts, usage, draw(st.integers(-80, 80)))


@given(books())
def test_nobody_pays_more_than_there_is(told: Books) -> None:
    credits_ = {credit.id: credit for credit in told.credits}
    billed = told.bill()
    by_credit: Counter[UUID] = Counter()
    by_demand: Counter[Any] = Counter()
    for each in billed.applications:
        assert each.amount_minor > 0
        by_credit[each.credit.id] += each.amount_minor
        by_demand[each.component.id if each.component else None, each.usage_from] += (
            each.amount_minor
        )
    by_credit.update(told.expired)
    assert all(total <= credits_[key].remaining_minor for key, total in by_credit.items())
    starts = [PERIOD.period_start, *told.cuts]
    for (component_id, start), paid in by_demand.items():
        if component_id is None:
            assert paid <= told.base
        else:
            assert start is not None
            assert paid <= told.usage[component_id, starts.index(start)]
    assert billed.total_minor == sum(charge.amount_minor for charge in billed.charges)
    owed = told.gross - sum(each.amount_minor for each in billed.applications)
    assert (billed.receivable_minor, billed.surplus_minor) == (max(0, owed), max(0, -owed))
    assert billed.total_minor == billed.receivable_minor


@given(books())
def test_every_payment_is_of_its_credits_scope_and_time(told: Books) -> None:
    for each in told.bill().applications:
        credit, component = each.credit, each.component
        assert credit.billing_period_id in (None, PERIOD.id)
        if component is None:
            assert pays_charges(credit)
            since, until = [PERIOD.period_start, *told.cuts][-1], END
        else:
            assert pays(credit, component)
            assert each.usage_from is not None
            assert each.usage_until is not None
            since, until = each.usage_from, each.usage_until
        assert credit.effective_at <= since
        assert credit.expires_at is None or credit.expires_at >= until


@given(books())
def test_a_credit_is_left_only_where_nothing_is_left_to_pay(told: Books) -> None:
    before = list(told.credits)
    told.bill()
    taken: Counter[UUID] = Counter()
    for each in told.applied:
        taken[each.credit.id] += each.amount_minor
    left = [c for c in before if c.remaining_minor > taken[c.id]]
    *segments, last = segments_of(PERIOD, told.cuts, told.usage, told.prior)
    book = CreditBook(left)
    is_capped = told.gross <= sum(taken.values())
    for segment in segments if is_capped else [*segments, last]:
        for credit in book.eligible(PERIOD, segment):
            for component in COMPONENTS:
                assert not pays(credit, component) or segment.uncovered[component.id] == 0


@given(books(), st.randoms(use_true_random=False))
def test_the_order_in_which_credits_are_read_does_not_matter(told: Books, random: Any) -> None:
    shuffled = told.copy()
    random.shuffle(shuffled.credits)
    told.bill()
    shuffled.bill()
    assert told.outcome == shuffled.outcome


@given(books(), st.lists(DAYS.filter(lambda each: BEGIN < each < END), max_size=3))
def test_earlier_expiries_change_nothing(told: Books, moments: list[datetime]) -> None:
    """Whenever credits are expired within a period, or never, its run has the same result."""
    in_steps = told.copy()
    for now in sorted(moments):
        in_steps.expire(now)
        in_steps.expire(now)
    alone, last = told.bill(), in_steps.bill()
    assert in_steps.outcome == told.outcome
    assert [(c.charge_type, c.amount_minor) for c in last.charges] == [
        (c.charge_type, c.amount_minor) for c in alone.charges
    ]
    assert last.receivable_minor == alone.receivable_minor
    assert last.surplus_minor == alone.surplus_minor
    assert [c.credits_applied_minor for c in last.calculations] == [
        c.credits_applied_minor for c in alone.calculations
    ]
