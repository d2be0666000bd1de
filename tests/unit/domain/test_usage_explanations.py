"""Lines of usage: ratings that are exact, and figures that must not contradict each other."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain import identifiers
from billing.domain.billing import CalculationStatus, CalculationType, ChargeType
from billing.domain.calculations import KeptCalculation
from billing.domain.catalog import Component
from billing.domain.charges import KeptCharge
from billing.domain.pages import Page
from billing.domain.proofs import ExplainedEntry, FiguresContradict
from billing.domain.rating import charge_minor
from billing.domain.usage_explanations import (
    ExplainedCorrection,
    ExplainedUsageEvent,
    UsageTotals,
    explain_usage,
    explain_usage_change,
    rate,
    require_whole,
)
from tests.factories.domain import decimals

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SUBSCRIPTION, PERIOD = identifiers.new_id(), identifiers.new_id()
COMPONENT = Component(
    identifiers.new_id(), identifiers.new_id(), "Calls", Decimal("0.015"), Decimal(100)
)
NO_EVENTS: Page[Any] = Page((), None)


def a_calculation(quantity: str, **fields: Any) -> KeptCalculation:
    """What a quantity of the component costs."""
    return KeptCalculation(
        **{
            "id": identifiers.new_id(),
            "calculation_run_id": identifiers.new_id(),
            "billing_run_id": identifiers.new_id(),
            "recalculation_id": None,
            "subscription_id": SUBSCRIPTION,
            "billing_period_id": PERIOD,
            "component_id": COMPONENT.id,
            "usage_meter_id": COMPONENT.usage_meter_id,
            "calculation_type": CalculationType.BILLING_RUN,
            "status": CalculationStatus.ACTIVE,
            "total_quantity": Decimal(quantity),
            "billable_quantity": max(Decimal(0), Decimal(quantity) - 100),
            "unit_price": COMPONENT.unit_price,
            "total_raw_usage_minor": charge_minor(COMPONENT, Decimal(quantity)),
            "credits_applied_minor": 0,
            "currency": "USD",
            "superseded_by_id": None,
            "source_invoice_id": "",
            "source_credit_note_id": "",
            "notes": "",
            "calculated_at": NOW,
            **fields,
        }
    )


def a_charge(calculation: KeptCalculation, amount_minor: int, quantity: str) -> KeptCharge:
    """A line of a calculation's execution."""
    return KeptCharge(
        id=identifiers.new_id(),
        subscription_id=SUBSCRIPTION,
        billing_period_id=PERIOD,
        billing_run_id=calculation.billing_run_id,
        recalculation_id=calculation.recalculation_id,
        calculation_run_id=calculation.calculation_run_id,
        charge_type=ChargeType.USAGE,
        component_id=COMPONENT.id,
        description="Calls",
        quantity=Decimal(quantity),
        unit_price=COMPONENT.unit_price,
        amount_minor=amount_minor,
        currency="USD",
        created_at=NOW,
    )


def totals_of(quantity: str, cost_minor: int) -> UsageTotals:
    return UsageTotals(1, Decimal(quantity), cost_minor, 0, Decimal(0), 0)


def an_event(quantity: str, cost_minor: int, *changes: tuple[str, str]) -> ExplainedUsageEvent:
    corrections = tuple(
        ExplainedCorrection(
            identifiers.new_id(),
            UUID(int=1),
            is_void=False,
            quantity_before=Decimal(before),
            quantity_after=Decimal(after),
            cost_change_minor=0,
            reason="",
            ledger_entry_id=UUID(int=2),
            ledger_transaction_id=UUID(int=3),
            corrected_at=NOW,
        )
        for before, after in changes
    )
    return ExplainedUsageEvent(
        UUID(int=1),
        "key",
        NOW,
        Decimal(quantity),
        cost_minor,
        is_late=False,
        ledger_entry_id=UUID(int=2),
        ledger_transaction_id=UUID(int=3),
        corrections=corrections,
    )


@given(decimals(whole_digits=6), decimals(whole_digits=3), decimals(whole_digits=5))
def test_any_quantity_is_its_tiers_and_one_rounding(
    quantity: Decimal, price: Decimal, included: Decimal
) -> None:
    component = replace(COMPONENT, unit_price=price, included_units=included)
    rating = rate(component, quantity)
    assert rating.amount_minor == charge_minor(component, quantity)
    assert rating.unrounded_minor + rating.residue_minor == rating.amount_minor
    assert abs(rating.residue_minor) <= Decimal("0.5")
    assert sum(tier.units for tier in rating.tiers) == quantity
    bounds = [tier.from_quantity for tier in rating.tiers]
    assert bounds == ([Decimal(0), included] if included else [Decimal(0)])


@given(st.integers(-(10**6), 10**6), st.integers(0, 100))
def test_prices_below_zero_round_away_from_zero_too(price: int, quantity: int) -> None:
    component = replace(COMPONENT, unit_price=Decimal(price) / 1000, included_units=Decimal(0))
    rating = rate(component, Decimal(quantity))
    assert abs(rating.residue_minor) <= Decimal("0.5")


def test_a_line_and_what_replaced_it() -> None:
    last = a_calculation("400")
    middle = a_calculation("300", superseded_by_id=last.id)
    first = a_calculation("260.5", superseded_by_id=middle.id)
    before = a_calculation(
        "1", superseded_by_id=first.id, calculation_type=CalculationType.INTERIM_ESTIMATE
    )
    charge = a_charge(first, 2, "160.5")
    totals = UsageTotals(2, Decimal(300), 3, 1, Decimal("-39.5"), -1)
    explained = explain_usage(
        charge, COMPONENT, [before, first, middle, last], totals, NO_EVENTS, []
    )
    assert explained.superseded == (before,)
    assert explained.superseding == (middle, last)
    assert (explained.rating.amount_minor, explained.net_minor) == (2, 2)


