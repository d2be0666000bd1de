"""The reference of the stateful tests, against figures computed by hand, and against itself."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.factories.credit_audit import expected_figures
from tests.factories.credit_histories import (
    Step,
    on_the_hour,
    refusals_of,
    without_late_usage,
)
from tests.factories.credit_history_strategies import CHANGES, histories, plans
from tests.factories.reference_books import Plan
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_subscription import Balance, Expiry, Refused

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
CENTS = Plan(10, 0, (("1", "0"), ("1", "0")))
"""Ten days without a base price; a unit of either component costs one."""


def hour(number: int) -> datetime:
    """So many hours after the subscription's beginning."""
    return BEGAN + timedelta(hours=number)


def subscription(plan: Plan = CENTS, *, is_realtime: bool = False) -> ReferenceSubscription:
    """A new subscription."""
    return ReferenceSubscription(plan, BEGAN, is_realtime)


def use(owner: ReferenceSubscription, at: int, cost: int, component: int = 0) -> None:
    """Use something with a cost, at once."""
    assert owner.use(hour(at), [(component, str(cost), hour(at))]) == [""]


def pay(owner: ReferenceSubscription, at: int, amount: int, *, period: int | None = None) -> int:
    """Pay, and return the payment's number."""
    payment = owner.begin_payment(hour(at), amount, period=period)
    owner.confirm_payment(hour(at), payment.number, "charge")
    return payment.number


def left(owner: ReferenceSubscription) -> list[tuple[int, int, str]]:
    """What is left and held of each credit, and its status."""
    return [(credit.remaining, credit.held, credit.status) for credit in owner.credits]


def test_an_applied_credit_counts_once() -> None:
    owner = subscription()
    pay(owner, 0, 100)
    use(owner, 1, 60)
    assert owner.balance(hour(2)) == Balance(60, 0, 0, 100, 100, net=40)
    owner.run(hour(240))
    assert owner.balance(hour(241)) == Balance(0, 0, 0, 40, 40, net=40)
    assert owner.balance(hour(2)) == Balance(60, 0, 0, 100, 100, net=40)
    assert owner.books.amounts_by_type(hour(241)) == {
        "payment_recognized": 100,
        "usage_cost": -60,
        "credit_applied_to_usage": 60,
    }
    assert owner.books.sides_by_kind(hour(241)) == {
        "cash": (100, 0),
        "credit": (60, 100),
        "receivable": (60, 60),
        "usage_revenue": (0, 60),
    }


def test_included_units_and_halves_telescope() -> None:
    owner = subscription(Plan(10, 0, (("0.5", "0"), ("1.5", "1000"))))
    for component, quantity in [(0, "1")] * 4 + [(1, "999"), (1, "2"), (1, "1"), (1, "0.1")]:
        owner.use(hour(1), [(component, quantity, hour(1))])
    costs = [cost.amount for cost in owner.periods[0].costs]
    assert costs == [1, 0, 1, 0, 0, 2, 1, 0]  # 1 over: 1.5, rounded up; 2: 3; 2.1: 3.15


def test_months_are_counted_from_the_beginning() -> None:
    plan = Plan(0, 0, ())
    anchor = datetime(2026, 1, 31, 10, tzinfo=UTC)
    ends = [plan.boundary(anchor, index) for index in range(1, 13)]
    assert [end.day for end in ends] == [28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31]
    assert (ends[-1].year, ends[-1].month, ends[-1].hour) == (2027, 1, 10)


def test_a_credit_pays_the_usage_of_its_time_alone() -> None:
    owner = subscription()
    owner.grant(hour(0), 100, effective_at=hour(2), expires_at=hour(6))
    for at, cost in [(1, 10), (2, 20), (5, 30)]:
        use(owner, at, cost)
    assert owner.expire(hour(5)) == Expiry(0, 0, 0)
    assert owner.expire(hour(6)) == Expiry(1, 50, 0)
    use(owner, 6, 40)
    assert owner.balance(hour(7)) == Balance(50, 0, 0, 0, 0, net=-50)
    owner.run(hour(240))
    assert owner.periods[0].invoice == {
        "recurring": 0,
        "deficit": 0,
        "credits": -50,
        "usage 0": 100,
        "usage 1": 0,
    }


