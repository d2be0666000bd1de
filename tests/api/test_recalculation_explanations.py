"""Why a line of a recalculation is what it is: what was taken in, and what changed by it."""

from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import charge_pb2
from tests.factories.calculations import amend, estimate, recalculate, void_event
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment
from tests.factories.explanations import explain_whole, explained_lines
from tests.factories.usage import metered_subscription

USAGE = charge_pb2.CHARGE_TYPE_USAGE
CREDIT = charge_pb2.CHARGE_TYPE_CREDIT
HOUR = timedelta(hours=1)


@pytest.fixture
async def held(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of a plan that holds late usage, at one cent a unit."""
    return await subscribe_credited(client, clock, invoicing, holds_late_usage=True)


async def test_what_was_taken_in_makes_the_difference(held: CreditedSubscription) -> None:
    first = await held.use(100, february(3))
    second = await held.use(50, february(4))
    await held.use(7, february(5), held.tokens)
    period_id = (await held.bill()).billing_period_id
    late = await held.use(40, february(20))
    lower = await amend(held.client, first.usage_event_id, "90")
    gone = await void_event(held.client, second.usage_event_id)
    answer = await recalculate(held.client, held.id, period_id)

    calls, tokens, change = await explained_lines(held.client, held.id, period_id)
    assert change.charge.recalculation_id == answer.recalculation.id
    assert change.charge.amount == 40 - 10 - 50
    assert [d.amount for d in change.documents] == [-20] == [change.lines_amount]
    explained = change.usage_change
    assert (explained.old_rating.amount, explained.new_rating.amount) == (150, 130)
    taken = [each.held_event.id or each.correction.id for each in explained.taken_in_usages]
    assert taken == [late.usage_event_id, lower.id, gone.id]
    corrections = [each.correction for each in explained.taken_in_usages[1:]]
    assert [c.is_void for c in corrections] == [False, True]
    assert [c.cost_change_amount for c in corrections] == [-10, -50]
    assert [c.quantity_after.value for c in corrections] == ["90", "0"]
    # The lines of the billing run are explained as they were, and name what replaced them.
    assert calls.charge.amount == 150
    assert not [c for event in calls.usage.usage_events for c in event.corrections]
    [successor] = calls.usage.superseding_calculations
    assert successor == explained.new_calculation
    assert tokens.usage.superseding_calculations


async def test_several_recalculations_take_in_each_their_own(held: CreditedSubscription) -> None:
    event = await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    for quantity in ("120", "60", "61"):
        await amend(held.client, event.usage_event_id, quantity)
        await held.use(5, february(20))
        await recalculate(held.client, held.id, period_id)
    explained = await explained_lines(held.client, held.id, period_id)
    changes = [each for each in explained if each.charge.recalculation_id]
    assert [each.charge.amount for each in changes] == [25, -55, 6]
    for each in changes:
        assert each.usage_change.totals.event_count == 1
        assert each.usage_change.totals.correction_count == 1
    run = explained[0]
    chain = [c.id for c in run.usage.superseding_calculations]
    assert chain == [each.usage_change.new_calculation.id for each in changes]


async def test_corrections_in_the_open_period_stand_with_their_events(
    held: CreditedSubscription,
) -> None:
    first = await held.use(100, february(3))
    second = await held.use(30, february(4))
    await amend(held.client, first.usage_event_id, "80")
    await amend(held.client, first.usage_event_id, "85")
    await void_event(held.client, second.usage_event_id)
    period_id = (await held.bill()).billing_period_id
    # Of a billed period: it waits, and is no part of the line.
    await amend(held.client, first.usage_event_id, "500")
    calls, _ = await explained_lines(held.client, held.id, period_id)
    assert calls.charge.amount == 85
    steps = [
        [(c.quantity_before.value, c.quantity_after.value) for c in event.corrections]
        for event in calls.usage.usage_events
    ]
    assert steps == [[("100", "80"), ("80", "85")], [("30", "0")]]
    assert calls.usage.totals.correction_cost_amount == -45


async def test_credits_that_a_recalculation_moves_are_told_on_its_line_and_on_the_first(
    held: CreditedSubscription,
) -> None:
    promotion = await held.grant(60)
    first = await held.use(100, february(3))
    await held.use(30, february(4), held.tokens)
    period_id = (await held.bill()).billing_period_id
    await void_event(held.client, first.usage_event_id)
    await recalculate(held.client, held.id, period_id)
    explained = await explained_lines(held.client, held.id, period_id)
    calls, _, credit, change, credit_change = explained
    [use] = calls.usage.credit_uses
    assert (use.usage_credit_id, use.paid_amount, use.reversed_since_amount) == (
        promotion.id,
        60,
        60,
    )
    assert credit.charge.amount == -60
    assert credit.credit.credit_uses[0].reversed_since_amount == 60
    assert change.charge.amount == -100
    assert credit_change.charge.amount == 30
    [moved] = credit_change.credit.credit_uses
    assert (moved.applied_amount, moved.reversed_amount, moved.paid_amount) == (30, 60, -30)


async def test_what_a_recalculation_applies_is_no_part_of_the_run(
    held: CreditedSubscription,
) -> None:
    await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    late_promotion = await held.grant(30)
    await held.use(10, february(20))
    await recalculate(held.client, held.id, period_id)
    calls, _, change, credit = await explained_lines(held.client, held.id, period_id)
    assert not calls.usage.credit_uses
    assert change.charge.amount == 10
    assert credit.charge.amount == -30
    assert credit.credit.credit_uses[0].usage_credit_id == late_promotion.id


async def test_prices_below_a_cent_and_included_units(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Corrections within the included units change the quantity and cost nothing."""
    metered = await metered_subscription(
        client, unit_price="0.015", included="100", started_at=clock.now - timedelta(days=40)
    )
    at = clock.now - timedelta(days=20)
    await metered.send(metered.event("50", at=at), metered.event("149.9", at=at))
    result = await client.run_for_subscription(metered.subscription_id)
    first, second = await metered.stored()
    await amend(client, first.id, "20")
    await amend(client, second.id, "1079.7")
    await recalculate(client, metered.subscription_id, result.billing_period_id)
    run, change = await explained_lines(client, metered.subscription_id, result.billing_period_id)
    assert (run.charge.amount, change.charge.amount) == (1, 14)
    # (20 + 1079.7 - 100) * 0.015 = 14.9955
    assert change.usage_change.new_rating.unrounded_amount.value == "14.9955"
    assert change.usage_change.new_rating.rounding_residue_amount.value == "0.0045"


async def test_a_recalculation_that_takes_in_much_is_paged(held: CreditedSubscription) -> None:
    await held.use(1, february(3))
    result = await held.bill()
    await held.send(*[held.event(2, february(4) + HOUR * n) for n in range(23)])
    await recalculate(held.client, held.id, result.billing_period_id)
    explained = await explained_lines(held.client, held.id, result.billing_period_id)
    change = explained[-1]
    whole = await explain_whole(held.client, change.charge.id, page_size=5)
    assert whole == change
    assert whole.usage_change.totals.event_count == 23


async def test_an_estimate_that_was_replaced_is_named(held: CreditedSubscription) -> None:
    await held.grant(10)
    await held.use(20, february(3))
    await estimate(held.client, held.id)
    kept = await estimate(held.client, held.id)
    await held.bill()
    calls, _, credit = await explained_lines(held.client, held.id)
    [superseded] = calls.usage.superseded_calculations
    assert superseded.calculation_run_id == kept.calculation_run_id
    # What the estimates held was given back: it is on no line.
    assert (calls.usage.credits_applied_amount, credit.charge.amount) == (10, -10)


async def test_payments_that_are_released_are_no_credits(held: CreditedSubscription) -> None:
    event = await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    await create_payment(held.client, held.id, 100, billing_period_id=period_id)
    await void_event(held.client, event.usage_event_id)
    await recalculate(held.client, held.id, period_id)
    calls, _, change = await explained_lines(held.client, held.id, period_id)
    assert (calls.charge.amount, change.charge.amount) == (100, -100)
    assert not calls.usage.credit_uses


async def test_a_component_that_was_first_used_late(held: CreditedSubscription) -> None:
    period_id = (await held.bill()).billing_period_id
    late = await held.use(40, february(20), held.tokens)
    await recalculate(held.client, held.id, period_id)
    *_, change = await explained_lines(held.client, held.id, period_id)
    assert change.charge.component_id == held.component_ids[1]
    [taken] = change.usage_change.taken_in_usages
    assert taken.held_event.id == late.usage_event_id
    assert moment(taken.held_event.event_timestamp) == february(20)
