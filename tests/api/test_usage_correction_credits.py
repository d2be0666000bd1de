"""What corrections of usage do to the credits that paid it, in open billing periods."""

from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2, usage_credit_pb2
from tests.factories.billing_runs import FEBRUARY, MARCH
from tests.factories.calculations import amend, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjustments_of, void_credit
from tests.factories.credited_subscription import (
    EXPIRED,
    GRANT_EXPIRED,
    PARTIALLY_USED,
    REALTIME,
    RUN,
    SETTLEMENT,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, credits_of, expire_credits, grant_credit
from tests.factories.ledger_moves import ledger_transaction, moves
from tests.factories.usage import metered_subscription

REVERSED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLICATION_REVERSED
SURPLUS = usage_credit_pb2.USAGE_CREDIT_TYPE_SURPLUS
VOIDED = usage_credit_pb2.USAGE_CREDIT_STATUS_VOIDED
HOUR = timedelta(hours=1)


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing)


async def live(metered: CreditedSubscription) -> list[tuple[int, int]]:
    """What applications still pay, each with its kind, oldest first."""
    return [
        (each.kind, each.amount_applied - each.reversed_amount)
        for each in await metered.applications()
        if each.amount_applied > each.reversed_amount
    ]


async def entry_types(metered: CreditedSubscription, ledger_transaction_id: str) -> list[Any]:
    """What a ledger transaction moved, as type and amount."""
    transaction = await ledger_transaction(metered.client, ledger_transaction_id)
    return [(move.entry_type, move.amount) for move in moves(transaction.entries)]