def test_credits_are_consumed_in_order() -> None:
    owner = subscription(Plan(10, 70, CENTS.prices))
    pay(owner, 0, 100)
    owner.grant(hour(0), 10, priority=1)
    owner.grant(hour(0), 10, expires_at=hour(500))
    owner.grant(hour(0), 10)
    owner.grant(hour(0), 10, component=1)
    owner.grant(hour(0), 10, period=0, covers_charges=True, priority=5)
    use(owner, 1, 25, component=0)
    use(owner, 1, 20, component=1)
    owner.run(hour(240))
    # The period's 10 and the component's 10; then 10 that expire and 10 that do not, in all 40 of
    # 45; the paid credit pays the last 5 and the base price, and the later priority nothing.
    assert left(owner) == [
        (25, 0, "partially_used"),
        (10, 0, "available"),
        (0, 0, "fully_used"),
        (0, 0, "fully_used"),
        (0, 0, "fully_used"),
        (0, 0, "fully_used"),
    ]


def test_what_expires_after_the_period_waits_for_its_run() -> None:
    owner = subscription()
    owner.grant(hour(0), 30, expires_at=hour(240))
    owner.grant(hour(0), 50, expires_at=hour(241), priority=1)
    use(owner, 239, 40)
    assert owner.expire(hour(242)) == Expiry(0, 0, 2)
    owner.run(hour(242))
    assert left(owner) == [(0, 0, "fully_used"), (40, 0, "partially_used")]
    assert owner.expire(hour(242)) == Expiry(1, 40, 0)


def test_pay_as_you_go_pays_at_once() -> None:
    owner = subscription(is_realtime=True)
    owner.grant(hour(1), 30)
    owner.use(hour(2), [(0, "10", hour(0)), (0, "25", hour(2)), (1, "25", hour(1))])
    assert owner.balance(hour(2)) == Balance(30, 0, 0, 0, 0, net=-30)
    assert {(each.component, each.amount) for each in owner.applications} == {(0, 25), (1, 5)}


@pytest.mark.parametrize(
    ("policy", "clawed_back", "reversed_", "deficit", "absorbed", "owed"),
    [
        ("keep", 0, 0, 0, 80, 0),
        ("revert_unused", 15, 0, 0, 65, 0),
        ("revert_all", 15, 60, 5, 0, 65),
    ],
)
def test_what_a_refund_takes_back(
    policy: str, clawed_back: int, reversed_: int, deficit: int, absorbed: int, owed: int
) -> None:
    owner = subscription()
    use(owner, 1, 60)
    payment = pay(owner, 2, 100, period=0)  # settles 60
    owner.adjust(hour(3), 0, -25)
    refund = owner.begin_refund(hour(4), payment, 80, policy)
    assert left(owner)[0][:2] == (15 - clawed_back, clawed_back)
    assert owner.balance(hour(4)).outstanding == 0
    parts = (refund.clawed_back, refund.reversed, refund.deficit, refund.absorbed)
    assert parts == (clawed_back, reversed_, deficit, absorbed)
    owner.confirm_refund(hour(5), refund.number, "return")
    balance = owner.balance(hour(5))
    assert (balance.outstanding, balance.credit_balance) == (owed, 15 - clawed_back)
    assert owner.settled(owner.payments[0]) == 60 - reversed_
    with pytest.raises(Refused, match="REFUND_EXCEEDS_PAYMENT"):
        owner.begin_refund(hour(6), payment, 21, policy)
    owner.run(hour(240))
    assert owner.periods[0].invoice["deficit"] == deficit


def test_a_failed_refund_leaves_no_trace() -> None:
    owner = subscription()
    payment = pay(owner, 0, 100)
    before = owner.balance(hour(1))
    refund = owner.begin_refund(hour(2), payment, 100, "revert_all")
    held = owner.balance(hour(3))
    assert (held.credit_balance, held.available_credit) == (100, 0)
    owner.fail_refund(hour(4), refund.number)
    assert owner.balance(hour(5)) == before
    assert owner.refunded(owner.payments[0]) == 0


