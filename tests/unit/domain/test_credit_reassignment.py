"""What a change of usage releases of the credits that pay it, and what that pays next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.credit_consumption import segments_of
from billing.domain.credit_reassignment import (
    CoveredPeriod,
    LiveApplication,
    Reassignment,
    find_releases,
    reassign,
)
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.identifiers import new_id
from tests.factories.domain import BEGIN, a_component
from tests.factories.domain_credits import END, a_credit, a_period, day, paid_by

CALLS, TOKENS = a_component(name="calls"), a_component(name="tokens")
COMPONENTS = [CALLS, TOKENS]
NAMES = {CALLS.id: "calls", TOKENS.id: "tokens"}
PERIOD = a_period()
RUN, REALTIME, SETTLEMENT = CreditApplicationKind


def an_application(
    amount_minor: int,
    credit: UsageCredit | None = None,
    *,
    component_id: UUID | None = CALLS.id,
    kind: CreditApplicationKind = RUN,
    bounds: tuple[datetime, datetime] | None = (BEGIN, END),
) -> LiveApplication:
    """A credit that pays calls of the whole period unless told."""
    start, end = bounds or (None, None)
    return LiveApplication(
        id=new_id(),
        usage_credit_id=credit.id if credit else new_id(),
        billing_period_id=PERIOD.id,
        kind=kind,
        component_id=component_id,
        usage_meter_id=CALLS.usage_meter_id,
        usage_from=start,
        usage_until=end,
        live_minor=amount_minor,
        reversible_minor=amount_minor,
    )


def covered(
    *applications: LiveApplication,
    calls: Sequence[int] = (0,),
    tokens: Sequence[int] = (),
    cuts: Sequence[datetime] = (),
) -> CoveredPeriod:
    """A period's usage by component and segment, and what pays it."""
    usage = {(CALLS.id, number): amount for number, amount in enumerate(calls)}
    usage |= {(TOKENS.id, number): amount for number, amount in enumerate(tokens)}
    return CoveredPeriod(PERIOD, COMPONENTS, cuts, usage, applications)


def released(period: CoveredPeriod) -> list[tuple[int, int]]:
    """What is released, as the numbers of applications with amounts, in the order found."""
    numbers = {application.id: n for n, application in enumerate(period.applications)}
    return [(numbers[application.id], amount) for application, amount in find_releases(period)]


class TestReleases:
    @pytest.mark.parametrize(
        ("usage", "found"), [(100, []), (101, []), (99, [(0, 1)]), (0, [(0, 100)])], ids=str
    )
    def test_what_does_not_fit_any_more(self, usage: int, found: list[tuple[int, int]]) -> None:
        assert released(covered(an_application(100), calls=[usage])) == found

    def test_the_oldest_bounds_keep_most_and_of_equals_the_first_made(self) -> None:
        late = an_application(40, bounds=(day(10), day(20)))
        early = an_application(40, bounds=(BEGIN, day(10)))
        second = an_application(40, bounds=(BEGIN, day(10)))
        period = covered(late, second, early, calls=[50, 10, 0], cuts=[day(10), day(20)])
        assert early.id < second.id
        assert released(period) == [(1, 30), (0, 30)]

    def test_each_within_its_own_bounds(self) -> None:
        """The first segment has less usage than is paid of it, the second has more."""
        first = an_application(30, bounds=(BEGIN, day(10)))
        second = an_application(30, bounds=(day(10), END))
        assert released(covered(first, second, calls=[10, 100], cuts=[day(10)])) == [(0, 20)]

    def test_bounds_of_several_segments_are_filled_in_order(self) -> None:
        """A credit of today cuts what an application of yesterday paid in one."""
        wide = an_application(50, bounds=(BEGIN, day(20)))
        last = an_application(50, bounds=(day(10), day(20)))
        period = covered(wide, last, calls=[20, 60, 90], cuts=[day(10), day(20)])
        assert released(period) == [(1, 20)]

    def test_without_bounds_it_may_lie_anywhere_but_comes_last(self) -> None:
        anywhere = an_application(50, bounds=None)
        bounded = an_application(30, bounds=(day(10), END))
        period = covered(anywhere, bounded, calls=[10, 50], cuts=[day(10)])
        assert released(period) == [(0, 20)]

    def test_components_do_not_pay_for_each_other(self) -> None:
        calls, tokens = an_application(30), an_application(30, component_id=TOKENS.id)
        assert released(covered(calls, tokens, calls=[100], tokens=[5])) == [(1, 25)]

    @pytest.mark.parametrize("kind", [RUN, REALTIME])
    def test_settlements_and_what_pays_charges_stay(self, kind: CreditApplicationKind) -> None:
        settlement = an_application(30, kind=SETTLEMENT, bounds=None)
        charge = an_application(30, component_id=None, bounds=None)
        own = an_application(30, kind=kind)
        assert released(covered(settlement, charge, own, calls=[0])) == [(2, 30)]

    def test_usage_below_zero_is_set_off_first(self) -> None:
        paid = an_application(30, bounds=(day(10), END))
        assert released(covered(paid, calls=[-20, 40], cuts=[day(10)])) == [(0, 10)]