class TestReleases:
    async def test_what_nobody_paid_yet_concerns_no_credit(
        self, metered: CreditedSubscription
    ) -> None:
        granted = await metered.grant(100)
        event = await metered.use(80, february(3))
        correction = await amend(metered.client, event.usage_event_id, "30")
        assert await entry_types(metered, correction.ledger_transaction_id) == [
            ("usage_cost_corrected", 50)
        ]
        assert await metered.bill_lines() == [
            ("calls (30)", 30),
            ("tokens (0)", 0),
            ("Credits applied", -30),
        ]
        assert (await metered.now(granted)).remaining_amount == 70
        await metered.audit()

    async def test_value_of_an_expired_credit_is_swept_at_once(
        self, metered: CreditedSubscription
    ) -> None:
        granted = await metered.grant(100, expires_at=february(10))
        event = await metered.use(80, february(3))
        metered.reach(february(12))
        await expire_credits(metered.client, metered.id)

        correction = await void_event(metered.client, event.usage_event_id)

        assert await entry_types(metered, correction.ledger_transaction_id) == [
            ("usage_cost_corrected", 80),
            ("credit_application_reversed", -80),
            ("credit_grant_expired", -80),
        ]
        after = await metered.now(granted)
        assert (after.status, after.remaining_amount) == (EXPIRED, 0)
        assert (await metered.client.balance(metered.id)).outstanding_amount == 0
        await metered.audit()
        assert (await metered.bill()).total_amount == 0
        await metered.audit()

    async def test_it_pays_what_nobody_paid_before_it_is_swept(
        self, metered: CreditedSubscription
    ) -> None:
        """Of the other component: 80 and 20 of 50 were paid, then 50 and no calls."""
        granted = await metered.grant(100, expires_at=february(10))
        event = await metered.use(80, february(3))
        await metered.use(50, february(5), metered.tokens)
        metered.reach(february(12))
        await expire_credits(metered.client, metered.id)
        assert await live(metered) == [(RUN, 80), (RUN, 20)]

        correction = await void_event(metered.client, event.usage_event_id)

        assert sorted(await entry_types(metered, correction.ledger_transaction_id)) == [
            ("credit_application_reversed", -80),
            ("credit_applied_to_usage", 30),
            ("credit_grant_expired", -50),
            ("usage_cost_corrected", 80),
        ]
        assert await live(metered) == [(RUN, 20), (RUN, 30)]
        assert (await metered.now(granted)).remaining_amount == 0
        assert (await metered.client.balance(metered.id)).outstanding_amount == 0
        await metered.audit()

    async def test_usage_after_the_expiry_is_not_paid(self, metered: CreditedSubscription) -> None:
        await metered.grant(100, expires_at=february(10))
        event = await metered.use(80, february(3))
        await metered.use(50, february(11), metered.tokens)
        metered.reach(february(12))

        await void_event(metered.client, event.usage_event_id)

        assert await live(metered) == []
        assert sum(e.amount for e in await metered.entries(GRANT_EXPIRED)) == -100
        assert (await metered.client.balance(metered.id)).outstanding_amount == 50
        await metered.audit()

    async def test_only_what_does_not_fit_any_more_is_released(
        self, metered: CreditedSubscription
    ) -> None:
        """Of two segments: the first one's credit is released, the second one's is not."""
        await metered.grant(30, expires_at=february(5))
        await metered.grant(100, effective_at=february(5), expires_at=february(10))
        first = await metered.use(40, february(3))
        await metered.use(60, february(7))
        metered.reach(february(12))
        await expire_credits(metered.client, metered.id)
        assert await live(metered) == [(RUN, 30), (RUN, 60)]

        await amend(metered.client, first.usage_event_id, "12")

        assert await live(metered) == [(RUN, 12), (RUN, 60)]
        assert [e.amount for e in await metered.entries(REVERSED)] == [-18]
        assert (await metered.client.balance(metered.id)).outstanding_amount == 0
        await metered.audit()

    async def test_the_newest_application_of_a_segment_gives_first(
        self, metered: CreditedSubscription
    ) -> None:
        first = await metered.grant(30, expires_at=february(10))
        second = await metered.grant(30, expires_at=february(10), priority=1)
        event = await metered.use(50, february(3))
        metered.reach(february(12))

        await expire_credits(metered.client, metered.id)
        await amend(metered.client, event.usage_event_id, "35")

        paid = await metered.payments_of(first=first, second=second)
        assert paid == [("first", "calls", 30), ("second", "calls", 20)]
        assert await live(metered) == [(RUN, 30), (RUN, 5)]
        await metered.audit()

    async def test_a_live_credit_has_its_value_back(self, metered: CreditedSubscription) -> None:
        """Another one's expiry let it pay; what comes back may pay again."""
        evergreen = await metered.grant(100)
        await metered.grant(10, expires_at=february(10))
        event = await metered.use(60, february(3))
        metered.reach(february(12))
        await expire_credits(metered.client, metered.id)
        assert (await metered.now(evergreen)).remaining_amount == 50

        await amend(metered.client, event.usage_event_id, "25")

        after = await metered.now(evergreen)
        assert (after.remaining_amount, after.status) == (85, PARTIALLY_USED)
        await metered.use(70, february(14), metered.tokens)
        assert (await metered.bill_lines())[-1] == ("Credits applied", -95)
        assert (await metered.now(evergreen)).remaining_amount == 15
        await metered.audit()

    async def test_what_is_over_pays_before_the_correction_is_looked_at(
        self, metered: CreditedSubscription
    ) -> None:
        """Whether ExpireCredits came before: the usage is paid as it was, then released."""
        granted = await metered.grant(100, expires_at=february(10))
        event = await metered.use(80, february(3))
        metered.reach(february(12))

        await amend(metered.client, event.usage_event_id, "120")

        assert await live(metered) == [(RUN, 80)]
        assert (await metered.now(granted)).status == EXPIRED
        assert (await metered.client.balance(metered.id)).outstanding_amount == 40
        await metered.audit()

    async def test_a_settled_period_makes_a_surplus(self, metered: CreditedSubscription) -> None:
        event = await metered.use(100, february(3))
        period_id = (await metered.get()).current_period_id
        await create_payment(metered.client, metered.id, 100, billing_period_id=period_id)

        await amend(metered.client, event.usage_event_id, "30")

        assert await live(metered) == [(SETTLEMENT, 100)]
        assert (await metered.client.balance(metered.id)).outstanding_amount == -70
        assert (await metered.bill()).total_amount == 30
        [surplus] = [c for c in await credits_of(metered.client, metered.id) if c.remaining_amount]
        assert (surplus.credit_type, surplus.remaining_amount) == (SURPLUS, 70)
        await metered.audit()


