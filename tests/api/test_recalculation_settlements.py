"""A recalculated period that was paid, written off, or refunded: and owes nothing at least."""

from datetime import timedelta

import pytest

from billing.v1 import ledger_pb2, payment_pb2, refund_pb2, usage_credit_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.calculations import (
    amend,
    get_write_off,
    recalculate,
    void_event,
    write_off,
)
from tests.factories.credit_changes import void_credit
from tests.factories.credited_subscription import (
    SETTLEMENT,
    CreditedSubscription,
    february,
)
from tests.factories.credits import (
    confirm_refund,
    create_payment,
    create_refund,
    credits_of,
    fail_refund,
)
from tests.factories.payments import get_payment
from tests.factories.recalculation_audit import assert_recalculations_explain
from tests.factories.refusals import refusal_of

REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
SURPLUS = usage_credit_pb2.USAGE_CREDIT_TYPE_SURPLUS
REVERSED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLICATION_REVERSED


async def pay(
    held: CreditedSubscription, period_id: str, amount: int
) -> tuple[payment_pb2.Payment, str]:
    """Pay a period; return the payment and its credit's id."""
    payment = await create_payment(held.client, held.id, amount, billing_period_id=period_id)
    return payment, payment.usage_credit_id


async def restored_by(held: CreditedSubscription, period_id: str) -> tuple[int, int, int, int]:
    """Recalculate: what is owed more, was recovered, released and carried; after an audit."""
    told = (await recalculate(held.client, held.id, period_id)).recalculation
    await assert_recalculations_explain(held)
    return (
        told.net_change_amount,
        told.recovered_amount,
        told.released_amount,
        told.surplus_amount,
    )


async def owed(held: CreditedSubscription) -> int:
    """What the subscription owes."""
    return (await held.client.balance(held.id)).outstanding_amount


async def remaining(held: CreditedSubscription) -> list[int]:
    """What is left of each credit, oldest first."""
    return [each.remaining_amount for each in await credits_of(held.client, held.id)]


@pytest.fixture
async def paid_for(held: CreditedSubscription) -> tuple[CreditedSubscription, str, str]:
    """A subscription that owes 100 for February, with the period and the event of that."""
    event = await held.use(100, february(3))
    billed = await held.bill()
    return held, billed.billing_period_id, event.usage_event_id


Billed = tuple[CreditedSubscription, str, str]


