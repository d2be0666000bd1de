"""What a recalculation changes, by component, on paper, and as documents."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.billing import CalculationStatus, CalculationType, Charge
from billing.domain.calculations import KeptCalculation
from billing.domain.catalog import Component
from billing.domain.errors import AmountOutOfRange
from billing.domain.rating import charge_minor
from billing.domain.recalculations import (
    ComponentChange,
    IssuedInvoice,
    RecalculationDocumentKind,
    adjustment_charges,
    compare_components,
    invoiced_change,
    plan_documents,
)
from billing.domain.usage import UsageTally
from tests.factories.domain import a_component

NOW = datetime(2026, 3, 15, tzinfo=UTC)
INVOICE = RecalculationDocumentKind.INVOICE
CREDIT_NOTE = RecalculationDocumentKind.CREDIT_NOTE
VOID = RecalculationDocumentKind.VOID

CALLS = a_component(name="calls", unit_price="1")
TOKENS = a_component(name="tokens", unit_price="0.015", included="100")


def tally(of: Component, quantity: str) -> UsageTally:
    """An aggregate with a quantity, rated."""
    rated_minor = charge_minor(of, Decimal(quantity))
    return UsageTally(uuid.uuid4(), uuid.uuid4(), of, Decimal(quantity), rated_minor)


def kept(of: Component, quantity: str, *, credits_minor: int = 0) -> KeptCalculation:
    """An active calculation of a quantity."""
    raw_minor = charge_minor(of, Decimal(quantity))
    return KeptCalculation(
        id=uuid.uuid4(),
        calculation_run_id=uuid.uuid4(),
        billing_run_id=uuid.uuid4(),
        recalculation_id=None,
        subscription_id=uuid.uuid4(),
        billing_period_id=uuid.uuid4(),
        component_id=of.id,
        usage_meter_id=of.usage_meter_id,
        calculation_type=CalculationType.BILLING_RUN,
        status=CalculationStatus.ACTIVE,
        total_quantity=Decimal(quantity),
        billable_quantity=max(Decimal(0), Decimal(quantity) - of.included_units),
        unit_price=of.unit_price,
        total_raw_usage_minor=raw_minor,
        credits_applied_minor=credits_minor,
        currency="USD",
        superseded_by_id=None,
        source_invoice_id="",
        source_credit_note_id="",
        notes="",
        calculated_at=NOW,
    )


def compare(
    tallies: Iterable[UsageTally], active: Iterable[KeptCalculation], **credits_minor: int
) -> list[ComponentChange]:
    """Compare calls and tokens; the keywords are what credits pay more of them."""
    changed = {c.id: credits_minor.get(c.name, 0) for c in (CALLS, TOKENS)}
    by_component = {each.component.id: each for each in tallies}
    return list(compare_components([CALLS, TOKENS], by_component, active, changed))


def facts(charges: Iterable[Charge]) -> list[tuple[str, str, str, int]]:
    """What lines say."""
    return [(c.charge_type, c.description, str(c.quantity), c.amount_minor) for c in charges]


class TestComponents:
    def test_usage_is_calculated_as_it_is_now(self) -> None:
        [calls, tokens] = compare(
            [tally(CALLS, "140"), tally(TOKENS, "300")],
            [kept(TOKENS, "500", credits_minor=4), kept(CALLS, "100", credits_minor=60)],
            calls=40,
            tokens=-1,
        )
        assert (calls.raw_change_minor, calls.units_change) == (40, Decimal(40))
        assert (calls.new.credits_applied_minor, calls.new.net_billed_minor) == (100, 40)
        assert (tokens.raw_change_minor, tokens.units_change) == (-3, Decimal(-200))
        assert tokens.new.total_quantity == 300
        assert tokens.new.billable_quantity == 200
        assert (tokens.new.total_raw_usage_minor, tokens.new.credits_applied_minor) == (3, 3)
        assert not calls.is_none
        assert not tokens.is_none

    def test_nothing_changes_where_nothing_differs(self) -> None:
        changes = compare([tally(CALLS, "7.0")], [kept(CALLS, "7"), kept(TOKENS, "0")])
        assert [change.is_none for change in changes] == [True, True]

    @pytest.mark.parametrize(
        ("quantity", "credits_minor"), [("8", 0), ("7", 1), ("7", -1)], ids=str
    )
    def test_a_difference_is_one(self, quantity: str, credits_minor: int) -> None:
        before = kept(CALLS, "7", credits_minor=2)
        [change] = compare([tally(CALLS, quantity)], [before], calls=credits_minor)
        assert not change.is_none

    def test_units_that_cost_nothing_are_a_difference_too(self) -> None:
        [change] = compare([tally(TOKENS, "60")], [kept(TOKENS, "50")])
        assert (change.is_none, change.raw_change_minor) == (False, 0)
        assert change.units_change == 0

    def test_what_was_never_calculated_is_new(self) -> None:
        [change] = compare([tally(CALLS, "5")], [])
        assert (change.old, change.raw_change_minor) == (None, 5)
        assert change.units_change == 5
        assert not change.is_none

    def test_what_has_neither_usage_nor_a_calculation_is_left_out(self) -> None:
        assert compare([], []) == []

    def test_usage_that_is_gone_costs_nothing(self) -> None:
        [change] = compare([], [kept(CALLS, "9", credits_minor=9)], calls=-9)
        assert change.new.total_quantity == 0
        assert change.new.total_raw_usage_minor == 0
        assert (change.raw_change_minor, change.new.credits_applied_minor) == (-9, 0)

    def test_too_much_usage_is_refused(self) -> None:
        counted = tally(CALLS, "1")
        counted.quantity = Decimal(2**63)
        with pytest.raises(AmountOutOfRange):
            compare([counted], [])


class TestCharges:
    def test_a_line_for_each_component_and_one_for_credits(self) -> None:
        changes = compare(
            [tally(CALLS, "1140"), tally(TOKENS, "300")], [kept(CALLS, "100"), kept(TOKENS, "500")]
        )
        charges = adjustment_charges(changes, credits_change_minor=40, carried_minor=0)
        assert facts(charges) == [
            ("usage", "Correction: calls (1,140)", "1040", 1040),
            ("usage", "Correction: tokens (200 over 100 included)", "-200", -3),
            ("credit", "Credits applied", "1", -40),
        ]
        assert [c.component_id for c in charges] == [CALLS.id, TOKENS.id, None]

    def test_credits_that_pay_less(self) -> None:
        charges = adjustment_charges([], credits_change_minor=-40, carried_minor=0)
        assert facts(charges) == [("credit", "Credits released", "1", 40)]

    def test_components_that_cost_the_same_have_no_line(self) -> None:
        changes = compare([tally(TOKENS, "60")], [kept(TOKENS, "50")])
        assert adjustment_charges(changes, credits_change_minor=0, carried_minor=0) == []

    def test_what_is_not_invoiced_is_carried(self) -> None:
        charges = adjustment_charges([], credits_change_minor=30, carried_minor=30)
        assert facts(charges)[-1] == ("carried", "Carried to credit", "1", 30)

    @given(
        calls=st.tuples(st.integers(0, 500), st.integers(0, 500)),
        tokens=st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)),
        credits_minor=st.integers(-500, 500),
        total_minor=st.integers(-500, 500),
    )
    def test_the_lines_add_up_to_what_is_invoiced_more(
        self,
        calls: tuple[int, int],
        tokens: tuple[int, int],
        credits_minor: int,
        total_minor: int,
    ) -> None:
        changes = compare(
            [tally(CALLS, str(calls[1])), tally(TOKENS, str(tokens[1]))],
            [kept(CALLS, str(calls[0])), kept(TOKENS, str(tokens[0]))],
        )
        net_minor = sum(c.raw_change_minor for c in changes) - credits_minor
        change_minor = invoiced_change(total_minor, net_minor)
        charges = adjustment_charges(
            changes,
            credits_change_minor=credits_minor,
            carried_minor=change_minor - net_minor,
        )
        assert sum(c.amount_minor for c in charges) == change_minor
        assert all(c.amount_minor != 0 for c in charges)
        keys = [(c.charge_type, c.component_id) for c in charges]
        assert len(set(keys)) == len(keys)


class TestInvoicedChange:
    @pytest.mark.parametrize(
        ("total_minor", "net_minor", "expected"),
        [
            (100, 40, 40),
            (100, -40, -40),
            (100, -100, -100),
            (100, -130, -100),
            (0, 0, 0),
            (-30, 20, 0),
            (-30, 30, 0),
            (-30, 50, 20),
            (-30, -10, 0),
        ],
    )
    def test_nothing_below_zero_is_invoiced(
        self, total_minor: int, net_minor: int, expected: int
    ) -> None:
        assert invoiced_change(total_minor, net_minor) == expected

    def test_more_than_the_ledger_holds_is_refused(self) -> None:
        with pytest.raises(AmountOutOfRange):
            invoiced_change(0, 2**63)

    @given(st.integers(-(10**6), 10**6), st.lists(st.integers(-(10**6), 10**6), max_size=8))
    def test_in_steps_it_comes_to_the_same_as_at_once(
        self, total_minor: int, changes: list[int]
    ) -> None:
        invoiced_minor, now_minor = 0, total_minor
        for change_minor in changes:
            invoiced_minor += invoiced_change(now_minor, change_minor)
            now_minor += change_minor
        assert invoiced_minor == invoiced_change(total_minor, sum(changes))


def plan(
    change_minor: int, *invoices: tuple[str, int, int], owed_minor: int = 10**6
) -> list[tuple[RecalculationDocumentKind, int, str]]:
    """Plan for invoices, newest first, as (id, amount, left); the last is that of the billing."""
    last = len(invoices) - 1
    issued = [IssuedInvoice(*each, number < last) for number, each in enumerate(invoices)]
    return list(plan_documents(change_minor, issued, receivable_minor=owed_minor))


class TestDocuments:
    def test_nothing_is_asked_for_where_nothing_changes(self) -> None:
        assert plan(0, ("first", 100, 100)) == []

    @pytest.mark.parametrize("invoices", [(), (("second", 5, 5), ("first", 100, 100))])
    def test_more_is_one_additional_invoice(self, invoices: Sequence[tuple[str, int, int]]) -> None:
        assert plan(40, *invoices) == [(INVOICE, 40, "")]

    def test_less_is_a_credit_note(self) -> None:
        assert plan(-40, ("first", 100, 100)) == [(CREDIT_NOTE, -40, "first")]

    def test_the_invoice_of_the_billing_is_never_voided(self) -> None:
        assert plan(-100, ("first", 100, 100)) == [(CREDIT_NOTE, -100, "first")]

    def test_the_newest_invoice_goes_first_up_to_what_is_left_of_it(self) -> None:
        invoices = ("third", 50, 20), ("second", 30, 30), ("first", 100, 100)
        assert plan(-60, *invoices) == [
            (CREDIT_NOTE, -20, "third"),
            (VOID, -30, "second"),
            (CREDIT_NOTE, -10, "first"),
        ]

    def test_invoices_of_which_nothing_is_left_are_passed_over(self) -> None:
        invoices = ("third", 50, 0), ("second", 0, 0), ("first", 100, 70)
        assert plan(-70, *invoices) == [(CREDIT_NOTE, -70, "first")]

    def test_an_additional_invoice_in_part_has_a_credit_note(self) -> None:
        assert plan(-39, ("second", 40, 40), ("first", 9, 9)) == [(CREDIT_NOTE, -39, "second")]

    def test_an_additional_invoice_with_a_credit_note_is_not_voided(self) -> None:
        assert plan(-30, ("second", 40, 30), ("first", 9, 9)) == [(CREDIT_NOTE, -30, "second")]

    @pytest.mark.parametrize(
        ("owed_minor", "kind"), [(40, VOID), (39, CREDIT_NOTE), (0, CREDIT_NOTE)]
    )
    def test_an_additional_invoice_is_voided_only_if_nobody_paid_it(
        self, owed_minor: int, kind: RecalculationDocumentKind
    ) -> None:
        invoices = ("second", 40, 40), ("first", 100, 100)
        assert plan(-40, *invoices, owed_minor=owed_minor) == [(kind, -40, "second")]

    def test_what_is_owed_is_voided_once(self) -> None:
        invoices = ("third", 30, 30), ("second", 40, 40), ("first", 100, 100)
        assert plan(-70, *invoices, owed_minor=60) == [
            (VOID, -30, "third"),
            (CREDIT_NOTE, -40, "second"),
        ]

    @given(
        invoices=st.lists(
            st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=6
        ),
        owed_minor=st.integers(0, 3000),
        part=st.floats(0, 1),
    )
    def test_all_that_is_taken_back_was_invoiced(
        self, invoices: list[tuple[int, int]], owed_minor: int, part: float
    ) -> None:
        issued = {
            f"in_{number}": (amount, max(0, amount - credited))
            for number, (amount, credited) in enumerate(invoices)
        }
        left_minor = sum(left for _, left in issued.values())
        change_minor = -int(left_minor * part)
        planned = plan(
            change_minor,
            *[(name, amount, left) for name, (amount, left) in issued.items()],
            owed_minor=owed_minor,
        )
        assert sum(amount for _, amount, _ in planned) == change_minor
        names = [name for _, _, name in planned]
        assert names == sorted(set(names), key=list(issued).index)
        for kind, amount_minor, name in planned:
            amount, left = issued[name]
            assert 0 < -amount_minor <= left
            if kind is VOID:
                assert -amount_minor == amount == left
        # Each is used up before the next one is touched.
        assert all(-amount == issued[name][1] for _, amount, name in planned[:-1])