def moved(
    period: CoveredPeriod,
    *credits_: UsageCredit,
    until: datetime | None = None,
    owed_minor: int | None = None,
) -> Reassignment:
    return reassign(period, find_releases(period), credits_, until=until, owed_minor=owed_minor)


class TestOpenPeriods:
    """Only what ended by the last expiry is paid now."""

    @pytest.mark.parametrize(
        ("until", "paid"),
        [(None, 0), (day(10), 0), (day(20), 25), (END, 25)],
        ids=["no expiry", "before", "at its end", "after"],
    )
    def test_what_is_freed_pays_usage_of_segments_that_are_over(
        self, until: datetime | None, paid: int
    ) -> None:
        credit = a_credit(100, remaining_minor=0)
        period = covered(
            an_application(40, credit, bounds=(day(10), day(20))),
            calls=[0, 0, 0],
            tokens=[0, 25, 0],
            cuts=[day(10), day(20)],
        )
        change = moved(period, credit, until=until)
        assert (change.released_minor, change.applied_minor) == (40, paid)
        assert change.returned == {credit.id: 40 - paid}
        assert change.change_minor == paid - 40

    def test_it_pays_only_what_it_may(self) -> None:
        """Of its time and scope: an end or a void that came since is no matter."""
        expired = a_credit(remaining_minor=0, expires_at=day(10))
        voided = replace(a_credit(remaining_minor=0), voided_at=day(20))
        of_calls = a_credit(remaining_minor=0, component_id=CALLS.id)
        for credit, tokens in ((expired, 30), (voided, 40), (of_calls, 0)):
            period = covered(
                an_application(40, credit, bounds=(BEGIN, day(10))),
                calls=[0, 0],
                tokens=[30, 10],
                cuts=[day(10)],
            )
            assert moved(period, credit, until=END).applied_minor == tokens

    def test_credits_pay_in_their_order(self) -> None:
        """One that has something left may come before what was freed."""
        freed = a_credit(remaining_minor=0, priority=1)
        first = a_credit(remaining_minor=20)
        period = covered(an_application(40, freed), calls=[0], tokens=[50])
        change = moved(period, freed, first, until=END)
        names = NAMES | {freed.id: "freed", first.id: "first"}
        assert paid_by(change.applications, names) == [
            ("first", "tokens", 20),
            ("freed", "tokens", 30),
        ]
        assert change.returned == {freed.id: 10}

    def test_no_more_returns_than_was_freed(self) -> None:
        """Of a credit that has something left besides; nothing is no return."""
        rich = a_credit(remaining_minor=60)
        period = covered(an_application(40, rich), calls=[0], tokens=[70])
        assert moved(period, rich, until=END).returned == {rich.id: 30}
        period = covered(an_application(40, rich), calls=[0], tokens=[100])
        assert moved(period, rich, until=END).returned == {}
        period = covered(an_application(40, rich), calls=[0])
        assert moved(period, rich, until=END).returned == {rich.id: 40}

    def test_what_is_kept_is_not_paid_twice(self) -> None:
        credit = a_credit(remaining_minor=0)
        kept = an_application(25, credit, component_id=TOKENS.id)
        period = covered(an_application(40, credit), kept, calls=[10], tokens=[25])
        change = moved(period, credit, until=END)
        assert (change.released_minor, change.applied_minor) == (30, 0)

    def test_changes_are_told_by_component(self) -> None:
        credit = a_credit(remaining_minor=0)
        period = covered(an_application(40, credit), calls=[10], tokens=[25])
        change = moved(period, credit, until=END)
        assert change.component_change_minor(CALLS.id) == -30
        assert change.component_change_minor(TOKENS.id) == 25
        assert change.change_minor == -5


class TestBilledPeriods:
    """All is paid: the last segment up to what the period owes."""

    @pytest.mark.parametrize(
        ("owed", "paid"), [(100, 60), (60, 60), (25, 25), (0, 0), (-10, 0)], ids=str
    )
    def test_the_last_segment_is_paid_up_to_what_is_owed(self, owed: int, paid: int) -> None:
        change = moved(covered(calls=[60]), a_credit(100), owed_minor=owed)
        assert change.applied_minor == paid

    def test_earlier_segments_are_paid_whatever_is_owed(self) -> None:
        period = covered(calls=[60, 30], cuts=[day(10)])
        change = moved(period, a_credit(100), owed_minor=70)
        assert [a.amount_minor for a in change.applications] == [60, 10]
        change = moved(period, a_credit(100), owed_minor=20)
        assert [a.amount_minor for a in change.applications] == [60]

    def test_charges_are_not_paid(self) -> None:
        credit = a_credit(100, covers_charges=True)
        assert moved(covered(calls=[10]), credit, owed_minor=500).applied_minor == 10


