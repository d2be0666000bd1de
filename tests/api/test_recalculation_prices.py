"""Recalculations under all kinds of plans, periods and subscriptions."""

from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.billing_runs import FEBRUARY, MARCH
from tests.factories.calculations import amend, recalculate, void_event
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit
from tests.factories.credited_subscription import (
    GRANT_EXPIRED,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.recalculation_audit import (
    assert_recalculations_explain,
    invoiced_by,
    invoices_of_period,
)

HOUR = timedelta(hours=1)


async def changes_of(held: CreditedSubscription, period_id: str) -> tuple[int, int, int]:
    """Recalculate: what usage costs more, credits pay more, is owed more; after an audit."""
    answer = await recalculate(held.client, held.id, period_id)
    assert answer.changed
    await assert_recalculations_explain(held)
    told = answer.recalculation
    return told.raw_change_amount, told.credits_change_amount, told.net_change_amount


async def owed(held: CreditedSubscription) -> int:
    """What the subscription owes."""
    return (await held.client.balance(held.id)).outstanding_amount


async def test_included_units(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    held = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, included="1000"
    )
    event = await held.use(900, february(3))
    billed = await held.bill()
    await held.use(50, february(20))
    assert await changes_of(held, billed.billing_period_id) == (0, 0, 0)
    await held.use(100, february(20))
    assert await changes_of(held, billed.billing_period_id) == (50, 0, 50)
    await held.use(25, february(21))
    await amend(held.client, event.usage_event_id, "850")
    assert await changes_of(held, billed.billing_period_id) == (-25, 0, -25)
    await void_event(held.client, event.usage_event_id)
    assert await changes_of(held, billed.billing_period_id) == (-25, 0, -25)
    assert await owed(held) == 0


async def test_prices_far_below_a_cent(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Nothing is lost to rounding: the sum of all that was billed is the charge of the sum."""
    held = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, unit_price="0.015"
    )
    promotion = await held.grant(1)
    await held.use(100, february(3))  # 1.5
    billed = await held.bill()
    assert billed.total_amount == 1
    changes = []
    for _ in range(5):
        await held.use(33, february(20))  # 1.995, 2.49, 2.985, 3.48, 3.975
        changes.append(await changes_of(held, billed.billing_period_id))
    assert changes == [(0, 0, 0), (0, 0, 0), (1, 0, 1), (0, 0, 0), (1, 0, 1)]
    assert await owed(held) == 3
    assert (await held.now(promotion)).remaining_amount == 0


async def test_more_than_the_ledger_holds_is_refused_when_it_is_sent(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    held = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, unit_price="1000000"
    )
    billed = await held.bill()
    late = await held.use(10**15, february(20))
    assert late.reason == "AMOUNT_OUT_OF_RANGE"
    assert not (await recalculate(client, held.id, billed.billing_period_id)).changed


class TestBasePrice:
    @pytest.fixture
    async def held(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> CreditedSubscription:
        """For 1000 a month."""
        return await subscribe_credited(
            client, clock, invoicing, holds_late_usage=True, base_price_amount=1000
        )

    async def test_it_stays_as_it_is(self, held: CreditedSubscription) -> None:
        event = await held.use(100, february(3))
        billed = await held.bill()
        assert billed.total_amount == 1100
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, billed.billing_period_id) == (-100, 0, -100)
        assert await owed(held) == 1000

    async def test_freed_credits_do_not_pay_it(self, held: CreditedSubscription) -> None:
        paid = await held.grant(1050, covers_charges=True)
        event = await held.use(100, february(3))
        billed = await held.bill()
        assert billed.total_amount == 50
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, billed.billing_period_id) == (-100, -100, 0)
        assert (await held.now(paid)).remaining_amount == 100
        assert await owed(held) == 50
        assert invoiced_by(invoices_of_period(held, billed.billing_period_id)) == 50

    async def test_credits_pay_usage_beside_charges_that_are_paid(
        self, held: CreditedSubscription
    ) -> None:
        await held.grant(1000, covers_charges=True)
        billed = await held.bill()
        assert billed.total_amount == 0
        await held.use(70, february(20))
        await held.grant(30)
        assert await changes_of(held, billed.billing_period_id) == (70, 30, 40)


async def test_a_deficit_stays_owed(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    held = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, is_realtime=True
    )
    promotion = await held.grant(100)
    event = await held.use(100, february(3))
    await adjust_credit(client, promotion.id, -70, allow_deficit=True)
    billed = await held.bill()
    assert billed.total_amount == 70
    await amend(client, event.usage_event_id, "20")
    assert await changes_of(held, billed.billing_period_id) == (-80, -80, 0)
    assert (await held.now(promotion)).remaining_amount == 80
    assert await owed(held) == 70


async def test_a_realtime_subscription(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """What was paid event by event is released, and held usage waits for the recalculation."""
    held = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, is_realtime=True
    )
    promotion = await held.grant(100)
    events = [await held.use(units, february(units)) for units in (10, 20)]
    billed = await held.bill()
    await held.use(5, february(20))
    assert (await held.now(promotion)).remaining_amount == 70
    assert await changes_of(held, billed.billing_period_id) == (5, 5, 0)
    await void_event(client, events[0].usage_event_id)
    assert await changes_of(held, billed.billing_period_id) == (-10, -10, 0)
    assert (await held.now(promotion)).remaining_amount == 75
    assert await owed(held) == 0


class TestCancelled:
    async def test_corrections_are_taken_in_after_the_end(self, held: CreditedSubscription) -> None:
        credit = await held.grant(60, expires_at=MARCH)
        event = await held.use(100, february(3))
        period_id = (await held.get()).current_period_id
        held.reach(february(10))
        await held.client.cancel(held.id, immediately=True)
        assert await owed(held) == 40
        late = await held.use(5, february(4))
        assert late.reason == "SUBSCRIPTION_CANCELLED"
        await amend(held.client, event.usage_event_id, "70")
        assert await changes_of(held, period_id) == (-30, 0, -30)
        await amend(held.client, event.usage_event_id, "50")
        assert await changes_of(held, period_id) == (-20, -10, -10)
        assert (await held.now(credit)).remaining_amount == 10
        held.reach(MARCH + HOUR)
        await void_event(held.client, event.usage_event_id)
        # By now the credit is over, and nothing is left that it could pay.
        assert await changes_of(held, period_id) == (-50, -50, 0)
        assert (await held.now(credit)).remaining_amount == 0
        assert sum(e.amount for e in await held.entries(GRANT_EXPIRED)) == -60

    async def test_a_stub(self, held: CreditedSubscription) -> None:
        """Cut before it had begun: it has no price, only usage of a clock that ran ahead."""
        held.clock.set(FEBRUARY - HOUR)
        event = await held.use(10, FEBRUARY - HOUR / 2)
        assert event.reason == "EVENT_BEFORE_SUBSCRIPTION"
        event = await held.client.use(held.id, held.calls, "10", FEBRUARY)
        period_id = (await held.get()).current_period_id
        await held.client.cancel(held.id, immediately=True)
        assert await owed(held) == 10
        await amend(held.client, event.usage_event_id, "15")
        assert await changes_of(held, period_id) == (5, 0, 5)
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, period_id) == (-15, 0, -15)
        [calls] = (await recalculate(held.client, held.id, period_id)).calculations
        assert calls.component_id == held.component_ids[0]

    async def test_a_stub_without_usage_has_nothing_to_put_right(
        self, held: CreditedSubscription
    ) -> None:
        held.clock.set(FEBRUARY - HOUR)
        period_id = (await held.get()).current_period_id
        await held.client.cancel(held.id, immediately=True)
        answer = await recalculate(held.client, held.id, period_id)
        assert (answer.changed, list(answer.calculations)) == (False, [])
        assert held.invoices() == []


async def test_a_period_that_ended_in_a_pause(held: CreditedSubscription) -> None:
    """It is billed as it is, and the next one begins as the subscription goes on."""
    event = await held.use(100, february(3))
    await held.client.pause(held.id)
    held.reach(MARCH + timedelta(days=4))
    await held.client.resume(held.id)
    [billed] = (await held.client.run_billing()).results
    assert moment((await held.get()).current_period_start) >= MARCH + timedelta(days=4)
    while_paused = await held.use(1, MARCH + timedelta(days=2))
    assert while_paused.reason == "EVENT_WHILE_PAUSED"
    await held.use(7, february(20))
    await amend(held.client, event.usage_event_id, "101")
    assert await changes_of(held, billed.billing_period_id) == (8, 0, 8)
