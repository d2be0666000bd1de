"""What the reference says of corrections, recalculations and the like, against figures by hand."""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.factories.reference_books import Plan
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_periods import Changes, Document, Forecast
from tests.factories.reference_subscription import Balance, Expiry, Refused

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
HELD = Plan(10, 0, (("1", "0"), ("1", "0")), holds_late_usage=True)
"""Ten days without a base price; a unit of either component costs one; late usage is held."""


def hour(number: int) -> datetime:
    """So many hours after the subscription's beginning; 240 is the end of its first period."""
    return BEGAN + timedelta(hours=number)


def subscription(plan: Plan = HELD, *, is_realtime: bool = False) -> ReferenceSubscription:
    """A new subscription."""
    return ReferenceSubscription(plan, BEGAN, is_realtime)


def use(
    owner: ReferenceSubscription, at: int, cost: int, component: int = 0, *, told_at: int = 0
) -> int:
    """Use something with a cost, and return the event's number; it may be told later."""
    assert owner.use(hour(told_at or at), [(component, str(cost), hour(at))]) == [""]
    return len(owner.events) - 1


def settle(owner: ReferenceSubscription, at: int, amount: int, period: int = 0) -> int:
    """Pay a period, and return the payment's number."""
    payment = owner.begin_payment(hour(at), amount, period=period)
    owner.confirm_payment(hour(at), payment.number, "charge")
    return payment.number


def left(owner: ReferenceSubscription) -> list[tuple[int, int, str]]:
    """What is left and held of each credit, and its status."""
    return [(credit.remaining, credit.held, credit.status) for credit in owner.credits]


def owed(owner: ReferenceSubscription, at: int, period: int = 0) -> int:
    """What a period owes."""
    return owner.books.receivable(period, hour(at))


# Corrections


def test_an_amendment_in_an_open_period_counts_at_once() -> None:
    owner = subscription()
    event = use(owner, 1, 60)
    owner.amend(hour(2), event, "25")
    assert owner.balance(hour(2)) == Balance(25, 0, 0, 0, 0, net=-25)
    owner.amend(hour(3), event, "80")
    owner.void_event(hour(4), event)
    assert owner.balance(hour(4)) == Balance(0, 0, 0, 0, 0, net=0)
    assert owner.books.amounts_by_type(hour(4)) == {
        "usage_cost": -60,
        "usage_cost_corrected": 35 - 55 + 80,
    }
    with pytest.raises(Refused, match="USAGE_EVENT_ALREADY_VOIDED"):
        owner.amend(hour(5), event, "1")
    unchanged = use(owner, 6, 7)
    with pytest.raises(Refused, match="USAGE_EVENT_UNCHANGED"):
        owner.amend(hour(6), unchanged, "7.0")


def test_included_units_of_a_voided_event_are_for_the_others() -> None:
    owner = subscription(Plan(10, 0, (("2", "10"),)))
    included = use(owner, 1, 10)
    use(owner, 50, 10)
    assert [cost.amount for cost in owner.periods[0].costs] == [0, 20]
    # 10 units are left, all of them included: the void of free units takes 20 off.
    owner.grant(hour(51), 5, effective_at=hour(40))
    owner.void_event(hour(60), included)
    assert owner.periods[0].costs[-1].amount == -20
    # In the segments before and from hour 40 on: -20 and 20, set off against each other.
    owner.run(hour(240))
    assert owner.periods[0].invoice == {"recurring": 0, "deficit": 0, "credits": 0, "usage 0": 0}


def test_what_pays_too_much_is_released_the_latest_first() -> None:
    owner = subscription(is_realtime=True)
    owner.grant(hour(0), 30, priority=0)
    owner.grant(hour(0), 30, priority=1)
    event = use(owner, 1, 50)
    assert left(owner) == [(0, 0, "fully_used"), (10, 0, "partially_used")]
    owner.amend(hour(2), event, "35")
    assert left(owner) == [(0, 0, "fully_used"), (25, 0, "partially_used")]
    owner.amend(hour(3), event, "5")
    assert left(owner) == [(25, 0, "partially_used"), (30, 0, "available")]
    # A raise is paid at once, in the usual order.
    owner.amend(hour(4), event, "40")
    assert left(owner) == [(0, 0, "fully_used"), (20, 0, "partially_used")]
    assert owed(owner, 4) == 0