class TestNegativeUsage:
    async def test_units_that_others_were_rated_for_are_set_off(
        self, client: BillingClient, clock: FakeClock
    ) -> None:
        """The void of a free event makes a later one free: no credit pays that one."""
        clock.set(FEBRUARY)
        metered = await metered_subscription(
            client, unit_price="1", included="10", started_at=FEBRUARY
        )
        terms = {"effective_at": FEBRUARY}
        await grant_credit(client, metered.subscription_id, 50, expires_at=february(10), **terms)
        evergreen = await grant_credit(client, metered.subscription_id, 50, **terms)
        clock.set(february(20) + HOUR)
        free, _ = await metered.send(
            metered.event("10", at=february(3)), metered.event("10", at=february(20))
        )
        await expire_credits(client, metered.subscription_id)

        correction = await void_event(client, free.usage_event_id)

        assert correction.cost_change_amount == -10
        clock.set(MARCH + HOUR)
        [result] = (await client.run_billing()).results
        assert result.total_amount == 0
        left = {c.id: c.remaining_amount for c in await credits_of(client, metered.subscription_id)}
        assert left[evergreen.id] == 50


class TestRealtime:
    @pytest.fixture
    async def realtime(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> CreditedSubscription:
        """A pay-as-you-go subscription without a base price, on the first of February."""
        return await subscribe_credited(client, clock, invoicing, is_realtime=True)

    async def test_what_costs_more_is_paid_at_once(self, realtime: CreditedSubscription) -> None:
        granted = await realtime.grant(100)
        event = await realtime.use(60, february(3))

        correction = await amend(realtime.client, event.usage_event_id, "85")

        assert await entry_types(realtime, correction.ledger_transaction_id) == [
            ("usage_cost_corrected", -25),
            ("credit_applied_to_usage", 25),
        ]
        assert await live(realtime) == [(REALTIME, 60), (REALTIME, 25)]
        assert (await realtime.now(granted)).remaining_amount == 15
        await amend(realtime.client, event.usage_event_id, "120")
        assert (await realtime.client.balance(realtime.id)).unbilled_amount == 20
        await realtime.audit()
        assert (await realtime.bill()).total_amount == 20

    async def test_what_costs_less_is_released_at_once(
        self, realtime: CreditedSubscription
    ) -> None:
        granted = await realtime.grant(100)
        event = await realtime.use(60, february(3))

        await amend(realtime.client, event.usage_event_id, "15")

        assert await live(realtime) == [(REALTIME, 15)]
        assert (await realtime.now(granted)).remaining_amount == 85
        assert (await realtime.client.balance(realtime.id)).available_credit_amount == 85
        await realtime.use(85, february(4), realtime.tokens)
        assert (await realtime.client.balance(realtime.id)).outstanding_amount == 0
        await realtime.audit()

    async def test_value_of_a_voided_credit_is_taken_again(
        self, realtime: CreditedSubscription
    ) -> None:
        granted = await realtime.grant(100)
        event = await realtime.use(60, february(3))
        await void_credit(realtime.client, granted.id)

        correction = await amend(realtime.client, event.usage_event_id, "15")

        assert await entry_types(realtime, correction.ledger_transaction_id) == [
            ("usage_cost_corrected", 45),
            ("credit_application_reversed", -45),
            ("credit_balance_adjusted", -45),
        ]
        after = await realtime.now(granted)
        assert (after.status, after.remaining_amount) == (VOIDED, 0)
        adjusted = [a.amount_adjusted for a in await adjustments_of(realtime.client, granted.id)]
        assert adjusted == [40, 45]
        await realtime.audit()

    async def test_a_later_period_waits_for_the_earlier_one(
        self, realtime: CreditedSubscription
    ) -> None:
        """What a correction in March frees pays nothing there while February is not billed."""
        await realtime.grant(10, expires_at=MARCH + timedelta(days=9))
        event = await realtime.use(10, MARCH + timedelta(days=2))
        await realtime.use(40, february(20))
        await realtime.use(30, MARCH + timedelta(days=3), realtime.tokens)
        realtime.reach(MARCH + timedelta(days=12))
        evergreen = await realtime.grant(40, effective_at=FEBRUARY)

        await void_event(realtime.client, event.usage_event_id)

        assert (await realtime.now(evergreen)).remaining_amount == 40
        february_bill = await realtime.bill("february")
        assert february_bill.total_amount == 0
        await realtime.audit()
