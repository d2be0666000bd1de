"""Which credit pays what: order, scopes, segments of event time, prior coverage, the cap."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from billing.domain.credit_consumption import (
    ChargeDemand,
    Coverage,
    CreditBook,
    PeriodCredits,
    Segment,
    consume,
    consume_last,
    cuts_within,
    pays,
    pays_charges,
    segment_number,
    segments_of,
    unpaid_charges,
)
from billing.domain.credits import CreditApplicationKind, UsageCredit, UsageCreditType
from billing.domain.identifiers import new_id
from tests.factories.domain import BEGIN, a_component
from tests.factories.domain_credits import (
    END,
    TOP_UP,
    a_book,
    a_credit,
    a_period,
    day,
    paid_by,
)

CALLS, TOKENS = a_component(name="calls"), a_component(name="tokens")
PERIOD = a_period()
MOMENT = timedelta(microseconds=1)
RUN, REALTIME, SETTLEMENT = CreditApplicationKind
PAID_TYPES = (
    UsageCreditType.PAYMENT_TOP_UP,
    UsageCreditType.PAYMENT_PERIOD_SETTLEMENT,
    UsageCreditType.SURPLUS,
)
GRANTED_TYPES = tuple(each for each in UsageCreditType if each not in PAID_TYPES)
NAMES = {CALLS.id: "calls", TOKENS.id: "tokens"}


def names_of(**credits_: UsageCredit) -> dict[Any, str]:
    return NAMES | {credit.id: name for name, credit in credits_.items()}


def whole_period(**usage: int) -> list[Segment]:
    """The undivided period with usage of components by name."""
    by_name = {name: component_id for component_id, name in NAMES.items()}
    costs = {(by_name[name], 0): minor for name, minor in usage.items()}
    return segments_of(PERIOD, (), costs)


# What comes first, and what after it, by each criterion of the order; the most important first.
# Each credit of a pair differs from the other by this alone.
CRITERIA: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("of the period before evergreen", {"billing_period_id": PERIOD.id}, {}),
    ("of a component before general", {"component_id": CALLS.id}, {}),
    ("lower priority", {"priority": -1}, {"priority": 0}),
    ("earlier expiry", {"expires_at": day(40)}, {"expires_at": day(41)}),
    ("promotional before paid", {}, {"credit_type": TOP_UP}),
    ("earlier issued", {"issued_at": day(1)}, {"issued_at": day(2)}),
]
OTHER_PAIRS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("of a meter before general", {"usage_meter_id": CALLS.usage_meter_id}, {}),
    ("any expiry before none", {"expires_at": day(4000)}, {}),
    *[
        (f"{granted} before {paid}", {"credit_type": granted}, {"credit_type": paid})
        for granted in GRANTED_TYPES
        for paid in PAID_TYPES
    ],
]


def consumed(*credits_: UsageCredit) -> list[UsageCredit]:
    """The credits in the order in which they pay usage of calls that takes all they have."""
    applications = consume(a_book(*credits_), PERIOD, whole_period(calls=10**6), [CALLS])
    return [application.credit for application in applications]


class TestOrder:
    @pytest.mark.parametrize(
        ("first", "then"),
        [pair[1:] for pair in CRITERIA + OTHER_PAIRS],
        ids=[pair[0] for pair in CRITERIA + OTHER_PAIRS],
    )
    def test_each_criterion_decides_alone(
        self, first: dict[str, Any], then: dict[str, Any]
    ) -> None:
        later, earlier = a_credit(**then), a_credit(**first)  # by its id it would come later
        assert consumed(later, earlier) == consumed(earlier, later) == [earlier, later]

    @pytest.mark.parametrize(
        "number", range(len(CRITERIA)), ids=[criterion[0] for criterion in CRITERIA]
    )
    def test_each_criterion_decides_against_all_that_come_after_it(self, number: int) -> None:
        wins, loses = dict(CRITERIA[number][1]), dict(CRITERIA[number][2])
        for _, better, worse in CRITERIA[number + 1 :]:
            wins |= worse
            loses |= better
        loser, winner = a_credit(**loses), a_credit(**wins)
        assert consumed(loser, winner) == [winner, loser]

    def test_of_equals_the_first_made_comes_first(self) -> None:
        first, second, third = a_credit(), a_credit(), a_credit()
        assert consumed(third, first, second) == [first, second, third]


class TestEligibility:
    @pytest.mark.parametrize(
        ("terms", "is_eligible"),
        [
            ({}, True),
            ({"effective_at": day(10)}, True),
            ({"effective_at": day(10) + MOMENT}, False),
            ({"effective_at": day(9)}, True),
            ({"expires_at": day(20)}, True),
            ({"expires_at": day(20) - MOMENT}, False),
            ({"expires_at": day(21)}, True),
            ({"billing_period_id": PERIOD.id}, True),
            ({"billing_period_id": new_id()}, False),
        ],
        ids=count(),
    )
    def test_a_credit_pays_in_a_segment_that_it_lives_through(
        self, terms: dict[str, Any], is_eligible: bool
    ) -> None:
        credit = a_credit(**terms)
        found = list(a_book(credit).eligible(PERIOD, Segment(day(10), day(20))))
        assert found == ([credit] if is_eligible else [])

    def test_a_credit_that_expires_exactly_at_the_end_pays_the_last_segment(self) -> None:
        credit = a_credit(expires_at=END)
        assert consumed(credit) == [credit]

    def test_a_credit_of_before_the_period_or_that_begins_with_it_pays_the_first(self) -> None:
        early, sharp = a_credit(effective_at=day(-30)), a_credit(effective_at=BEGIN)
        late = a_credit(effective_at=BEGIN + MOMENT)
        assert consumed(late, sharp, early) == [early, sharp]

    def test_what_is_over_is_told_with_what_is_left(self) -> None:
        over = a_credit(100, expires_at=day(10))
        spent = a_credit(remaining_minor=0, expires_at=day(10))
        book = a_book(over, spent, a_credit(expires_at=day(10) + MOMENT), a_credit())
        book.take(over, 30)
        assert list(book.over_by(day(10))) == [(over, 70)]


class TestScopes:
    @pytest.mark.parametrize(
        ("terms", "payable"),
        [
            ({}, {"calls", "tokens"}),
            ({"usage_meter_id": CALLS.usage_meter_id}, {"calls"}),
            ({"component_id": TOKENS.id}, {"tokens"}),
            ({"usage_meter_id": CALLS.usage_meter_id, "component_id": TOKENS.id}, set()),
            ({"usage_meter_id": new_id()}, set()),
        ],
        ids=["general", "meter", "component", "contradiction", "unpriced meter"],
    )
    def test_a_credit_pays_the_usage_of_its_meter_and_component(
        self, terms: dict[str, Any], payable: set[str]
    ) -> None:
        credit = a_credit(**terms)
        assert {c.name for c in (CALLS, TOKENS) if pays(credit, c)} == payable

    @pytest.mark.parametrize(
        ("terms", "is_payable"),
        [
            *[({"credit_type": paid}, True) for paid in PAID_TYPES],
            *[({"credit_type": granted}, False) for granted in GRANTED_TYPES],
            ({"covers_charges": True}, True),
            ({"covers_charges": True, "usage_meter_id": CALLS.usage_meter_id}, False),
            ({"credit_type": TOP_UP, "component_id": CALLS.id}, False),
        ],
        ids=count(),
    )
    def test_charges_are_paid_by_general_credits_that_are_paid_or_say_so(
        self, terms: dict[str, Any], is_payable: bool
    ) -> None:
        assert pays_charges(a_credit(**terms)) is is_payable

    def test_general_credits_pay_what_those_of_a_meter_leave(self) -> None:
        general, of_calls = a_credit(100), a_credit(30, usage_meter_id=CALLS.usage_meter_id)
        applications = consume(
            a_book(general, of_calls), PERIOD, whole_period(calls=50, tokens=60), [CALLS, TOKENS]
        )
        assert paid_by(applications, names_of(general=general, of_calls=of_calls)) == [
            ("of_calls", "calls", 30),
            ("general", "calls", 20),
            ("general", "tokens", 60),
        ]

    def test_components_are_paid_in_the_order_of_the_plan(self) -> None:
        credit = a_credit(70)
        segments = whole_period(calls=50, tokens=50)
        applications = consume(a_book(credit), PERIOD, segments, [TOKENS, CALLS])
        assert paid_by(applications, names_of(credit=credit)) == [
            ("credit", "tokens", 50),
            ("credit", "calls", 20),
        ]


class TestSegments:
    def test_a_period_is_cut_strictly_within_once_a_moment_in_order(self) -> None:
        moments = [day(20), BEGIN, day(10), END, day(20), day(-3), day(50), BEGIN + MOMENT]
        assert cuts_within(PERIOD, moments) == [BEGIN + MOMENT, day(10), day(20)]

    @pytest.mark.parametrize(
        ("at", "number"),
        [
            (day(-300), 0),
            (day(10) - MOMENT, 0),
            (day(10), 1),
            (day(20) - MOMENT, 1),
            (day(20), 2),
            (END + timedelta(hours=1), 2),
        ],
        ids=count(),
    )
    def test_usage_belongs_to_the_segment_that_holds_it(self, at: datetime, number: int) -> None:
        """Before the period it is in the first, after it in the last."""
        assert segment_number([day(10), day(20)], at) == number
        assert segment_number([], at) == 0

    def test_each_credit_pays_the_usage_of_its_own_time(self) -> None:
        early, late = a_credit(100, expires_at=day(10)), a_credit(100, effective_at=day(20))
        usage = {(CALLS.id, 0): 40, (CALLS.id, 1): 50, (CALLS.id, 2): 60}
        segments = segments_of(PERIOD, [day(10), day(20)], usage)
        applications = consume(a_book(early, late), PERIOD, segments, [CALLS])
        assert paid_by(applications, names_of(early=early, late=late)) == [
            ("early", "calls", 40),
            ("late", "calls", 60),
        ]
        assert [(a.usage_from, a.usage_until) for a in applications] == [
            (BEGIN, day(10)),
            (day(20), END),
        ]

    def test_earlier_usage_is_paid_before_later_even_by_the_last_in_order(self) -> None:
        """Time goes before order: what expires later pays first if only it lives early enough."""
        evergreen, expiring = a_credit(50), a_credit(50, effective_at=day(10), expires_at=day(20))
        usage = {(CALLS.id, 0): 30, (CALLS.id, 1): 60, (CALLS.id, 2): 10}
        segments = segments_of(PERIOD, [day(10), day(20)], usage)
        applications = consume(a_book(evergreen, expiring), PERIOD, segments, [CALLS])
        assert paid_by(applications, names_of(evergreen=evergreen, expiring=expiring)) == [
            ("evergreen", "calls", 30),
            ("expiring", "calls", 50),
            ("evergreen", "calls", 10),
            ("evergreen", "calls", 10),
        ]


def covered(kind: CreditApplicationKind, minor: int, *span: datetime) -> Coverage:
    """Prior coverage of calls, within a span or anywhere in the period."""
    since, until = span or (None, None)
    return Coverage(kind, CALLS.id, since, until, minor)


class TestPriorCoverage:
    USAGE = ((CALLS.id, 0), 40), ((CALLS.id, 1), 50), ((CALLS.id, 2), 60), ((TOKENS.id, 1), 70)

    @pytest.mark.parametrize(
        ("prior", "uncovered"),
        [
            ([], [40, 50, 60]),
            ([covered(RUN, 30, day(10), day(20))], [40, 20, 60]),
            ([covered(SETTLEMENT, 100)], [0, 0, 50]),
            # Within its span the oldest usage is paid first, what is too much elsewhere.
            ([covered(RUN, 60, day(10), END)], [40, 0, 50]),
            ([covered(REALTIME, 70, day(10), day(20))], [20, 0, 60]),
            # Whatever the order in which they are read, those with a span go first.
            ([covered(SETTLEMENT, 60), covered(RUN, 40, BEGIN, day(10))], [0, 0, 50]),
            ([covered(RUN, 40, BEGIN, day(10)), covered(SETTLEMENT, 60)], [0, 0, 50]),
            # A credit granted since may divide a span.
            ([covered(REALTIME, 90, BEGIN, day(20))], [0, 0, 60]),
            # A payment of charges covers no usage.
            ([Coverage(SETTLEMENT, None, None, None, 99)], [40, 50, 60]),
        ],
        ids=count(),
    )
    def test_what_was_paid_before_is_not_paid_again(
        self, prior: list[Coverage], uncovered: list[int]
    ) -> None:
        segments = segments_of(PERIOD, [day(10), day(20)], dict(self.USAGE), prior)
        assert [segment.uncovered[CALLS.id] for segment in segments] == uncovered
        assert segments[1].uncovered[TOKENS.id] == 70

    def test_charges_are_paid_in_order_by_what_was_applied_to_them(self) -> None:
        first, second = ChargeDemand(30, new_id()), ChargeDemand(50)
        prior = [Coverage(SETTLEMENT, None, None, None, 20), covered(SETTLEMENT, 1000)]
        assert unpaid_charges([first, second], prior) == [
            first._replace(amount_minor=10),
            second,
        ]
        prior.append(Coverage(RUN, None, None, None, 15))
        assert [d.amount_minor for d in unpaid_charges([first, second], prior)] == [0, 45]

    def test_a_negative_charge_takes_nothing_of_it(self) -> None:
        prior = [Coverage(SETTLEMENT, None, None, None, 20)]
        demands = unpaid_charges([ChargeDemand(-500), ChargeDemand(30)], prior)
        assert [demand.amount_minor for demand in demands] == [-500, 10]

    def test_settlements_are_payments_and_no_credits(self) -> None:
        prior = [covered(RUN, 1), covered(REALTIME, 2), covered(SETTLEMENT, 4)]
        prior.append(Coverage(RUN, None, None, None, 8))
        prior.append(Coverage(RUN, TOKENS.id, None, None, 16))
        credits_ = PeriodCredits(CreditBook([]), prior=prior)
        assert credits_.prior_minor == 31
        assert credits_.prior_credits_minor() == 27
        assert credits_.prior_credits_minor(CALLS.id) == 3


class TestTheLastSegment:
    def pay(
        self,
        limit: int,
        *credits_: UsageCredit,
        charges: tuple[ChargeDemand, ...] = (),
        **names: UsageCredit,
    ) -> list[tuple[str, str, int]]:
        """Let credits pay 50 of calls, 60 of tokens, and charges."""
        [segment] = whole_period(calls=50, tokens=60)
        applications = consume_last(
            a_book(*credits_, *names.values()),
            PERIOD,
            segment,
            [CALLS, TOKENS],
            charges,
            limit_minor=limit,
        )
        return paid_by(applications, names_of(**names))

    def test_charges_come_after_the_components(self) -> None:
        demands = (ChargeDemand(40), ChargeDemand(30))
        assert self.pay(10**6, paid=a_credit(200, credit_type=TOP_UP), charges=demands) == [
            ("paid", "calls", 50),
            ("paid", "tokens", 60),
            ("paid", "charges", 40),
            ("paid", "charges", 30),
        ]

    def test_promotions_leave_the_charges_to_those_that_may_pay_them(self) -> None:
        promo = a_credit(200, priority=-1)
        covering = a_credit(30, covers_charges=True)
        paid = a_credit(100, credit_type=TOP_UP)
        charges = (ChargeDemand(40),)
        assert self.pay(10**6, promo=promo, covering=covering, paid=paid, charges=charges) == [
            ("promo", "calls", 50),
            ("promo", "tokens", 60),
            ("covering", "charges", 30),
            ("paid", "charges", 10),
        ]

    @pytest.mark.parametrize(
        ("limit", "expected"),
        [
            (0, []),
            (20, [("promo", "calls", 20)]),
            (105, [("promo", "calls", 50), ("promo", "tokens", 30), ("paid", "tokens", 25)]),
            (
                130,
                [
                    ("promo", "calls", 50),
                    ("promo", "tokens", 30),
                    ("paid", "tokens", 30),
                    ("paid", "charges", 20),
                ],
            ),
        ],
    )
    def test_nothing_beyond_the_limit_is_paid(
        self, limit: int, expected: list[tuple[str, str, int]]
    ) -> None:
        promo, paid = a_credit(80), a_credit(200, credit_type=TOP_UP)
        assert self.pay(limit, promo=promo, paid=paid, charges=(ChargeDemand(40),)) == expected

    def test_a_negative_charge_is_not_paid(self) -> None:
        paid = a_credit(200, credit_type=TOP_UP)
        assert self.pay(60, paid=paid, charges=(ChargeDemand(-50),)) == [
            ("paid", "calls", 50),
            ("paid", "tokens", 10),
        ]

    def test_the_payment_of_a_charge_names_its_entry_and_no_time(self) -> None:
        charge = ChargeDemand(40, new_id())
        paid = a_credit(40, credit_type=TOP_UP)
        segment = Segment(BEGIN, END)
        [application] = consume_last(a_book(paid), PERIOD, segment, [], [charge], limit_minor=40)
        assert application.applied_to_ledger_entry_id == charge.ledger_entry_id
        assert (application.usage_from, application.usage_until) == (None, None)