def test_what_pays_elsewhere_as_well_leaves_room_for_what_does_not() -> None:
    owner = subscription(is_realtime=True)
    owner.grant(hour(0), 100)
    ahead = hour(4) + timedelta(minutes=54)
    assert owner.use(hour(4), [(0, "10", ahead)]) == [""]
    owner.grant(hour(4), 10, effective_at=hour(2), expires_at=ahead - timedelta(minutes=30))
    assert owner.use(hour(4), [(0, "10", hour(3))]) == [""]
    other = use(owner, 6, 5, component=1)
    owner.amend(hour(7), other, "4")
    # The first 10 are of hour 4:54, though they were paid from hour 0 on: nothing is too much.
    assert [credit.remaining for credit in owner.credits] == [86, 0]
    assert owed(owner, 7) == 0


def test_what_an_expired_credit_gets_back_pays_the_usage_of_its_time() -> None:
    owner = subscription()
    owner.grant(hour(0), 30, expires_at=hour(10))
    first = use(owner, 1, 20)
    use(owner, 2, 15, component=1)
    assert owner.expire(hour(11)) == Expiry(0, 0, 0)  # 20 and 10 of 15: nothing is left
    owner.amend(hour(12), first, "12")
    # 8 come back: 5 pay the rest of the other component, and 3 are swept.
    assert owner.periods[0].number == 0
    assert owed(owner, 12) == 0
    assert left(owner) == [(0, 0, "expired")]
    assert owner.books.amounts_by_type(hour(12)) == {
        "credit_grant_recognized": 30,
        "usage_cost": -35,
        "usage_cost_corrected": 8,
        "credit_applied_to_usage": 35,
        "credit_application_reversed": -8,
        "credit_grant_expired": -3,
    }


def test_a_settlement_of_an_open_period_stays_and_the_run_makes_the_rest_a_credit() -> None:
    owner = subscription()
    event = use(owner, 1, 100)
    settle(owner, 2, 100)
    owner.amend(hour(3), event, "40")
    assert owner.balance(hour(3)) == Balance(-60, 0, 0, 0, 0, net=60)
    use(owner, 4, 15)
    owner.grant(hour(5), 50)
    owner.run(hour(240))
    # 55 are used and 100 were paid: 45 too much, and the promotion pays nothing.
    assert left(owner) == [(0, 0, "fully_used"), (50, 0, "available"), (45, 0, "available")]
    assert owner.periods[0].invoice["usage 0"] == 55
    assert owner.balance(hour(241)).outstanding == 0


def test_what_was_paid_too_much_pays_new_usage_before_credits_do() -> None:
    owner = subscription(is_realtime=True)
    event = use(owner, 1, 100)
    settle(owner, 2, 100)
    owner.amend(hour(3), event, "40")
    owner.grant(hour(4), 50, expires_at=hour(100))
    use(owner, 5, 70)
    # 60 of the payment are left for it, so the promotion pays 10.
    assert left(owner) == [(0, 0, "fully_used"), (40, 0, "partially_used")]
    assert owed(owner, 5) == 0


# Held usage and recalculations


def test_held_usage_waits_and_is_billed_additionally() -> None:
    owner = subscription()
    use(owner, 1, 60)
    owner.run(hour(240))
    late = use(owner, 2, 25, told_at=250)
    assert owner.periods[1].costs == []
    assert owed(owner, 250) == 60
    owner.amend(hour(251), late, "30")
    assert sum(cost.amount for cost, _ in owner.periods[0].pending) == 30
    assert owner.recalculate(hour(252), 0) == Changes(30, 0, 0, 0, 0, (Document("invoice", 30),))
    assert owner.balance(hour(252)) == Balance(0, 0, 90, 0, 0, net=-90)
    assert owner.books.amounts_by_type(hour(252)) == {"usage_cost": -60, "billing_adjustment": -30}
    assert owner.recalculate(hour(253), 0) is None
    owner.void_event(hour(254), late)
    # Nobody has paid the additional invoice, and it is taken back whole.
    assert owner.recalculate(hour(255), 0) == Changes(-30, 0, 0, 0, 0, (Document("void", -30),))
    statuses = [(each.kind, each.status) for each in owner.periods[0].calculations[::2]]
    assert statuses == [
        ("billing_run", "superseded"),
        ("adjustment_recalculation", "superseded"),
        ("adjustment_recalculation", "active"),
    ]


def test_without_holding_late_usage_is_of_the_open_period() -> None:
    owner = subscription(replace(HELD, holds_late_usage=False))
    use(owner, 1, 60)
    owner.run(hour(240))
    use(owner, 2, 25, told_at=250)
    assert owner.periods[0].pending == []
    assert owner.recalculate(hour(251), 0) is None
    assert owed(owner, 251, period=1) == 25