def test_a_void_takes_what_a_refund_holds() -> None:
    owner = subscription()
    payment = pay(owner, 0, 100)
    refund = owner.begin_refund(hour(1), payment, 40, "revert_unused")
    owner.void(hour(2), 0)
    assert left(owner) == [(0, 0, "voided")]
    assert (refund.clawed_back, refund.absorbed) == (0, 40)
    owner.confirm_refund(hour(3), refund.number, "return")
    assert owner.books.amounts_by_type(hour(3)) == {
        "payment_recognized": 100,
        "credit_balance_adjusted": -100,
        "payment_refunded": -40,
        "refund_absorbed": 40,
    }


def test_a_deficit_is_on_the_next_invoice() -> None:
    owner = subscription()
    owner.grant(hour(0), 50)
    use(owner, 1, 30)
    owner.run(hour(240))
    with pytest.raises(Refused, match="CREDIT_BALANCE_INSUFFICIENT"):
        owner.adjust(hour(241), 0, -50)
    owner.adjust(hour(241), 0, -50, allow_deficit=True)
    assert owner.balance(hour(241)) == Balance(30, 0, 0, 0, 0, net=-30)
    pay(owner, 242, 20, period=1)
    owner.run(hour(480))
    assert (owner.periods[1].invoice["deficit"], owner.periods[1].invoice["credits"]) == (30, 0)
    assert owner.balance(hour(480)) == Balance(0, 0, 10, 0, 0, net=-10)


def test_a_cancelled_subscription_owes_its_deficits_in_its_last_period() -> None:
    owner = subscription(Plan(10, 70, CENTS.prices))
    payment = pay(owner, 0, 100)
    owner.cancel(hour(24), is_immediate=True)
    assert owner.is_cancelled
    refund = owner.begin_refund(hour(25), payment, 100, "revert_all")
    assert (refund.clawed_back, refund.deficit) == (30, 70)
    owner.confirm_refund(hour(26), refund.number, "return")
    assert owner.balance(hour(26)) == Balance(0, 0, 70, 0, 0, net=-70)
    with pytest.raises(Refused, match="SUBSCRIPTION_ALREADY_CANCELLED"):
        owner.grant(hour(27), 1)


def test_a_refusal_changes_nothing() -> None:
    owner = subscription()
    owner.grant(hour(0), 50, expires_at=hour(2))
    use(owner, 1, 20)
    before = copy.deepcopy(owner)
    with pytest.raises(Refused) as refused:
        owner.void(hour(3), 0)
    assert "CREDIT_ALREADY_EXPIRED" in refused.value.reasons
    assert owner == before


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    plans(),
    st.booleans(),
    histories(CHANGES, longest=14),
    st.lists(st.lists(st.integers(1, 99), max_size=2), min_size=2, max_size=8),
    st.booleans(),
)
def test_it_does_not_matter_when_the_reference_expires_and_bills(
    plan: Plan,
    is_realtime: bool,
    steps: Sequence[Step],
    extra: Sequence[Sequence[int]],
    is_billed_early: bool,
) -> None:
    """A credit that a run makes begins with that run, so there the time of the run matters."""
    late = ReferenceSubscription(plan, BEGAN, is_realtime)
    early = copy.deepcopy(late)
    now = BEGAN + timedelta(days=2)
    for number, step in enumerate(steps):
        before, now = now, on_the_hour(now, step.hours) if step.hours else now + timedelta(hours=1)
        for part in sorted(extra[number % len(extra)]):
            moment = before + (now - before) * part / 100
            while is_billed_early and early.is_due(moment):
                early.run(early.open_periods[0].end)
            early.expire(moment)
        late.run(now)
        while is_billed_early and early.is_due(now):
            early.run(early.open_periods[0].end)
        early.run(now)
        for each in step.requests(late, now):
            asked = without_late_usage(each, late, now)
            refusals = refusals_of(asked, late, now)
            assert refusals_of(asked, early, now) == refusals
            if refusals:
                break
    end = now + timedelta(days=70)
    for owner in (late, early):
        owner.run(end)
        owner.expire(end)
    assume(not is_billed_early or "surplus_credited" not in late.books.amounts_by_type(end))
    assert expected_figures(late, end) == expected_figures(early, end)
