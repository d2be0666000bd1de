"""Rating as usage arrives telescopes: the sum of costs is the charge of the total."""

from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.errors import AmountOutOfRange
from billing.domain.identifiers import new_id
from billing.domain.money import MAX_AMOUNT_MINOR
from billing.domain.rating import billable_units, charge_minor
from billing.domain.usage import UsageTally
from tests.factories.domain import a_component, decimals

QUANTITIES = st.lists(decimals(whole_digits=6), max_size=30)
PRICES = decimals(whole_digits=4)


def a_tally(unit_price: str, included: str = "0") -> UsageTally:
    component = a_component(unit_price=unit_price, included=included)
    return UsageTally(new_id(), new_id(), component)


def exact_charge(quantity: Fraction, *, unit_price: Decimal, included: Decimal) -> int:
    """The same by other means: fractions, and half-up as floor(x + 1/2)."""
    billable = max(Fraction(0), quantity - Fraction(included))
    return int((billable * Fraction(unit_price) + Fraction(1, 2)) // 1)


@pytest.mark.parametrize(
    ("quantity", "billable"),
    [("0", "0"), ("999.999", "0"), ("1000", "0"), ("1000.001", "0.001"), ("2500", "1500")],
)
def test_included_units_cost_nothing(quantity: str, billable: str) -> None:
    assert billable_units(a_component(included="1000"), Decimal(quantity)) == Decimal(billable)


@pytest.mark.parametrize(
    ("unit_price", "included", "quantity", "amount_minor"),
    [
        ("0.015", "0", "10000", 150),
        ("0.015", "0", "33", 0),
        ("0.015", "0", "34", 1),
        ("0.015", "1000", "2500", 23),
        ("2", "0", "0.25", 1),
        ("0", "0", "1000000", 0),
        ("0.000000000001", "0", "500000000000", 1),
    ],
)
def test_a_period_is_charged_half_up(
    unit_price: str, included: str, quantity: str, amount_minor: int
) -> None:
    component = a_component(unit_price=unit_price, included=included)
    assert charge_minor(component, Decimal(quantity)) == amount_minor


@given(QUANTITIES, PRICES, decimals(whole_digits=5), st.randoms(use_true_random=False))
def test_costs_add_up_to_the_charge_of_the_total_in_any_order(
    quantities: list[Decimal], unit_price: Decimal, included: Decimal, random: Random
) -> None:
    total = sum(map(Fraction, quantities), Fraction(0))
    expected = exact_charge(total, unit_price=unit_price, included=included)
    mixed = random.sample(quantities, len(quantities))
    for order in (quantities, mixed, sorted(quantities), sorted(quantities, reverse=True)):
        tally = a_tally(str(unit_price), str(included))
        costs = [tally.add(quantity) for quantity in order]
        assert all(cost >= 0 for cost in costs)
        assert sum(costs) == tally.rated_minor == expected
        assert Fraction(tally.quantity) == total
        assert tally.event_count == len(order)
        assert charge_minor(tally.component, tally.quantity) == expected


@given(decimals(whole_digits=6), st.integers(1, 40), PRICES, decimals(whole_digits=5))
def test_a_quantity_costs_the_same_however_it_is_split(
    piece: Decimal, pieces: int, unit_price: Decimal, included: Decimal
) -> None:
    whole, split = (a_tally(str(unit_price), str(included)) for _ in range(2))
    assert sum(split.add(piece) for _ in range(pieces)) == whole.add(piece * pieces)


def test_ten_thousand_sub_cent_events_lose_nothing() -> None:
    tally = a_tally("0.015")
    costs = [tally.add(Decimal(1)) for _ in range(10_000)]
    assert sum(costs) == 150
    assert set(costs) == {0, 1}


def test_an_event_that_the_ledger_cannot_hold_leaves_the_tally_as_it_was() -> None:
    tally = a_tally("1")
    assert tally.add(Decimal(MAX_AMOUNT_MINOR - 1)) == MAX_AMOUNT_MINOR - 1
    before = (tally.quantity, tally.rated_minor, tally.event_count)
    with pytest.raises(AmountOutOfRange):
        tally.add(Decimal(2))
    assert (tally.quantity, tally.rated_minor, tally.event_count) == before
    assert tally.add(Decimal(1)) == 1