def test_credits_pay_a_recalculation_as_they_would_have() -> None:
    owner = subscription()
    owner.grant(hour(0), 100, expires_at=hour(10))
    owner.grant(hour(0), 40, period=0)
    use(owner, 1, 70)
    use(owner, 20, 30, component=1)
    # The period's own 40 go first, then 30 of 100, before hour 10: 70 of these expire.
    owner.run(hour(240))
    assert left(owner) == [(0, 0, "expired"), (0, 0, "fully_used")]
    assert owed(owner, 240) == 30
    owner.void_event(hour(250), 0)
    # The 40 of the period alone now pay the 30 of hour 20, and 10 stay; the 30 are swept.
    assert owner.recalculate(hour(251), 0) == Changes(
        -70, -40, 0, 0, 0, (Document("credit_note", -30),)
    )
    assert left(owner) == [(0, 0, "expired"), (10, 0, "partially_used")]
    assert owed(owner, 251) == 0
    assert owner.books.amounts_by_type(hour(251))["credit_grant_expired"] == -70 - 30


def test_what_comes_back_to_a_voided_credit_is_swept() -> None:
    owner = subscription()
    owner.grant(hour(0), 50)
    event = use(owner, 1, 45)
    owner.run(hour(240))
    owner.void(hour(241), 0)
    owner.amend(hour(242), event, "20")
    assert owner.recalculate(hour(243), 0) == Changes(-25, -25, 0, 0, 0, ())
    assert left(owner) == [(0, 0, "voided")]
    assert owner.books.amounts_by_type(hour(243))["credit_balance_adjusted"] == -5 - 25


def test_a_credit_granted_into_a_billed_period_pays_it_at_the_recalculation() -> None:
    owner = subscription()
    use(owner, 1, 45)
    owner.run(hour(240))
    owner.grant(hour(241), 100, effective_at=hour(0))
    settle(owner, 242, 15)
    # Of the last segment no more than is owed: 30 of 45.
    assert owner.recalculate(hour(243), 0) == Changes(
        0, 30, 0, 0, 0, (Document("credit_note", -30),)
    )
    assert owed(owner, 243) == 0
    assert left(owner)[0] == (70, 0, "partially_used")


def test_payments_are_released_the_newest_first() -> None:
    owner = subscription()
    event = use(owner, 1, 100)
    owner.run(hour(240))
    settle(owner, 241, 40)
    settle(owner, 242, 60)
    owner.amend(hour(243), event, "30")
    assert owner.recalculate(hour(244), 0) == Changes(
        -70, 0, 0, 70, 0, (Document("credit_note", -70),)
    )
    assert left(owner) == [(10, 0, "partially_used"), (60, 0, "available")]
    assert owner.balance(hour(244)) == Balance(0, 0, 0, 70, 70, net=70)


def test_what_a_pending_refund_takes_back_is_not_released_too() -> None:
    owner = subscription()
    event = use(owner, 1, 100)
    owner.run(hour(240))
    payment = settle(owner, 241, 100)
    owner.begin_refund(hour(242), payment, 80, "revert_all")
    owner.void_event(hour(243), event)
    # 20 can be released; the 80 that the refund is about to take back become a credit.
    assert owner.recalculate(hour(244), 0) == Changes(
        -100, 0, 0, 20, 80, (Document("credit_note", -100),)
    )
    assert left(owner) == [(20, 0, "partially_used"), (80, 0, "available")]
    owner.confirm_refund(hour(245), 0, "return")
    assert owner.balance(hour(245)) == Balance(0, 0, 80, 100, 100, net=20)


def test_credit_notes_go_back_from_the_newest_invoice() -> None:
    owner = subscription()
    first = use(owner, 1, 100)
    owner.run(hour(240))
    use(owner, 2, 30, told_at=241)
    owner.recalculate(hour(242), 0)
    use(owner, 3, 20, told_at=243)
    owner.recalculate(hour(244), 0)
    settle(owner, 245, 115)
    owner.amend(hour(246), first, "20")
    # 80 less: the last 20 are unpaid, so they are void; of 30 only 15 are, so they are taken back.
    assert owner.recalculate(hour(247), 0) == Changes(
        -80,
        0,
        0,
        45,
        0,
        (Document("void", -20), Document("credit_note", -30), Document("credit_note", -30)),
    )
    assert owed(owner, 247) == 0
    assert owner.periods[0].total == 70


def test_usage_may_move_from_one_component_to_another_without_a_document() -> None:
    owner = subscription()
    event = use(owner, 1, 50)
    owner.run(hour(240))
    use(owner, 1, 50, component=1, told_at=241)
    owner.void_event(hour(242), event)
    assert owner.recalculate(hour(243), 0) == Changes(0, 0, 0, 0, 0, ())
    assert owner.books.amounts_by_type(hour(243)) == {"usage_cost": -50}
    adjusted = [p.amount for p in owner.books.postings if p.entry_type == "billing_adjustment"]
    assert adjusted == [50, -50]


