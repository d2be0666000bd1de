"""What credits pay of a billed period after its usage has changed, and where the rest goes."""

from datetime import timedelta

import pytest

from billing.v1 import ledger_pb2, usage_credit_pb2
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.calculations import amend, recalculate, void_event
from tests.factories.credit_changes import adjustments_of, void_credit
from tests.factories.credited_subscription import (
    EXPIRED,
    GRANT_EXPIRED,
    POSTED,
    RUN,
    CreditedSubscription,
    february,
)
from tests.factories.credits import create_payment, expire_credits
from tests.factories.recalculation_audit import assert_recalculations_explain

VOID = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_VOID
VOIDED = usage_credit_pb2.USAGE_CREDIT_STATUS_VOIDED
ADJUSTED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_BALANCE_ADJUSTED
HOUR = timedelta(hours=1)


async def changes_of(held: CreditedSubscription, period_id: str) -> tuple[int, int, int]:
    """Recalculate: what usage costs more, credits pay more, is owed more; after an audit."""
    told = (await recalculate(held.client, held.id, period_id)).recalculation
    await assert_recalculations_explain(held)
    return told.raw_change_amount, told.credits_change_amount, told.net_change_amount


async def owed(held: CreditedSubscription) -> int:
    """What the subscription owes."""
    return (await held.client.balance(held.id)).outstanding_amount


class TestReleased:
    async def test_value_goes_back_to_its_credit(self, held: CreditedSubscription) -> None:
        promotion = await held.grant(60)
        event = await held.use(100, february(3))
        billed = await held.bill()
        await amend(held.client, event.usage_event_id, "45")
        assert await changes_of(held, billed.billing_period_id) == (-55, -15, -40)
        assert (await held.now(promotion)).remaining_amount == 15
        assert await owed(held) == 0

    async def test_only_what_pays_too_much_is_released(self, held: CreditedSubscription) -> None:
        promotion = await held.grant(60)
        event = await held.use(100, february(3))
        billed = await held.bill()
        await amend(held.client, event.usage_event_id, "70")
        assert await changes_of(held, billed.billing_period_id) == (-30, 0, -30)
        assert (await held.now(promotion)).remaining_amount == 0

    async def test_the_latest_usage_gives_back_first(self, held: CreditedSubscription) -> None:
        """Two credits paid spans of the same usage: what is gone is the second span's."""
        first = await held.grant(50, expires_at=february(10))
        second = await held.grant(50, effective_at=february(10))
        await held.use(50, february(3))
        event = await held.use(50, february(12))
        billed = await held.bill()
        assert billed.total_amount == 0
        await amend(held.client, event.usage_event_id, "20")
        assert await changes_of(held, billed.billing_period_id) == (-30, -30, 0)
        assert (await held.now(first)).remaining_amount == 0
        assert (await held.now(second)).remaining_amount == 30

    async def test_it_pays_another_component_first(self, held: CreditedSubscription) -> None:
        promotion = await held.grant(60)
        event = await held.use(60, february(3))
        await held.use(40, february(4), held.tokens)
        billed = await held.bill()
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, billed.billing_period_id) == (-60, -20, -40)
        assert (await held.now(promotion)).remaining_amount == 20
        named = [(*each, RUN) for each in await held.payments_of(p=promotion)]
        assert named == [("p", "calls", 60, RUN), ("p", "tokens", 40, RUN)]

    async def test_a_credit_for_one_component_pays_no_other(
        self, held: CreditedSubscription
    ) -> None:
        scoped = await held.grant(60, component_id=held.component_ids[0])
        by_meter = await held.grant(25, usage_meter_id=held.calls)
        event = await held.use(100, february(3))
        await held.use(40, february(4), held.tokens)
        billed = await held.bill()
        assert billed.total_amount == 55
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, billed.billing_period_id) == (-100, -85, -15)
        assert (await held.now(scoped)).remaining_amount == 60
        assert (await held.now(by_meter)).remaining_amount == 25
        assert await owed(held) == 40

    async def test_a_credit_for_the_period_keeps_what_comes_back(
        self, held: CreditedSubscription
    ) -> None:
        period_id = (await held.get()).current_period_id
        scoped = await held.grant(60, billing_period_id=period_id)
        event = await held.use(100, february(3))
        await held.bill()
        await amend(held.client, event.usage_event_id, "20")
        assert await changes_of(held, period_id) == (-80, -40, -40)
        assert (await held.now(scoped)).remaining_amount == 40
        # Nothing else of its period is there to pay, so it is there to be spent no more.
        balance = await held.client.balance(held.id)
        assert (balance.credit_balance_amount, balance.available_credit_amount) == (40, 0)
        await held.use(35, february(21))
        assert await changes_of(held, period_id) == (35, 35, 0)
        assert (await held.now(scoped)).remaining_amount == 5


