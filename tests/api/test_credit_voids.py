"""Voiding credits: all that is left goes, also what pending refunds hold; what was used stays."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from billing.v1 import refund_pb2
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.client import BillingClient, moment
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import DECREASE, adjust_credit, adjustments_of, void_credit
from tests.factories.credits import (
    applications,
    confirm_refund,
    create_refund,
    credit,
    credits_of,
    expire_credits,
    fail_refund,
)
from tests.factories.customers import Customer, Owed, new_customer
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    nothing_written,
    sources_of,
)
from tests.factories.payments import get_refund
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_CREDIT = "credit_01h455vb4pex5vsknk084sn02q"
DAY = timedelta(days=1)
REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March, without a base price."""
    return await new_customer(client, clock, base_price_amount=0)


async def given(customer: Customer) -> str:
    """The id of a granted credit of 1000."""
    return (await customer.grant()).id


async def paid(customer: Customer) -> str:
    """The id of the credit of a top-up of 1000."""
    return (await customer.pay()).usage_credit_id


async def refused(customer: Customer, usage_credit_id: str, **fields: Any) -> Refusal:
    """How a void is refused; fails unless it leaves everything as it was."""
    async with nothing_written(customer.client, customer.subscription_id):
        return await refusal_of(void_credit(customer.client, usage_credit_id, **fields))


class TestVoid:
    """A void is one adjustment with one entry, and it is for good."""

    @pytest.mark.parametrize(
        ("make", "source", "taker"),
        [(given, "promotional_expense", "promotional_expense"), (paid, "cash", "breakage")],
        ids=["given", "paid"],
    )
    async def test_it_takes_what_was_not_used(
        self, customer: Customer, make: Any, source: str, taker: str
    ) -> None:
        usage_credit_id = await make(customer)
        cost = await customer.use(100)
        await customer.bill()
        before = await credit(customer.client, usage_credit_id)
        assert before.remaining_amount == 1000 - cost
        entries = await customer.entries()
        voided = await void_credit(customer.client, usage_credit_id)
        (entry,) = await customer.entries(since=len(entries))
        assert moves([entry]) == [Move("credit_balance_adjusted", cost - 1000, "credit", taker)]
        (adjustment,) = await adjustments_of(customer.client, usage_credit_id)
        assert sources_of(entry) == {
            "usage_credit": usage_credit_id,
            "credit_balance_adjustment": adjustment.id,
        }
        assert adjustment == pb.CreditBalanceAdjustment(
            id=adjustment.id,
            usage_credit_id=usage_credit_id,
            subscription_id=customer.subscription_id,
            adjustment_type=pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_VOID,
            direction=DECREASE,
            amount_adjusted=1000 - cost,
            currency="USD",
            reason="granted by mistake",
            adjusted_by_user_id="ada",
            adjustment_initiated_at=entry.posted_at,
            ledger_transaction_id=entry.ledger_transaction_id,
        )
        transaction = await ledger_transaction(customer.client, entry.ledger_transaction_id)
        assert transaction.initiating_source_type == "credit_void"
        assert transaction.initiating_source_id == usage_credit_id
        assert list(transaction.entries) == [entry]
        assert voided.status == pb.USAGE_CREDIT_STATUS_VOIDED
        assert (voided.issued_amount, voided.remaining_amount, voided.held_amount) == (1000, 0, 0)
        assert voided.voided_at == voided.updated_at == entry.posted_at
        assert not voided.HasField("expired_at")
        assert await credit(customer.client, usage_credit_id) == voided
        assert await customer.owed() == Owed(), "what was used stays used"
        expected = {"credit": 0, "receivable": 0, "usage_revenue": -cost, source: 1000}
        expected[taker] = expected.get(taker, 0) - (1000 - cost)
        assert await account_balances(customer.client) == expected

    async def test_a_voided_credit_pays_nothing_more(self, customer: Customer) -> None:
        usage_credit_id = (await customer.grant(effective_at=MARCH)).id
        cost = await customer.use(100)
        await void_credit(customer.client, usage_credit_id)
        await customer.bill()
        assert await applications(customer.client, customer.subscription_id) == []
        assert await customer.owed() == Owed(invoiced=cost)

    async def test_before_it_all_that_is_over_is_expired(self, customer: Customer) -> None:
        over = await customer.grant(400, expires_at=START + DAY, effective_at=MARCH)
        kept = await customer.grant(effective_at=MARCH, priority=9)
        cost = await customer.use(30)
        customer.clock.set(START + 2 * DAY)
        await void_credit(customer.client, kept.id)
        assert moves(await customer.entries(since=3)) == [
            Move("credit_applied_to_usage", cost, "credit", "receivable"),
            Move("credit_grant_expired", cost - 400, "credit", "promotional_expense"),
            Move("credit_balance_adjusted", -1000, "credit", "promotional_expense"),
        ]
        statuses = [each.status for each in await credits_of(customer.client, kept.subscription_id)]
        assert statuses == [pb.USAGE_CREDIT_STATUS_EXPIRED, pb.USAGE_CREDIT_STATUS_VOIDED]
        assert (await credit(customer.client, over.id)).remaining_amount == 0

    async def test_a_cancelled_subscriptions_credit_can_be_voided(self, customer: Customer) -> None:
        usage_credit_id = await paid(customer)
        await customer.client.cancel(customer.subscription_id, immediately=True)
        await void_credit(customer.client, usage_credit_id)
        assert await customer.owed() == Owed()

    async def test_a_repeat_is_answered_as_the_first_call_was(self, customer: Customer) -> None:
        usage_credit_id = await given(customer)
        void = partial(void_credit, customer.client, usage_credit_id, request_id="void-1")
        answers = await asyncio.gather(*(void() for _ in range(4)))
        assert all(answer == answers[0] for answer in answers)
        async with nothing_written(customer.client, customer.subscription_id):
            assert await void() == answers[0]
        refusal = await refused(customer, usage_credit_id, request_id="void-1", reason="other")
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        assert refusal.metadata["method"] == "VoidCredit"