_AMOUNTS = st.lists(st.integers(0, 60), min_size=3, max_size=3)
_SPANS = st.sampled_from(
    [(BEGIN, day(10)), (day(10), day(20)), (day(20), END), (BEGIN, END), (day(10), END), None]
)


@st.composite
def _periods(draw: st.DrawFn) -> tuple[CoveredPeriod, list[UsageCredit]]:
    """Usage by segment, what pays some of it or too much, and what is left of those credits."""
    credits_ = [
        a_credit(1000, remaining_minor=draw(st.integers(0, 50)), priority=number)
        for number in range(3)
    ]
    applications = [
        an_application(
            draw(st.integers(1, 80)),
            draw(st.sampled_from(credits_)),
            component_id=draw(st.sampled_from([CALLS.id, TOKENS.id])),
            kind=draw(st.sampled_from([RUN, REALTIME, SETTLEMENT])),
            bounds=draw(_SPANS),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    calls = draw(_AMOUNTS.flatmap(lambda a: st.permutations([*a[:2], a[2] - min(a[0], 30)])))
    period = covered(
        *applications,
        calls=calls if sum(calls) >= 0 else [0, 0, 0],
        tokens=draw(_AMOUNTS),
        cuts=[day(10), day(20)],
    )
    return period, credits_


def _live_by_component(period: CoveredPeriod) -> Counter[UUID | None]:
    live: Counter[UUID | None] = Counter()
    for application in period.applications:
        if not application.is_settlement:
            live[application.component_id] += application.live_minor
    return live


def _usage_by_component(usage: Mapping[tuple[UUID, int], int]) -> Counter[UUID]:
    by_component: Counter[UUID] = Counter()
    for (component_id, _), amount in usage.items():
        by_component[component_id] += amount
    return by_component


@given(_periods())
def test_releases_are_of_what_there_is_and_leave_no_more_than_the_usage(
    drawn: tuple[CoveredPeriod, list[UsageCredit]],
) -> None:
    period, _ = drawn
    releases = find_releases(period)
    assert all(0 < amount <= application.live_minor for application, amount in releases)
    assert not any(application.is_settlement for application, _ in releases)
    left = _live_by_component(period)
    for application, amount in releases:
        left[application.component_id] -= amount
    usage = _usage_by_component(period.usage)
    assert all(left[component.id] <= usage[component.id] for component in COMPONENTS)


@given(_periods())
def test_what_fits_is_kept(drawn: tuple[CoveredPeriod, list[UsageCredit]]) -> None:
    """After the releases nothing more is released."""
    period, _ = drawn
    by_id = {application.id: amount for application, amount in find_releases(period)}
    kept = [
        replace(a, live_minor=a.live_minor - by_id.get(a.id, 0))
        for a in period.applications
        if a.live_minor > by_id.get(a.id, 0)
    ]
    assert find_releases(replace(period, applications=kept)) == []


@given(_periods(), st.sampled_from([None, day(10), day(20), END]), st.integers(-20, 400))
def test_nothing_is_made_or_lost(
    drawn: tuple[CoveredPeriod, list[UsageCredit]], until: datetime | None, owed: int
) -> None:
    """Of no credit more is spent than it has; and no segment is paid more than it costs."""
    period, credits_ = drawn
    for change in (
        moved(period, *credits_, until=until),
        moved(period, *credits_, owed_minor=owed),
    ):
        freed: Counter[UUID] = Counter()
        for application, amount in change.releases:
            freed[application.usage_credit_id] += amount
        spent: Counter[UUID] = Counter()
        for new in change.applications:
            spent[new.credit.id] += new.amount_minor
        for credit in credits_:
            assert spent[credit.id] <= credit.remaining_minor + freed[credit.id]
            left = credit.remaining_minor + freed[credit.id] - spent[credit.id]
            assert change.returned[credit.id] == min(freed[credit.id], left)
        segments = segments_of(
            period.period,
            period.cuts,
            period.usage,
            [a.coverage(dict(change.releases).get(a, 0)) for a in period.applications],
        )
        for new in change.applications:
            assert new.component is not None
            [segment] = [s for s in segments if s.start == new.usage_from]
            assert segment.cover(new.component.id, new.amount_minor) == 0
