"""What counts and what waits of one aggregate: all in all it is the charge of the quantity."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.errors import AmountOutOfRange
from billing.domain.identifiers import new_id
from billing.domain.money import MAX_AMOUNT_MINOR
from billing.domain.rating import charge_minor
from billing.domain.usage import UsageTally
from tests.factories.domain import a_component, decimals

PRICES = st.sampled_from(["0", "0.000000000001", "0.015", "0.5", "1", "2.5", "1000"])


def a_tally(*, unit_price: str = "2", included: str = "0") -> UsageTally:
    """An aggregate of nothing."""
    return UsageTally(new_id(), new_id(), a_component(unit_price=unit_price, included=included))


def figures_of(tally: UsageTally) -> tuple[Decimal | int, ...]:
    """What counts, and what waits: quantity, amount and events."""
    return (
        tally.quantity,
        tally.rated_minor,
        tally.event_count,
        tally.pending_quantity,
        tally.pending_minor,
        tally.pending_event_count,
    )


def test_a_correction_is_no_event() -> None:
    tally = a_tally()
    tally.add(Decimal(10))
    assert [tally.correct(Decimal(change)) for change in ("5", "-15", "0.2")] == [10, -30, 0]
    assert figures_of(tally) == (Decimal("0.2"), 0, 1, 0, 0, 0)
    assert not tally.has_pending


def test_what_is_held_leaves_what_counts() -> None:
    tally = a_tally(unit_price="1", included="12")
    tally.add(Decimal(10))
    assert [tally.hold(Decimal(q)) for q in ("1", "3")] == [0, 2]
    assert tally.hold_correction(Decimal(-3)) == -2
    assert figures_of(tally) == (10, 0, 1, 1, 0, 2)
    assert tally.has_pending


def test_what_waits_is_taken_in_at_once() -> None:
    tally = a_tally()
    tally.add(Decimal(10))
    tally.hold(Decimal(3))
    tally.hold_correction(Decimal(-6))
    assert tally.take_in() == -6
    assert figures_of(tally) == (7, 14, 2, 0, 0, 0)
    assert not tally.has_pending
    assert tally.take_in() == 0
    assert figures_of(tally) == (7, 14, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("quantity", "correction"), [("0", None), ("5", "-5"), ("0", "3")], ids=str
)
def test_something_waits_even_if_it_comes_to_nothing(quantity: str, correction: str | None) -> None:
    """A recalculation has an event to take in."""
    tally = a_tally()
    tally.hold(Decimal(quantity))
    if correction is not None:
        tally.hold_correction(Decimal(correction))
    assert tally.has_pending


@pytest.mark.parametrize("method", ["add", "correct", "hold", "hold_correction"])
def test_more_than_can_be_billed_counts_nothing(method: str) -> None:
    tally = a_tally()
    tally.add(Decimal(10))
    tally.hold(Decimal(4))
    before = figures_of(tally)
    with pytest.raises(AmountOutOfRange):
        getattr(tally, method)(Decimal(MAX_AMOUNT_MINOR))
    assert figures_of(tally) == before


_ACTIONS = st.sampled_from(["correct", "hold", "hold_correction", "take_in"])


@given(
    unit_price=PRICES,
    included=st.sampled_from(["0", "0.7", "1000"]),
    added=st.lists(decimals(whole_digits=4), max_size=4),
    steps=st.lists(st.tuples(_ACTIONS, decimals(whole_digits=4)), max_size=12),
)
def test_costs_telescope_whatever_comes_in_which_order(
    unit_price: str, included: str, added: list[Decimal], steps: list[tuple[str, Decimal]]
) -> None:
    """Corrections take back up to what there is; what waits costs what it adds to what counts."""
    tally = a_tally(unit_price=unit_price, included=included)
    paid = sum(tally.add(quantity) for quantity in added)
    counted, waiting, held = sum(added, Decimal(0)), Decimal(0), 0
    for action, quantity in steps:
        change = max(-counted - waiting, quantity - 5000)
        match action:
            case "hold":
                held += tally.hold(quantity)
                waiting += quantity
            case "hold_correction":
                held += tally.hold_correction(change)
                waiting += change
            case "correct" if not tally.has_pending:  # of an open period: there nothing waits
                paid += tally.correct(change)
                counted += change
            case _:
                assert tally.take_in() == held
                counted, waiting = counted + waiting, Decimal(0)
                paid, held = paid + held, 0
        assert (tally.quantity, tally.pending_quantity) == (counted, waiting)
        assert (tally.rated_minor, tally.pending_minor) == (paid, held)
        assert paid == charge_minor(tally.component, counted)
        assert paid + held == charge_minor(tally.component, counted + waiting)