class TestRefusals:
    """Only a living credit of which something is left can be voided."""

    async def test_a_voided_credit_cannot_be_voided_again(self, customer: Customer) -> None:
        usage_credit_id = await given(customer)
        voided = await void_credit(customer.client, usage_credit_id)
        refusal = await refused(customer, usage_credit_id)
        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_ALREADY_VOIDED")
        assert refusal.metadata["usage_credit_id"] == usage_credit_id
        assert refusal.metadata["voided_at"] == moment(voided.voided_at).isoformat()

    @pytest.mark.parametrize("expires_at", [START + DAY, APRIL], ids=["early", "at the end"])
    async def test_an_expired_credit_cannot_be_voided(
        self, customer: Customer, expires_at: Any
    ) -> None:
        """At the period's end it waits for the run, which may still let it pay the period."""
        over = await customer.grant(expires_at=expires_at)
        customer.clock.set(expires_at)
        for _ in ("over by time alone", "after the expiry of credits"):
            refusal = await refused(customer, over.id)
            assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_ALREADY_EXPIRED")
            assert refusal.metadata["usage_credit_id"] == over.id
            assert refusal.metadata["expires_at"] == expires_at.isoformat()
            await expire_credits(customer.client)

    async def test_a_credit_of_which_nothing_is_left_cannot_be_voided(
        self, customer: Customer
    ) -> None:
        usage_credit_id = await given(customer)
        await adjust_credit(customer.client, usage_credit_id, -1000)
        refusal = await refused(customer, usage_credit_id)
        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_FULLY_USED")
        assert refusal.metadata["usage_credit_id"] == usage_credit_id
        assert (refusal.metadata["issued"], refusal.metadata["remaining"]) == ("1000", "0")

    async def test_a_void_has_a_reason_a_request_id_and_a_credit(self, customer: Customer) -> None:
        usage_credit_id = await given(customer)
        refusal = await refused(customer, usage_credit_id, reason="", request_id="")
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["reason", "request_id"]
        refusal = await refused(customer, UNKNOWN_CREDIT)
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")