class TestPayments:
    async def test_a_paid_period_releases_what_it_costs_less(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        payment, credit_id = await pay(held, period_id, 100)
        await amend(held.client, event_id, "70")

        assert await restored_by(held, period_id) == (-30, 0, 30, 0)

        assert await owed(held) == 0
        assert await remaining(held) == [30]
        [settled] = await held.applications(kind=SETTLEMENT)
        assert (settled.amount_applied, settled.reversed_amount) == (100, 30)
        assert settled.usage_credit_id == credit_id
        assert (await get_payment(held.client, payment.id)).settled_amount == 70
        # The credit pays what comes next.
        await held.use(50, MARCH + timedelta(days=1))
        assert (await held.bill("run-2")).total_amount == 20

    async def test_a_period_paid_in_part_owes_less_first(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        await pay(held, period_id, 60)
        await amend(held.client, event_id, "70")
        assert await restored_by(held, period_id) == (-30, 0, 0, 0)
        assert await owed(held) == 10
        await amend(held.client, event_id, "50")
        assert await restored_by(held, period_id) == (-20, 0, 10, 0)
        assert await owed(held) == 0
        assert await remaining(held) == [10]

    async def test_the_newest_payment_is_released_first(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        for amount in (50, 30, 20):
            await pay(held, period_id, amount)
        await amend(held.client, event_id, "60")
        assert await restored_by(held, period_id) == (-40, 0, 40, 0)
        assert await remaining(held) == [0, 20, 20]
        await void_event(held.client, event_id)
        assert await restored_by(held, period_id) == (-60, 0, 60, 0)
        assert await remaining(held) == [50, 30, 20]

    async def test_an_overpaid_period_releases_no_more_than_paid_it(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        await pay(held, period_id, 130)
        assert await remaining(held) == [30]
        await void_event(held.client, event_id)
        assert await restored_by(held, period_id) == (-100, 0, 100, 0)
        assert await remaining(held) == [130]

    async def test_more_usage_of_a_paid_period_is_owed(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        await pay(held, period_id, 100)
        await amend(held.client, event_id, "140")
        assert await restored_by(held, period_id) == (40, 0, 0, 0)
        assert await owed(held) == 40
        await pay(held, period_id, 40)
        await void_event(held.client, event_id)
        assert await restored_by(held, period_id) == (-140, 0, 140, 0)
        assert await remaining(held) == [100, 40]

    async def test_what_is_left_of_an_overpayment_pays_more_usage(self, paid_for: Billed) -> None:
        """As any credit would: but only usage from after the payment."""
        held, period_id, event_id = paid_for
        await pay(held, period_id, 130)
        await amend(held.client, event_id, "120")
        assert await restored_by(held, period_id) == (20, 0, 0, 0)
        assert await owed(held) == 20
        assert await remaining(held) == [30]

    async def test_what_credits_paid_is_freed_before_what_payments_paid(
        self, held: CreditedSubscription
    ) -> None:
        promotion = await held.grant(60)
        event = await held.use(100, february(3))
        period_id = (await held.bill()).billing_period_id
        await pay(held, period_id, 40)
        await amend(held.client, event.usage_event_id, "50")
        # The promotion covers what is left of the usage, the payment is not needed any more.
        assert await restored_by(held, period_id) == (-40, 0, 40, 0)
        assert (await held.now(promotion)).remaining_amount == 10
        await void_event(held.client, event.usage_event_id)
        assert await restored_by(held, period_id) == (0, 0, 0, 0)
        assert await remaining(held) == [60, 40]

    async def test_value_that_comes_back_to_a_voided_credit_is_voided(
        self, paid_for: Billed
    ) -> None:
        held, period_id, event_id = paid_for
        _, credit_id = await pay(held, period_id, 110)
        await void_credit(held.client, credit_id)
        await amend(held.client, event_id, "70")
        assert await restored_by(held, period_id) == (-30, 0, 30, 0)
        assert await remaining(held) == [0]

    async def test_a_period_that_was_paid_before_it_was_billed(
        self, held: CreditedSubscription
    ) -> None:
        event = await held.use(100, february(3))
        period_id = (await held.get()).current_period_id
        await pay(held, period_id, 100)
        await held.bill()
        await amend(held.client, event.usage_event_id, "30")
        assert await restored_by(held, period_id) == (-70, 0, 70, 0)
        assert await remaining(held) == [70]

    async def test_of_two_components_the_right_one_is_paid(
        self, held: CreditedSubscription
    ) -> None:
        event = await held.use(50, february(3))
        await held.use(50, february(4), held.tokens)
        period_id = (await held.bill()).billing_period_id
        await pay(held, period_id, 100)
        await void_event(held.client, event.usage_event_id)
        assert await restored_by(held, period_id) == (-50, 0, 50, 0)
        assert await owed(held) == 0
        promotion = await held.grant(500)
        assert not (await recalculate(held.client, held.id, period_id)).changed
        assert (await held.now(promotion)).remaining_amount == 500


class TestRefunds:
    async def test_what_a_pending_refund_takes_back_is_carried_instead(
        self, paid_for: Billed
    ) -> None:
        held, period_id, event_id = paid_for
        payment, _ = await pay(held, period_id, 100)
        refund = await create_refund(held.client, payment.id, 80, credit_policy=REVERT_ALL)
        await amend(held.client, event_id, "70")

        assert await restored_by(held, period_id) == (-30, 0, 20, 10)

        [released, surplus] = await credits_of(held.client, held.id)
        assert released.remaining_amount == 20
        assert (surplus.credit_type, surplus.remaining_amount) == (SURPLUS, 10)
        assert surplus.source_reference_id == period_id
        assert await owed(held) == 0
        await confirm_refund(held.client, refund.id)
        await assert_recalculations_explain(held)
        # 80 of the invoice of 70 are unpaid again: 10 of that are the surplus.
        assert await owed(held) == 80

    async def test_a_refund_that_fails_after_it(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        payment, _ = await pay(held, period_id, 100)
        refund = await create_refund(held.client, payment.id, 80, credit_policy=REVERT_ALL)
        await void_event(held.client, event_id)
        assert await restored_by(held, period_id) == (-100, 0, 20, 80)
        await fail_refund(held.client, refund.id)
        await assert_recalculations_explain(held)
        assert await owed(held) == 0
        await amend_back(held, "30")
        # Usage is owed again; surplus and payment pay usage of their own time alone.
        assert await restored_by(held, period_id) == (30, 0, 0, 0)
        assert await owed(held) == 30

    async def test_a_refunded_payment_left_the_period_owing(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        payment, _ = await pay(held, period_id, 100)
        refund = await create_refund(held.client, payment.id, 60, credit_policy=REVERT_ALL)
        await confirm_refund(held.client, refund.id)
        assert await owed(held) == 60
        await amend(held.client, event_id, "20")
        assert await restored_by(held, period_id) == (-80, 0, 20, 0)
        assert await owed(held) == 0


async def amend_back(held: CreditedSubscription, units: str) -> None:
    """Use so many units more in February, late."""
    await held.use(int(units), february(20))


class TestWriteOffs:
    async def test_what_was_never_owed_is_recovered_first(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        await pay(held, period_id, 30)
        first = await write_off(held.client, held.id, period_id, amount=25)
        second = await write_off(held.client, held.id, period_id, amount=45)
        assert await owed(held) == 0
        await amend(held.client, event_id, "40")

        assert await restored_by(held, period_id) == (-60, 60, 0, 0)

        # The newest one goes first.
        recovered = [
            (await get_write_off(held.client, w.id)).recovered_amount for w in (first, second)
        ]
        assert recovered == [15, 45]
        assert await owed(held) == 0
        await void_event(held.client, event_id)
        assert await restored_by(held, period_id) == (-40, 10, 30, 0)
        assert await remaining(held) == [30]

    async def test_what_is_still_owed_goes_before_that(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        given_up = await write_off(held.client, held.id, period_id, amount=70)
        await amend(held.client, event_id, "75")
        assert await restored_by(held, period_id) == (-25, 0, 0, 0)
        assert await owed(held) == 5
        await amend(held.client, event_id, "60")
        assert await restored_by(held, period_id) == (-15, 10, 0, 0)
        told = await get_write_off(held.client, given_up.id)
        assert (told.amount, told.recovered_amount) == (70, 10)

    async def test_more_usage_is_owed_beside_it(self, paid_for: Billed) -> None:
        held, period_id, event_id = paid_for
        given_up = await write_off(held.client, held.id, period_id)
        await amend(held.client, event_id, "130")
        assert await restored_by(held, period_id) == (30, 0, 0, 0)
        assert await owed(held) == 30
        assert (await get_write_off(held.client, given_up.id)).recovered_amount == 0

    async def test_a_credit_of_earlier_usage_recovers_what_was_given_up(
        self, paid_for: Billed
    ) -> None:
        """It pays usage that ended before the last segment whatever is owed by now."""
        held, period_id, _ = paid_for
        given_up = await write_off(held.client, held.id, period_id)
        early = await held.grant(40)
        await held.grant(1, effective_at=february(15))
        assert await restored_by(held, period_id) == (-40, 40, 0, 0)
        assert (await held.now(early)).remaining_amount == 0
        assert (await get_write_off(held.client, given_up.id)).recovered_amount == 40

    async def test_a_credit_of_the_last_usage_pays_no_more_than_is_owed(
        self, paid_for: Billed
    ) -> None:
        held, period_id, _ = paid_for
        given_up = await write_off(held.client, held.id, period_id, amount=70)
        promotion = await held.grant(60)
        assert await restored_by(held, period_id) == (-30, 0, 0, 0)
        assert (await held.now(promotion)).remaining_amount == 30
        assert (await get_write_off(held.client, given_up.id)).recovered_amount == 0
        assert not (await recalculate(held.client, held.id, period_id)).changed


async def test_nothing_is_released_that_was_not_paid(paid_for: Billed) -> None:
    """A period that is not paid at all only owes less."""
    held, period_id, event_id = paid_for
    await void_event(held.client, event_id)
    assert await restored_by(held, period_id) == (-100, 0, 0, 0)
    assert await remaining(held) == []
    assert await held.entries(REVERSED) == []
    refusal = await refusal_of(write_off(held.client, held.id, period_id))
    assert refusal.kind == ("FAILED_PRECONDITION", "WRITE_OFF_EXCEEDS_RECEIVABLE")
