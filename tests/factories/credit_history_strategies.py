"""Random steps of histories with credits; weighted, so that what they do meets something."""

import os
from dataclasses import replace
from functools import partial

from hypothesis import strategies as st

from tests.factories.correction_histories import (
    Correct,
    EstimatePeriod,
    GiveUp,
    Recalculate,
    Recover,
)
from tests.factories.credit_histories import (
    Adjust,
    Cancel,
    EndPayment,
    EndRefund,
    Expire,
    Grant,
    Pay,
    PayBack,
    RunAll,
    RunOne,
    Step,
    Use,
    Void,
)
from tests.factories.reference_books import Plan

PRICES = (("0.7", "5"), ("12.5", "0"))
BASE = 60
SUBSCRIPTIONS = 2


COUNT_VARIABLE = "BILLING_TEST_HISTORIES"
"""How many histories a test tells, other ones at every run; by default a few, always the same."""


def is_soak() -> bool:
    """Whether the number of histories is told."""
    return COUNT_VARIABLE in os.environ


def histories_count(default: int) -> int:
    """How many histories to tell."""
    return int(os.environ.get(COUNT_VARIABLE, default))


HOURS = st.sampled_from([0, 0, 1, 1, 2, 3, 4, 6, 9, 14, 24, 40, 80, 80])
PICKS = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4])
AMOUNTS = st.sampled_from([1, 7, 20, 33, 50, 75, 100, 150, 240, 400])
WHO = {"hours": HOURS, "subscription": st.sampled_from(range(SUBSCRIPTIONS))}
ENDS = st.sampled_from(["confirm", "confirm", "confirm", "fail", "fail", "otherwise"])

USES = st.builds(
    Use,
    **WHO,
    events=st.lists(
        st.tuples(
            st.sampled_from([0, 1, 1]),
            st.sampled_from([1, 50, 99, 160, 240, 333, 400, 571, 800, 1200, 2000, 9000]),
            st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 5, 8, 13, 30, 70, 130, -1, -2]),
        ),
        min_size=1,
        max_size=4,
    ),
)
GRANTS = st.builds(
    Grant,
    **WHO,
    amount=AMOUNTS,
    begins_in=st.sampled_from([None, None, None, None, 0, 1, 3, 10, -1, -2, -5, -12, -40]),
    lasts=st.sampled_from([None, None, 0, 0, 2, 3, 4, 6, 9, 14, 20, 30, 60, 100]),
    priority=st.sampled_from([0, 0, -1, 1]),
    covers_charges=st.sampled_from([False, False, True]),
    scope=st.sampled_from(["", "", "", "", "component 0", "component 1", "open", "open", "billed"]),
)
PAYMENTS = st.builds(
    Pay,
    **WHO,
    amount=AMOUNTS,
    settles=st.sampled_from(["", "open", "open", "open", "billed", "billed"]),
    is_confirmed=st.sampled_from([True, True, True, True, False]),
)
REFUNDS = st.builds(
    PayBack,
    **WHO,
    pick=PICKS,
    percent=st.sampled_from([100, 100, 60, 40, 20]),
    policy=st.sampled_from(["revert_unused", "revert_all", "revert_all", "keep"]),
    how=st.sampled_from(["", "", "", "confirm", "fail"]),
)
ADJUSTMENTS = st.builds(
    Adjust,
    **WHO,
    pick=PICKS,
    amount=st.sampled_from([-300, -90, -30, -10, -1, 10, 60]),
    allow_deficit=st.booleans(),
)
CORRECTIONS = st.builds(
    Correct,
    **WHO,
    pick=st.sampled_from(range(8)),
    hundredths=st.sampled_from([None, None, 0, 1, 120, 240, 600, 1500, 1500, 5000, 12000]),
    where=st.sampled_from(["open", "open", "billed", "billed", "billed"]),
    is_recalculated=st.booleans(),
)
ESTIMATES = st.builds(EstimatePeriod, **WHO, where=st.sampled_from(["open"] * 5 + ["billed"]))
RECALCULATIONS = st.builds(
    Recalculate,
    **WHO,
    pick=st.sampled_from([0, 0, 0, 1, 1, 2]),
    is_delivered=st.sampled_from([True, True, True, False]),
)
PERCENTS = st.sampled_from([0, 0, 30, 60, 100, 110])
GIVE_UPS = st.builds(GiveUp, **WHO, pick=PICKS, percent=PERCENTS)
RECOVERIES = st.builds(Recover, **WHO, pick=PICKS, percent=PERCENTS)
STEPS_BY_WEIGHT = (
    (USES, 20),
    (GRANTS, 14),
    (PAYMENTS, 12),
    (REFUNDS, 11),
    (st.builds(EndRefund, **WHO, pick=PICKS, how=ENDS), 7),
    (st.builds(EndPayment, **WHO, pick=PICKS, how=ENDS), 3),
    (ADJUSTMENTS, 6),
    (st.builds(Void, **WHO, pick=PICKS), 3),
    (st.builds(Expire, **WHO), 6),
    (st.builds(RunAll, **WHO, is_delivered=st.sampled_from([True, True, True, False])), 12),
    (st.builds(RunOne, **WHO), 2),
    (CORRECTIONS, 18),
    (ESTIMATES, 6),
    (RECALCULATIONS, 8),
    (GIVE_UPS, 5),
    (RECOVERIES, 3),
    (st.builds(Cancel, **WHO, is_immediate=st.sampled_from([False, True])), 1),
)
JOBS = (Expire, RunAll, RunOne)


