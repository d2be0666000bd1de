"""Usage below zero in a segment: a correction took units away that others were rated for."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.credit_consumption import Coverage, Segment, segments_of
from billing.domain.credits import CreditApplicationKind
from tests.factories.domain import a_component
from tests.factories.domain_credits import a_period, day

CALLS, TOKENS = a_component(name="calls"), a_component(name="tokens")
PERIOD = a_period()
CUTS = [day(6), day(11), day(16)]


def uncovered(segments: list[Segment], component_id: UUID = CALLS.id) -> list[int]:
    """What nothing pays, by segment."""
    return [segment.uncovered.get(component_id, 0) for segment in segments]


def after_set_off(*amounts: int) -> list[int]:
    usage = {(CALLS.id, number): amount for number, amount in enumerate(amounts)}
    return uncovered(segments_of(PERIOD, CUTS[: len(amounts) - 1], usage))


@pytest.mark.parametrize(
    ("amounts", "left"),
    [
        ((-10, 30, 5), [0, 20, 5]),
        ((-10, 4, 30), [0, 0, 24]),
        ((7, -10, 30), [7, 0, 20]),
        ((7, -10, 4), [1, 0, 0]),
        ((3, 4, -3), [3, 1, 0]),
        ((3, 4, -6), [1, 0, 0]),
        ((-5, 20, -5), [0, 10, 0]),
        ((20, -5, -5, 1), [11, 0, 0, 0]),
        ((0, -5, 5), [0, 0, 0]),
    ],
    ids=str,
)
def test_it_is_set_off_against_what_follows_then_what_came_before(
    amounts: tuple[int, ...], left: list[int]
) -> None:
    assert after_set_off(*amounts) == left


def test_another_components_usage_is_not_concerned() -> None:
    usage = {(CALLS.id, 0): -10, (CALLS.id, 1): 30, (TOKENS.id, 0): 8, (TOKENS.id, 1): 9}
    segments = segments_of(PERIOD, CUTS[:1], usage)
    assert uncovered(segments) == [0, 20]
    assert uncovered(segments, TOKENS.id) == [8, 9]


def test_what_was_paid_is_laid_over_what_is_left() -> None:
    usage = {(CALLS.id, 0): -10, (CALLS.id, 1): 30}
    prior = [Coverage(CreditApplicationKind.RUN, CALLS.id, PERIOD.period_start, CUTS[0], 5)]
    assert uncovered(segments_of(PERIOD, CUTS[:1], usage, prior)) == [0, 15]


@given(st.lists(st.integers(-50, 100), min_size=1, max_size=4).filter(lambda a: sum(a) >= 0))
def test_nothing_is_below_zero_and_the_sum_stays(amounts: list[int]) -> None:
    left = after_set_off(*amounts)
    assert sum(left) == sum(amounts)
    assert min(left) >= 0
    assert all(after <= max(0, before) for before, after in zip(amounts, left, strict=True))