def test_only_invoiced_periods_are_calculated_anew() -> None:
    owner = subscription()
    use(owner, 1, 50)
    with pytest.raises(Refused, match="BILLING_PERIOD_NOT_INVOICED"):
        owner.recalculate(hour(2), 0)
    owner.run(hour(240), is_delivered=False)
    with pytest.raises(Refused, match="BILLING_PERIOD_NOT_INVOICED"):
        owner.recalculate(hour(241), 0)
    owner.deliver(hour(242))
    use(owner, 2, 5, told_at=243)
    assert owner.recalculate(hour(243), 0, is_delivered=False) is not None
    with pytest.raises(Refused, match="RECALCULATION_NOT_DELIVERED"):
        owner.recalculate(hour(244), 0)
    owner.deliver_recalculations(hour(245), 0)
    assert owner.recalculate(hour(246), 0) is None


# Estimates


def test_an_estimate_holds_what_the_run_would_take() -> None:
    owner = subscription(Plan(10, 70, HELD.prices))
    owner.grant(hour(0), 30)
    use(owner, 1, 40)
    settle(owner, 2, 5)
    before = owner.balance(hour(3))
    assert owner.estimate_period(hour(3), 0) == Forecast(110 - 30, 75, 0, 30)
    assert left(owner) == [(0, 30, "available"), (0, 0, "fully_used")]
    assert owner.balance(hour(3)) == before._replace(available_credit=0)
    use(owner, 4, 10)
    assert left(owner)[0] == (0, 30, "available")
    assert owner.estimate_period(hour(5), 0) == Forecast(120 - 30, 85, 0, 30)
    owner.adjust(hour(6), 0, 1)
    assert left(owner)[0] == (31, 0, "available")
    owner.run(hour(240))
    kinds = [(each.kind, each.status) for each in owner.periods[0].calculations[::2]]
    assert kinds == [
        ("interim_estimate", "superseded"),
        ("interim_estimate", "discarded"),
        ("billing_run", "active"),
    ]


def test_a_refusal_leaves_an_estimate_alone() -> None:
    owner = subscription()
    owner.grant(hour(0), 30)
    use(owner, 1, 40)
    owner.estimate_period(hour(2), 0)
    before = copy.deepcopy(owner)
    with pytest.raises(Refused, match="CREDIT_BALANCE_INSUFFICIENT"):
        owner.adjust(hour(3), 0, -31)
    assert owner == before


# Write-offs


def test_a_write_off_is_recovered_by_a_payment() -> None:
    owner = subscription()
    use(owner, 1, 100)
    with pytest.raises(Refused, match="BILLING_PERIOD_NOT_INVOICED"):
        owner.write_off(hour(2), 0)
    owner.run(hour(240))
    owner.write_off(hour(241), 0, 30)
    owner.write_off(hour(242), 0)
    with pytest.raises(Refused, match="WRITE_OFF_EXCEEDS_RECEIVABLE"):
        owner.write_off(hour(243), 0)
    owner.recover(hour(244), 1, 20)
    assert owed(owner, 244) == 20
    settle(owner, 245, 65)
    # 20 are owed; the other 45 recover the oldest 30, and 15 of the other.
    assert [each.recovered for each in owner.write_offs] == [30, 35]
    assert owner.balance(hour(245)) == Balance(0, 0, 0, 0, 0, net=0)
    with pytest.raises(Refused, match="WRITE_OFF_EXCEEDED"):
        owner.recover(hour(246), 0)
    settle(owner, 247, 50)
    assert owner.balance(hour(247)) == Balance(0, 0, 0, 15, 15, net=15)
    assert owner.books.sides_by_kind(hour(247))["bad_debt"] == (100, 100)


def test_a_recalculation_recovers_the_newest_write_off_before_it_releases_payments() -> None:
    owner = subscription()
    event = use(owner, 1, 100)
    owner.run(hour(240))
    settle(owner, 241, 40)
    owner.write_off(hour(242), 0, 25)
    owner.write_off(hour(243), 0, 30)
    owner.amend(hour(244), event, "35")
    # 5 are owed before, 65 less: 30 and 25 were never owed, and 5 come back of the 40.
    assert owner.recalculate(hour(245), 0) == Changes(
        -65, 0, 55, 5, 0, (Document("credit_note", -65),)
    )
    assert [each.recovered for each in owner.write_offs] == [25, 30]
    assert owner.balance(hour(245)) == Balance(0, 0, 0, 5, 5, net=5)