def weighted(*choices: tuple[st.SearchStrategy[Step], int]) -> st.SearchStrategy[Step]:
    """Steps of some kinds, each as often as its weight says: ``one_of`` would not repeat any."""
    strategies = [strategy for strategy, weight in choices for _ in range(weight)]
    return st.integers(0, len(strategies) - 1).flatmap(lambda number: strategies[number])


STEPS = weighted(*STEPS_BY_WEIGHT)
AFTERWARDS = weighted(
    (USES, 5),
    (GRANTS, 5),
    (PAYMENTS, 8),
    (REFUNDS, 3),
    (st.builds(EndRefund, **WHO, pick=PICKS, how=ENDS), 2),
    (st.builds(Void, **WHO, pick=PICKS), 4),
    (st.builds(Expire, **WHO), 2),
    (CORRECTIONS, 22),
    (ESTIMATES, 4),
    (RECALCULATIONS, 12),
    (GIVE_UPS, 6),
    (RECOVERIES, 3),
    (st.builds(RunAll, **WHO, is_delivered=st.just(True)), 5),
)
"""What happens once a period is billed; sooner or later it is calculated anew."""

CHANGES = STEPS.filter(lambda step: not isinstance(step, JOBS))


def _of_opening(number: int, step: Step) -> Step:
    return replace(step, subscription=number, hours=1)


def histories(steps: st.SearchStrategy[Step], *, longest: int) -> st.SearchStrategy[list[Step]]:
    """Steps of which the first ones give each subscription something to spend and to spend it on.

    Most of what may follow would else find nothing to work with.
    """
    following = st.lists(steps, min_size=longest // 2, max_size=longest)
    return st.tuples(_openings(), following).map(lambda parts: [*parts[0], *parts[1]])


def billed_histories(*, longest: int) -> st.SearchStrategy[list[Step]]:
    """Steps of which the first ones give each subscription a billed period to put right."""
    billing = st.builds(
        RunAll,
        hours=st.sampled_from([80, 80, 130]),
        subscription=st.just(0),
        is_delivered=st.just(True),
    )
    following = st.lists(AFTERWARDS, min_size=longest // 2, max_size=longest)
    return st.tuples(_openings(), billing, following).map(
        lambda parts: [*parts[0], parts[1], *parts[2]]
    )


def _openings() -> st.SearchStrategy[tuple[Step, ...]]:
    return st.tuples(
        *[
            opening.map(partial(_of_opening, number))
            for number in range(SUBSCRIPTIONS)
            for opening in (USES, GRANTS, PAYMENTS)
        ]
    )


def plans() -> st.SearchStrategy[Plan]:
    """Plans of two components with billing periods of some days, or of a month.

    Some have no base price, and half of them hold late usage.
    """
    return st.builds(
        Plan,
        interval_days=st.sampled_from([3, 2, 7, 0]),
        base=st.sampled_from([BASE, BASE, 0]),
        prices=st.just(PRICES),
        holds_late_usage=st.booleans(),
    )