class TestHolds:
    """What pending refunds hold of a credit is voided with it, and they bear it themselves."""

    async def test_the_hold_is_discarded_and_all_is_taken(self, customer: Customer) -> None:
        payment = await customer.pay()
        refund = await create_refund(customer.client, payment.id, 400)
        assert refund.clawed_back_amount == 400
        voided = await void_credit(customer.client, payment.usage_credit_id)
        assert (voided.remaining_amount, voided.held_amount) == (0, 0)
        assert moves(await customer.entries()) == [
            Move("payment_recognized", 1000, "cash", "credit"),
            Move("payment_refunded", -400, "refund_clearing", "cash", "pending"),
            Move("credit_balance_adjusted", -400, "credit", "refund_clearing", "discarded"),
            Move("credit_balance_adjusted", -1000, "credit", "breakage"),
        ]
        after = await get_refund(customer.client, refund.id)
        assert after.status == refund_pb2.REFUND_STATUS_PENDING
        assert (after.clawed_back_amount, after.absorbed_amount) == (0, 400)
        assert await customer.owed() == Owed()

    async def test_the_refund_gives_what_it_no_longer_holds(self, customer: Customer) -> None:
        payment = await customer.pay()
        refund = await create_refund(customer.client, payment.id, 400)
        await void_credit(customer.client, payment.usage_credit_id)
        confirmed = await confirm_refund(customer.client, refund.id)
        assert (confirmed.clawed_back_amount, confirmed.absorbed_amount) == (0, 400)
        transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
        assert moves(transaction.entries) == [
            Move("payment_refunded", -400, "refund_clearing", "cash"),
            Move("credit_balance_adjusted", -400, "credit", "refund_clearing", "discarded"),
            Move("refund_absorbed", 400, "refunds_and_allowances", "refund_clearing"),
        ]
        assert await account_balances(customer.client) == {
            "cash": 600,
            "credit": 0,
            "breakage": -1000,
            "refunds_and_allowances": 400,
        }

    async def test_a_refund_that_fails_gives_nothing_back_to_a_voided_credit(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay()
        refund = await create_refund(customer.client, payment.id, 400)
        voided = await void_credit(customer.client, payment.usage_credit_id)
        await fail_refund(customer.client, refund.id)
        assert await credit(customer.client, payment.usage_credit_id) == voided
        assert await customer.owed() == Owed()
        assert await account_balances(customer.client) == {
            "cash": 1000,
            "credit": 0,
            "breakage": -1000,
        }

    async def test_a_credit_that_refunds_hold_whole_can_be_voided(self, customer: Customer) -> None:
        payment = await customer.pay()
        refunds = [await create_refund(customer.client, payment.id, part) for part in (300, 700)]
        held = await credit(customer.client, payment.usage_credit_id)
        assert (held.remaining_amount, held.held_amount) == (0, 1000)
        voided = await void_credit(customer.client, payment.usage_credit_id)
        assert (voided.remaining_amount, voided.held_amount) == (0, 0)
        *_, void = await adjustments_of(customer.client, payment.usage_credit_id)
        assert void.amount_adjusted == 1000
        for refund in refunds:
            confirmed = await confirm_refund(customer.client, refund.id)
            assert confirmed.absorbed_amount == confirmed.amount
        assert (await account_balances(customer.client))["cash"] == 0

    async def test_only_the_hold_goes_not_what_the_refund_reverses(
        self, customer: Customer
    ) -> None:
        cost = await customer.use(100)
        payment = await customer.pay(billing_period_id=customer.period_id)
        await adjust_credit(customer.client, payment.usage_credit_id, -500)
        refund = await create_refund(customer.client, payment.id, 1000, credit_policy=REVERT_ALL)
        parts = (refund.clawed_back_amount, refund.reversed_amount, refund.deficit_amount)
        assert parts == (300, cost, 500)
        await void_credit(customer.client, payment.usage_credit_id)
        assert await customer.owed() == Owed()
        confirmed = await confirm_refund(customer.client, refund.id)
        parts = (confirmed.clawed_back_amount, confirmed.reversed_amount, confirmed.deficit_amount)
        assert (*parts, confirmed.absorbed_amount) == (0, cost, 500, 300)
        assert await customer.owed() == Owed(unbilled=cost + 500)
        balances = await account_balances(customer.client)
        assert balances == {
            "cash": 0,
            "credit": 0,
            "receivable": cost + 500,
            "usage_revenue": -cost,
            "breakage": -800,
            "refunds_and_allowances": 300,
        }