class TestEndedCredits:
    async def test_an_expired_credit_pays_usage_of_its_time_before_the_rest_expires_again(
        self, held: CreditedSubscription
    ) -> None:
        credit = await held.grant(60, expires_at=february(10))
        event = await held.use(100, february(3))
        await held.use(25, february(5), held.tokens)
        await held.use(30, february(12), held.tokens)
        billed = await held.bill()
        assert billed.total_amount == 95
        await void_event(held.client, event.usage_event_id)
        before = len(await held.entries(GRANT_EXPIRED))

        told = (await recalculate(held.client, held.id, billed.billing_period_id)).recalculation

        # 60 of calls are freed: 25 pay tokens from before the expiry, 35 expire.
        assert (told.credits_change_amount, told.net_change_amount) == (-35, -65)
        expired = (await held.entries(GRANT_EXPIRED))[before:]
        assert [(e.amount, e.ledger_transaction_id) for e in expired] == [
            (-35, told.ledger_transaction_id)
        ]
        now = await held.now(credit)
        assert (now.status, now.remaining_amount) == (EXPIRED, 0)
        assert await owed(held) == 30
        await assert_recalculations_explain(held)

    async def test_a_credit_that_expired_before_it_was_used_up_expires_again(
        self, held: CreditedSubscription
    ) -> None:
        """Its rest has an expiry already: the next one is of another transaction."""
        credit = await held.grant(60, expires_at=february(10))
        event = await held.use(40, february(3))
        held.reach(february(11))
        await expire_credits(held.client, held.id)
        billed = await held.bill()
        await amend(held.client, event.usage_event_id, "15")
        assert await changes_of(held, billed.billing_period_id) == (-25, -25, 0)
        amounts = [e.amount for e in await held.entries(GRANT_EXPIRED)]
        assert amounts == [-20, -25]
        assert (await held.now(credit)).status == EXPIRED

    async def test_a_voided_credit_pays_before_the_rest_is_taken_again(
        self, held: CreditedSubscription
    ) -> None:
        credit = await held.grant(90)
        event = await held.use(70, february(3))
        billed = await held.bill()
        await void_credit(held.client, credit.id)
        await void_event(held.client, event.usage_event_id)
        await held.use(25, february(5), held.tokens)

        told = (await recalculate(held.client, held.id, billed.billing_period_id)).recalculation

        # 70 of calls are freed: 25 pay tokens of the credit's time, 45 are voided.
        assert (told.credits_change_amount, told.net_change_amount) == (-45, 0)
        first, again = await adjustments_of(held.client, credit.id)
        assert (first.amount_adjusted, again.amount_adjusted) == (20, 45)
        assert again.adjustment_type == first.adjustment_type == VOID
        assert again.ledger_transaction_id == told.ledger_transaction_id
        assert [(e.amount, e.status) for e in await held.entries(ADJUSTED)] == [
            (-20, POSTED),
            (-45, POSTED),
        ]
        now = await held.now(credit)
        assert (now.status, now.remaining_amount) == (VOIDED, 0)
        await assert_recalculations_explain(held)

    async def test_a_credit_that_may_still_pay_the_current_period_keeps_its_value(
        self, held: CreditedSubscription
    ) -> None:
        """It is over since today, and the run that has first claim on it is yet to come."""
        credit = await held.grant(60, expires_at=APRIL)
        event = await held.use(60, february(3))
        billed = await held.bill("run-1")
        await held.use(45, MARCH + HOUR)
        held.reach(APRIL + HOUR)
        await void_event(held.client, event.usage_event_id)
        assert await changes_of(held, billed.billing_period_id) == (-60, -60, 0)
        assert (await held.now(credit)).remaining_amount == 60
        assert await held.entries(GRANT_EXPIRED) == []
        second = await held.bill("run-2")
        assert second.total_amount == 0
        assert [e.amount for e in await held.entries(GRANT_EXPIRED)] == [-15]