@pytest.mark.parametrize(
    ("quantity", "cost_minor", "amount_minor", "charged", "credits_minor", "what"),
    [
        ("260.5", 3, 2, "160.5", 0, "costs"),
        ("260.5", 2, 3, "160.5", 0, "costs"),
        ("260.4", 2, 2, "160.5", 0, "quantities"),
        ("260.5", 2, 2, "160", 0, "charged units"),
        ("260.5", 2, 2, "160.5", 1, "credits"),
    ],
)
def test_a_line_that_contradicts_the_books_is_not_explained(
    quantity: str, cost_minor: int, amount_minor: int, charged: str, credits_minor: int, what: str
) -> None:
    calculation = a_calculation("260.5", credits_applied_minor=credits_minor)
    charge = a_charge(calculation, amount_minor, charged)
    with pytest.raises(FiguresContradict, match=f"^{what} of {charge.typeid} do not add up"):
        explain_usage(
            charge, COMPONENT, [calculation], totals_of(quantity, cost_minor), NO_EVENTS, []
        )


def test_a_contradiction_tells_all_figures() -> None:
    calculation = a_calculation("260.5", total_raw_usage_minor=7)
    charge = a_charge(calculation, 2, "160.5")
    with pytest.raises(FiguresContradict) as raised:
        explain_usage(charge, COMPONENT, [calculation], totals_of("260.5", 2), NO_EVENTS, [])
    assert raised.value.figures == {
        "line": 2,
        "calculation": 7,
        "tiers": 2,
        "events_and_corrections": 2,
    }
    assert "calculation 7" in str(raised.value)


def test_a_line_needs_its_calculation() -> None:
    charge = a_charge(a_calculation("1"), 0, "0")
    with pytest.raises(FiguresContradict, match="calculations"):
        explain_usage(charge, COMPONENT, [a_calculation("1")], totals_of("1", 0), NO_EVENTS, [])


def test_corrections_of_an_event_follow_each_other() -> None:
    calculation = a_calculation("5")
    charge = a_charge(calculation, 0, "0")
    sound = Page((an_event("9", 0, ("9", "7"), ("7", "5")),), None)
    explain_usage(charge, COMPONENT, [calculation], totals_of("5", 0), sound, [])
    broken = Page((an_event("9", 0, ("9", "7"), ("6", "5")),), None)
    with pytest.raises(FiguresContradict, match="corrections"):
        explain_usage(charge, COMPONENT, [calculation], totals_of("5", 0), broken, [])


def changed(
    old: KeptCalculation | None, new_quantity: str, amount_minor: int, **expected: Any
) -> None:
    """Explain a recalculation's line of 260.5 units and what was added."""
    new = a_calculation(
        new_quantity,
        billing_run_id=None,
        recalculation_id=identifiers.new_id(),
        calculation_type=CalculationType.ADJUSTMENT_RECALCULATION,
    )
    calculations = [new]
    old_quantity = Decimal(0)
    if old is not None:
        calculations = [replace(old, superseded_by_id=new.id), new]
        old_quantity = old.total_quantity
    charge = a_charge(
        new, amount_minor, str(new.billable_quantity - (old.billable_quantity if old else 0))
    )
    taken = expected.get("taken_minor", amount_minor)
    entry = ExplainedEntry(
        UUID(int=1), UUID(int=2), -expected.get("adjusted_minor", amount_minor), NOW
    )
    explain_usage_change(
        charge,
        COMPONENT,
        calculations,
        totals_of(expected.get("quantity", str(new.total_quantity - old_quantity)), taken),
        NO_EVENTS,
        entry if amount_minor else None,
    )


def test_a_change_is_the_difference_of_two_calculations() -> None:
    changed(a_calculation("260.5"), "1260.5", 15)  # 2.4075 and 17.4075
    changed(a_calculation("1260.5"), "0", -17)
    changed(None, "1260.5", 17)


@pytest.mark.parametrize(
    ("amount_minor", "wrong", "what"),
    [
        (14, {}, "changes of cost"),
        (15, {"taken_minor": 14}, "changes of cost"),
        (15, {"adjusted_minor": 16}, "changes of cost"),
        (15, {"quantity": "999"}, "changes of quantity"),
    ],
)
def test_a_change_that_contradicts_the_books_is_not_explained(
    amount_minor: int, wrong: dict[str, Any], what: str
) -> None:
    with pytest.raises(FiguresContradict, match=what):
        changed(a_calculation("260.5"), "1260.5", amount_minor, **wrong)


def test_totals_are_those_of_all_usages_where_all_are_there() -> None:
    events = [an_event("9", 4, ("9", "7")), an_event("1", 1)]
    sound = UsageTotals(2, Decimal(10), 5, 1, Decimal(-2), 0)
    require_whole(sound, events)
    for wrong in (
        sound._replace(event_count=1),
        sound._replace(event_quantity=Decimal(11)),
        sound._replace(event_cost_minor=6),
        sound._replace(correction_count=0),
        sound._replace(correction_quantity=Decimal(2)),
        sound._replace(correction_cost_minor=1),
    ):
        with pytest.raises(FiguresContradict):
            require_whole(wrong, events)
