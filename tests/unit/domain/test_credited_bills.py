"""The bill of a period with credits: applications, lines, calculations, expiries, surplus."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.domain.billing import PeriodBill, bill_period
from billing.domain.credit_consumption import Coverage, PeriodCredits
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.errors import UsageDiffersFromLedger
from billing.domain.identifiers import new_id
from billing.domain.scope import Scope
from billing.domain.usage import UsageTally
from tests.factories.domain import a_component, a_subscription, a_version, open_periods_of
from tests.factories.domain_credits import (
    END,
    TOP_UP,
    a_book,
    a_credit,
    day,
    paid_by,
)

SCOPE = Scope("acme", livemode=True)
BILLED_AT = END + timedelta(hours=3)
CALLS = a_component(name="Calls", unit_price="1")
TOKENS = a_component(name="Tokens", unit_price="1")
RUN, REALTIME, SETTLEMENT = CreditApplicationKind


def bill(
    *credits_: UsageCredit,
    calls: int = 0,
    tokens: int = 0,
    base: int = 0,
    owed_otherwise: int = 0,
    billed_at: Any = BILLED_AT,
    **period_credits: Any,
) -> PeriodBill:
    """Bill January: calls and tokens cost 1 each.

    ``owed_otherwise`` is what the ledger holds beside usage; the last keywords are of
    ``PeriodCredits``.
    """
    version = a_version(CALLS, TOKENS, base_price_minor=base)
    open_periods = open_periods_of(version)
    tallies = {}
    for component, quantity in ((CALLS, calls), (TOKENS, tokens)):
        tallies[component.id] = UsageTally(new_id(), open_periods.oldest.id, component)
        tallies[component.id].add(Decimal(quantity))
    return bill_period(
        SCOPE,
        a_subscription(open_periods),
        replace(open_periods.oldest, receivable_minor=owed_otherwise),
        version,
        tallies,
        PeriodCredits(a_book(*credits_), **period_credits),
        billed_at=billed_at,
    )


def lines_of(billed: PeriodBill) -> list[tuple[str, int]]:
    return [(charge.charge_type.value, charge.amount_minor) for charge in billed.charges]


def applied(billed: PeriodBill, **credits_: UsageCredit) -> list[tuple[str, str, int]]:
    names = {CALLS.id: "calls", TOKENS.id: "tokens"} | {c.id: n for n, c in credits_.items()}
    return paid_by(billed.applications, names)


def calculated(billed: PeriodBill) -> list[tuple[int, int, int]]:
    """Raw usage, credits applied, and net of each component."""
    return [
        (c.total_raw_usage_minor, c.credits_applied_minor, c.net_billed_minor)
        for c in billed.calculations
    ]


def assert_adds_up(billed: PeriodBill) -> None:
    assert billed.total_minor == sum(amount for _, amount in lines_of(billed))
    assert billed.invoice_request is not None
    assert billed.invoice_request.total_minor == billed.total_minor >= 0
    lines = [(line.description, line.amount_minor) for line in billed.invoice_request.line_items]
    assert lines == [(charge.description, charge.amount_minor) for charge in billed.charges]


class TestLines:
    def test_raw_amounts_and_one_line_for_all_credits(self) -> None:
        promo, paid = a_credit(120), a_credit(1000, credit_type=TOP_UP)
        billed = bill(promo, paid, calls=100, tokens=50, base=2000)
        assert applied(billed, promo=promo, paid=paid) == [
            ("promo", "calls", 100),
            ("promo", "tokens", 20),
            ("paid", "tokens", 30),
            ("paid", "charges", 970),
        ]
        assert lines_of(billed) == [
            ("recurring", 2000),
            ("usage", 100),
            ("usage", 50),
            ("credit", -1120),
        ]
        line = billed.charges[-1]
        assert line.description == "Credits applied"
        assert (line.quantity, line.unit_price) == (Decimal(1), Decimal(-1120))
        assert billed.total_minor == billed.receivable_minor == 1030
        assert calculated(billed) == [(100, 100, 0), (50, 50, 0)]
        assert_adds_up(billed)

    @pytest.mark.parametrize("credits_", [[], [a_credit(0, remaining_minor=0)]], ids=len)
    def test_where_no_credit_pays_there_is_no_such_line(
        self, credits_: Sequence[UsageCredit]
    ) -> None:
        billed = bill(*credits_, calls=100)
        assert lines_of(billed) == [("usage", 100), ("usage", 0)]
        assert billed.applications == ()
        assert calculated(billed) == [(100, 0, 100), (0, 0, 0)]

    def test_the_payment_of_the_base_price_names_its_entry(self) -> None:
        paid = a_credit(500, credit_type=TOP_UP)
        billed = bill(paid, base=2000)
        [application] = billed.applications
        [recurring] = billed.recurring_charges
        assert application.applied_to_ledger_entry_id == recurring.ledger_entry_id is not None

    def test_all_is_paid_and_still_invoiced(self) -> None:
        billed = bill(a_credit(500), calls=100)
        assert lines_of(billed) == [("usage", 100), ("usage", 0), ("credit", -100)]
        assert (billed.total_minor, billed.receivable_minor) == (0, 0)
        assert billed.posts_entries
        assert_adds_up(billed)

    def test_credits_of_before_are_on_the_invoice_and_payments_are_not(self) -> None:
        prior = [
            Coverage(REALTIME, CALLS.id, day(1), day(32), 30),
            Coverage(RUN, TOKENS.id, None, None, 20),
            Coverage(SETTLEMENT, CALLS.id, None, None, 40),
        ]
        credit = a_credit(1000)
        # What the ledger holds for the period is less by all that was applied.
        billed = bill(credit, calls=100, tokens=50, prior=prior, owed_otherwise=-90)
        assert applied(billed, credit=credit) == [("credit", "calls", 30), ("credit", "tokens", 30)]
        assert lines_of(billed)[-1] == ("credit", -110)
        assert (billed.total_minor, billed.receivable_minor) == (40, 0)
        assert calculated(billed) == [(100, 60, 40), (50, 50, 0)]
        assert_adds_up(billed)

    def test_usage_by_segment_must_add_up_to_what_is_billed(self) -> None:
        usage = {(CALLS.id, 0): 40, (CALLS.id, 1): 59}
        with pytest.raises(UsageDiffersFromLedger):
            bill(a_credit(10), calls=100, cuts=[day(10)], usage=usage)


class TestSegments:
    USAGE = ((CALLS.id, 0), 40), ((CALLS.id, 1), 60)

    def test_each_credit_pays_within_its_time_and_expires_with_the_rest(self) -> None:
        early = a_credit(100, expires_at=day(10))
        sharp, later = a_credit(20, expires_at=END), a_credit(30, expires_at=END + timedelta(1))
        billed = bill(early, sharp, later, calls=100, cuts=[day(10)], usage=dict(self.USAGE))
        assert applied(billed, early=early, sharp=sharp, later=later) == [
            ("early", "calls", 40),
            ("sharp", "calls", 20),
            ("later", "calls", 30),
        ]
        assert billed.expiries == ((early, 60),)
        assert billed.total_minor == 10

    def test_a_credit_that_expires_at_the_end_expires_in_the_books_after_it_has_paid(self) -> None:
        credit = a_credit(100, expires_at=END)
        billed = bill(credit, calls=70)
        assert applied(billed, credit=credit) == [("credit", "calls", 70)]
        assert billed.expiries == ((credit, 30),)

    def test_what_is_billed_ahead_of_time_expires_nothing_that_is_not_over(self) -> None:
        credits_ = [a_credit(100, expires_at=day(number)) for number in (10, 20)]
        usage = {(CALLS.id, number): 0 for number in range(3)}
        billed = bill(*credits_, cuts=[day(10), day(20)], usage=usage, billed_at=day(15))
        assert billed.expiries == ((credits_[0], 100),)


class TestDeficits:
    def test_what_a_credit_could_not_give_back_has_its_line_and_is_a_charge(self) -> None:
        promo, paid = a_credit(1000), a_credit(1000, credit_type=TOP_UP)
        billed = bill(promo, paid, calls=100, owed_otherwise=70)
        assert applied(billed, promo=promo, paid=paid) == [
            ("promo", "calls", 100),
            ("paid", "charges", 70),
        ]
        assert lines_of(billed) == [
            ("usage", 100),
            ("usage", 0),
            ("credit_deficit", 70),
            ("credit", -170),
        ]
        assert billed.charges[2].description == "Credit taken back"
        assert billed.charges[2].ledger_entry_id is None, "it is in the ledger already"
        assert billed.recurring_charges == ()
        assert (billed.total_minor, billed.receivable_minor) == (0, 0)
        assert_adds_up(billed)

    def test_it_is_told_from_what_was_applied_before(self) -> None:
        """The receivable beside usage is deficits less applications."""
        prior = [
            Coverage(REALTIME, CALLS.id, None, None, 60),
            Coverage(SETTLEMENT, None, None, None, 10),
        ]
        billed = bill(calls=100, prior=prior, owed_otherwise=70 - 60 - 10)
        assert lines_of(billed) == [
            ("usage", 100),
            ("usage", 0),
            ("credit_deficit", 70),
            ("credit", -60),
        ]
        assert (billed.total_minor, billed.receivable_minor) == (110, 100)


class TestNegativeTotals:
    def test_what_is_too_much_is_carried_to_a_credit(self) -> None:
        billed = bill(calls=300, base=-500)
        assert lines_of(billed) == [
            ("recurring", -500),
            ("usage", 300),
            ("usage", 0),
            ("carried", 200),
        ]
        assert billed.charges[-1].description == "Carried to credit"
        assert (billed.total_minor, billed.receivable_minor, billed.surplus_minor) == (0, 0, 200)
        assert_adds_up(billed)

    def test_it_needs_no_credit(self) -> None:
        credits_ = a_credit(1000), a_credit(1000, credit_type=TOP_UP)
        billed = bill(*credits_, calls=300, base=-500)
        assert billed.applications == ()
        assert billed.surplus_minor == 200

    def test_a_positive_total_is_paid_up_to_it(self) -> None:
        promo, paid = a_credit(1000), a_credit(1000, credit_type=TOP_UP)
        billed = bill(promo, paid, calls=300, base=-100)
        assert applied(billed, promo=promo, paid=paid) == [("promo", "calls", 200)]
        assert lines_of(billed)[-1] == ("credit", -200)
        assert (billed.total_minor, billed.surplus_minor) == (0, 0)
        assert_adds_up(billed)

    def test_what_credits_paid_of_earlier_segments_is_carried_too(self) -> None:
        """Segments that ended earlier have no cap: when they were paid must not matter."""
        credit = a_credit(300, expires_at=day(10))
        usage = {(CALLS.id, 0): 250, (CALLS.id, 1): 50}
        at_once = bill(credit, calls=300, base=-100, cuts=[day(10)], usage=usage)
        prior = [Coverage(RUN, CALLS.id, day(1), day(10), 250)]
        in_steps = bill(
            calls=300, base=-100, cuts=[day(10)], usage=usage, prior=prior, owed_otherwise=-250
        )
        for billed in (at_once, in_steps):
            assert lines_of(billed) == [
                ("recurring", -100),
                ("usage", 300),
                ("usage", 0),
                ("credit", -250),
                ("carried", 50),
            ]
            assert (billed.total_minor, billed.surplus_minor) == (0, 50)
            assert_adds_up(billed)
        assert at_once.expiries == ((credit, 50),)

    def test_a_payment_of_the_period_is_carried_and_is_no_line(self) -> None:
        """A settlement paid usage before the base price was known: its value comes back."""
        prior = [Coverage(SETTLEMENT, CALLS.id, None, None, 300)]
        billed = bill(calls=300, base=-100, prior=prior, owed_otherwise=-300)
        assert lines_of(billed) == [("recurring", -100), ("usage", 300), ("usage", 0)]
        assert (billed.total_minor, billed.receivable_minor) == (200, 0)
        assert billed.surplus_minor == 100