class TestApplied:
    async def test_what_is_left_of_a_credit_pays_more_usage(
        self, held: CreditedSubscription
    ) -> None:
        promotion = await held.grant(120)
        await held.use(100, february(3))
        billed = await held.bill()
        await held.use(50, february(20))
        assert await changes_of(held, billed.billing_period_id) == (50, 20, 30)
        assert (await held.now(promotion)).remaining_amount == 0

    async def test_in_the_usual_order(self, held: CreditedSubscription) -> None:
        last = await held.grant(50)
        first = await held.grant(50, priority=-1)
        billed = await held.bill()
        await held.use(70, february(20))
        assert await changes_of(held, billed.billing_period_id) == (70, 70, 0)
        assert await held.payments_of(first=first, last=last) == [
            ("first", "calls", 50),
            ("last", "calls", 20),
        ]

    async def test_a_paid_credit_counts_too(self, held: CreditedSubscription) -> None:
        held.reach(february(1))
        paid = await held.top_up(30)
        billed = await held.bill()
        await held.use(70, february(20))
        # Money that came on the first of the month, but after its start, divides the month.
        assert await changes_of(held, billed.billing_period_id) == (70, 30, 40)
        assert (await held.now(paid)).remaining_amount == 0

    async def test_a_backdated_credit_is_a_reason_by_itself(
        self, held: CreditedSubscription
    ) -> None:
        await held.use(100, february(3))
        billed = await held.bill()
        promotion = await held.grant(60)
        assert await changes_of(held, billed.billing_period_id) == (0, 60, -60)
        assert (await held.now(promotion)).remaining_amount == 0
        assert await owed(held) == 40
        assert not (await recalculate(held.client, held.id, billed.billing_period_id)).changed

    async def test_a_credit_pays_usage_of_its_own_time_only(
        self, held: CreditedSubscription
    ) -> None:
        await held.use(100, february(3))
        await held.use(30, february(20))
        billed = await held.bill()
        promotion = await held.grant(60, effective_at=february(10))
        later = await held.grant(500, effective_at=MARCH)
        assert await changes_of(held, billed.billing_period_id) == (0, 30, -30)
        assert (await held.now(promotion)).remaining_amount == 30
        assert (await held.now(later)).remaining_amount == 500

    async def test_nothing_is_paid_twice(self, held: CreditedSubscription) -> None:
        """The payment of the invoice comes before a credit that is backdated later."""
        await held.use(100, february(3))
        billed = await held.bill()
        await create_payment(held.client, held.id, 100, billing_period_id=billed.billing_period_id)
        promotion = await held.grant(60)
        assert not (await recalculate(held.client, held.id, billed.billing_period_id)).changed
        await held.use(40, february(20))
        assert await changes_of(held, billed.billing_period_id) == (40, 40, 0)
        assert (await held.now(promotion)).remaining_amount == 20

    async def test_of_the_last_segment_no_more_than_what_is_owed(
        self, held: CreditedSubscription
    ) -> None:
        """A part of the invoice was paid: the credit pays the rest."""
        await held.use(100, february(3))
        billed = await held.bill()
        await create_payment(held.client, held.id, 70, billing_period_id=billed.billing_period_id)
        promotion = await held.grant(60)
        assert await changes_of(held, billed.billing_period_id) == (0, 30, -30)
        assert (await held.now(promotion)).remaining_amount == 30

    @pytest.mark.parametrize("moved_to", [february(5), february(25)])
    async def test_usage_that_moves_in_time_is_paid_by_the_credits_of_that_time(
        self, held: CreditedSubscription, moved_to: object
    ) -> None:
        early = await held.grant(50, expires_at=february(15))
        late = await held.grant(50, effective_at=february(15))
        event = await held.use(50, february(10))
        billed = await held.bill()
        await void_event(held.client, event.usage_event_id)
        await held.client.use(held.id, held.calls, "50", moved_to)  # type: ignore[arg-type]
        is_early = moved_to == february(5)
        assert await changes_of(held, billed.billing_period_id) == (0, 0, 0)
        live = {
            each.usage_credit_id: each.amount_applied - each.reversed_amount
            for each in await held.applications()
        }
        assert live[early.id] == (50 if is_early else 0)
        assert live.get(late.id, 0) == (0 if is_early else 50)
        assert (await held.now(late)).remaining_amount == (50 if is_early else 0)
