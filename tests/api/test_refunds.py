"""Refunds: begun, confirmed, failed; never above the payment, however often they are told."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from billing.v1 import refund_pb2 as pb
from tests.factories.client import BillingClient, moment, new_tenant
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjustments_of
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_refund,
    credit,
    credit_summary,
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
from tests.factories.payments import (
    fail_payment,
    get_payment,
    get_refund,
    refunds_of,
    refunds_page,
)
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_REFUND = "refund_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PAYMENT = "payment_01h455vb4pex5vsknk084sn02q"
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
PENDING, SUCCEEDED, FAILED = (
    pb.REFUND_STATUS_PENDING,
    pb.REFUND_STATUS_SUCCEEDED,
    pb.REFUND_STATUS_FAILED,
)
CONCURRENT_CALLS = 5


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def refused(customer: Customer, call: Any) -> Refusal:
    """How a call is refused; fails unless it leaves everything as it was."""
    async with nothing_written(customer.client, customer.subscription_id):
        return await refusal_of(call)


class TestCreate:
    """A refund begins pending, and holds what it takes back."""

    async def test_it_begins_pending_with_its_terms(self, customer: Customer) -> None:
        payment = await customer.pay(1000)
        refund = await create_refund(
            customer.client,
            payment.id,
            400,
            reason="customer_request",
            notes="called twice",
            initiated_by_user_id="ada",
        )
        assert refund.id.startswith("refund_")
        assert START < moment(refund.created_at) <= customer.clock.now
        assert refund == pb.Refund(
            id=refund.id,
            payment_id=payment.id,
            subscription_id=customer.subscription_id,
            amount=400,
            currency="USD",
            reason="customer_request",
            status=PENDING,
            credit_policy=pb.REFUND_CREDIT_POLICY_REVERT_UNUSED,
            clawed_back_amount=400,
            notes="called twice",
            initiated_by_user_id="ada",
            created_at=refund.created_at,
            updated_at=refund.created_at,
            ledger_transaction_id=refund.ledger_transaction_id,
        )
        assert await get_refund(customer.client, refund.id) == refund
        assert (await get_payment(customer.client, payment.id)).refunded_amount == 400

    async def test_what_it_takes_back_is_held_and_cannot_be_spent(self, customer: Customer) -> None:
        payment = await customer.pay(1000)
        await create_refund(customer.client, payment.id, 400)
        held = await credit(customer.client, payment.usage_credit_id)
        assert (held.remaining_amount, held.held_amount) == (600, 400)
        assert await customer.owed() == Owed(credit_balance=1000, available_credit=600)
        summary = await credit_summary(customer.client, customer.subscription_id)
        assert (summary.available_amount, summary.held_amount) == (600, 400)
        await customer.use(450)
        await customer.bill()
        spent = await credit(customer.client, payment.usage_credit_id)
        assert (spent.remaining_amount, spent.held_amount) == (0, 400)
        assert await customer.owed() == Owed(invoiced=1300, credit_balance=400)

    async def test_its_entries_are_pending_in_one_transaction(self, customer: Customer) -> None:
        payment = await customer.pay(1000)
        refund = await create_refund(customer.client, payment.id, 400)
        transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
        assert transaction.initiating_source_type == "refund"
        assert transaction.initiating_source_id == refund.id
        refunded, clawed_back = transaction.entries
        assert moves(transaction.entries) == [
            Move("payment_refunded", -400, "refund_clearing", "cash", "pending"),
            Move("credit_balance_adjusted", -400, "credit", "refund_clearing", "pending"),
        ]
        assert sources_of(refunded) == {"payment": payment.id, "refund": refund.id}
        assert sources_of(clawed_back).keys() == {
            "usage_credit",
            "credit_balance_adjustment",
            "refund",
        }
        assert sources_of(clawed_back)["usage_credit"] == payment.usage_credit_id
        assert refunded.debit_account_id == clawed_back.credit_account_id
        assert await account_balances(customer.client) == {"cash": 1000, "credit": -1000}

    async def test_only_money_that_came_in_goes_back(self, customer: Customer) -> None:
        pending = await customer.pay(confirm=False)
        failed = await fail_payment(customer.client, (await customer.pay(confirm=False)).id)
        for payment, status in ((pending, "pending"), (failed, "failed")):
            refusal = await refused(customer, create_refund(customer.client, payment.id, 1))
            assert refusal.kind == ("FAILED_PRECONDITION", "PAYMENT_NOT_SUCCEEDED")
            assert refusal.metadata["payment_id"] == payment.id
            assert refusal.metadata["status"] == status
        await confirm_payment(customer.client, pending.id)
        assert (await create_refund(customer.client, pending.id, 1)).status == PENDING

    async def test_another_currency_and_an_unknown_payment_are_refused(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay()
        create = partial(create_refund, customer.client)
        refusal = await refused(customer, create(payment.id, 1, currency="EUR"))
        assert refusal.kind == ("INVALID_ARGUMENT", "CURRENCY_MISMATCH")
        assert (refusal.metadata["currency"], refusal.metadata["expected"]) == ("EUR", "USD")
        refusal = await refused(customer, create(UNKNOWN_PAYMENT, 1))
        assert refusal.kind == ("NOT_FOUND", "PAYMENT_NOT_FOUND")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("amount", 0), ("amount", -1), ("credit_policy", 4), ("currency", ""), ("request_id", "")],
    )
    async def test_a_field_that_breaks_its_rule_is_named(
        self, customer: Customer, field: str, value: Any
    ) -> None:
        payment = await customer.pay()
        terms = {"amount": 1, field: value}
        refusal = await refused(
            customer,
            create_refund(customer.client, payment.id, **terms),
        )
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == [field]

    async def test_a_repeat_is_the_same_refund(self, customer: Customer) -> None:
        payment = await customer.pay()
        create = partial(create_refund, customer.client, payment.id, request_id="refund-1")
        refunds = await asyncio.gather(*(create(400) for _ in range(CONCURRENT_CALLS)))
        await confirm_refund(customer.client, refunds[0].id)
        async with nothing_written(customer.client, customer.subscription_id):
            assert all(refund == refunds[0] for refund in [*refunds, await create(400)])
        refusal = await refused(customer, create(401))
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


class TestConfirm:
    """A confirmed refund posts what was held."""

    async def test_it_records_what_the_gateway_says_and_posts_the_money(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay(1000)
        pending = await create_refund(customer.client, payment.id, 400)
        customer.clock.advance(hours=5)
        refund = await confirm_refund(
            customer.client,
            pending.id,
            gateway_refund_id="re-1",
            refund_processed_at=START + timedelta(hours=1),
        )
        assert (refund.status, refund.gateway_refund_id) == (SUCCEEDED, "re-1")
        assert moment(refund.refund_processed_at) == START + timedelta(hours=1)
        assert await get_refund(customer.client, pending.id) == refund
        transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
        assert moves(transaction.entries) == [
            Move("payment_refunded", -400, "refund_clearing", "cash"),
            Move("credit_balance_adjusted", -400, "credit", "refund_clearing"),
        ]
        for entry in transaction.entries:
            assert entry.entry_timestamp == pending.created_at
            assert entry.posted_at == refund.updated_at
        (money,) = [
            e for e in await customer.entries() if e.source_refund_id and e.source_payment_id
        ]
        assert sources_of(money) == {"payment": payment.id, "refund": refund.id}
        after = await credit(customer.client, payment.usage_credit_id)
        assert (after.remaining_amount, after.held_amount) == (600, 0)
        assert await customer.owed() == Owed(credit_balance=600, available_credit=600)

    async def test_without_a_time_it_was_now_and_never_in_the_future(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay()
        pending = await create_refund(customer.client, payment.id, 400)
        confirm = partial(confirm_refund, customer.client, pending.id)
        ahead = customer.clock.now + timedelta(minutes=1)
        refusal = await refused(customer, confirm(refund_processed_at=ahead))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["refund_processed_at"]
        refund = await confirm()
        assert refund.refund_processed_at == refund.updated_at

    async def test_told_twice_it_counts_once(self, customer: Customer) -> None:
        payment = await customer.pay()
        pending = await create_refund(customer.client, payment.id, 400)
        confirm = partial(confirm_refund, customer.client, pending.id)
        answers = await asyncio.gather(*(confirm() for _ in range(CONCURRENT_CALLS)))
        assert all(answer == answers[0] for answer in answers)
        async with nothing_written(customer.client, customer.subscription_id):
            for fields in ({}, {"refund_processed_at": START}):
                assert await confirm(**fields) == answers[0]
        assert len(await customer.entries()) == 3

    async def test_with_another_id_of_the_gateway_it_is_refused(self, customer: Customer) -> None:
        payment = await customer.pay()
        pending = await create_refund(customer.client, payment.id, 400)
        confirm = partial(confirm_refund, customer.client, pending.id)
        await confirm(gateway_refund_id="re-1")
        refusal = await refused(customer, confirm(gateway_refund_id="re-2"))
        assert refusal.kind == ("FAILED_PRECONDITION", "REFUND_CONFIRMED_OTHERWISE")
        assert refusal.metadata["refund_id"] == pending.id
        assert (refusal.metadata["gateway_refund_id"], refusal.metadata["told"]) == ("re-1", "re-2")

    async def test_the_same_money_cannot_confirm_two_refunds(self, customer: Customer) -> None:
        payment = await customer.pay()
        first, second = [await create_refund(customer.client, payment.id, 400) for _ in range(2)]
        await confirm_refund(customer.client, first.id, gateway_refund_id="re-1")
        again = confirm_refund(customer.client, second.id, gateway_refund_id="re-1")
        refusal = await refused(customer, again)
        assert refusal.kind == ("ALREADY_EXISTS", "GATEWAY_REFUND_TAKEN")
        assert refusal.metadata["refund_id"] == second.id
        elsewhere = await new_customer(customer.client.for_tenant(new_tenant()), customer.clock)
        theirs = await create_refund(elsewhere.client, (await elsewhere.pay()).id, 1)
        await confirm_refund(elsewhere.client, theirs.id, gateway_refund_id="re-1")

    async def test_it_may_come_after_the_subscription_ended(self, customer: Customer) -> None:
        payment = await customer.pay(5000)
        pending = await create_refund(customer.client, payment.id, 5000)
        await customer.bill()
        await customer.client.cancel(customer.subscription_id, immediately=True)
        refund = await confirm_refund(customer.client, pending.id)
        assert refund.clawed_back_amount == 5000
        assert (await customer.owed()).credit_balance == 0


class TestFail:
    """A failed refund leaves everything as if it had not begun."""

    async def test_what_was_held_is_free_again(self, customer: Customer) -> None:
        payment = await customer.pay(1000)
        before = await customer.owed(), await account_balances(customer.client)
        pending = await create_refund(customer.client, payment.id, 400)
        failed = await fail_refund(customer.client, pending.id)
        assert (failed.status, failed.failure_reason) == (FAILED, "the account is closed")
        assert (failed.gateway_refund_id, failed.HasField("refund_processed_at")) == ("", False)
        assert await get_refund(customer.client, pending.id) == failed
        transaction = await ledger_transaction(customer.client, failed.ledger_transaction_id)
        assert {move.state for move in moves(transaction.entries)} == {"discarded"}
        assert all(e.discarded_at == failed.updated_at for e in transaction.entries)
        after = await credit(customer.client, payment.usage_credit_id)
        assert (after.remaining_amount, after.held_amount) == (1000, 0)
        assert (await customer.owed(), await account_balances(customer.client)) == before

    async def test_what_it_would_have_taken_back_is_no_adjustment(self, customer: Customer) -> None:
        payment = await customer.pay()
        refund = await create_refund(customer.client, payment.id, 400)
        held = await adjustments_of(customer.client, payment.usage_credit_id)
        assert [adjustment.source_refund_id for adjustment in held] == [refund.id]
        await fail_refund(customer.client, refund.id)
        assert await adjustments_of(customer.client, payment.usage_credit_id) == []

    async def test_told_twice_nothing_changes(self, customer: Customer) -> None:
        payment = await customer.pay()
        pending = await create_refund(customer.client, payment.id, 400)
        failed = await fail_refund(customer.client, pending.id)
        async with nothing_written(customer.client, customer.subscription_id):
            assert await fail_refund(customer.client, pending.id) == failed
            assert await fail_refund(customer.client, pending.id, failure_reason="x") == failed

    @pytest.mark.parametrize("ends", [SUCCEEDED, FAILED], ids=["confirmed", "failed"])
    async def test_one_end_excludes_the_other(
        self, customer: Customer, ends: pb.RefundStatus.ValueType
    ) -> None:
        payment = await customer.pay()
        refund = await create_refund(customer.client, payment.id, 400)
        calls = {
            SUCCEEDED: partial(confirm_refund, customer.client, refund.id),
            FAILED: partial(fail_refund, customer.client, refund.id),
        }
        await calls.pop(ends)()
        (other,) = calls.values()
        refusal = await refused(customer, other())
        assert refusal.kind == ("FAILED_PRECONDITION", "REFUND_NOT_PENDING")
        assert refusal.metadata["refund_id"] == refund.id
        assert refusal.metadata["status"] == ("succeeded" if ends == SUCCEEDED else "failed")


async def test_unknown_refunds_are_not_found(customer: Customer) -> None:
    for call in (
        get_refund(customer.client, UNKNOWN_REFUND),
        confirm_refund(customer.client, UNKNOWN_REFUND),
        fail_refund(customer.client, UNKNOWN_REFUND),
    ):
        refusal = await refusal_of(call)
        assert refusal.kind == ("NOT_FOUND", "REFUND_NOT_FOUND")
    refusal = await refusal_of(refunds_of(customer.client, UNKNOWN_SUBSCRIPTION))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")


async def test_refunds_are_listed_in_pages_oldest_first(customer: Customer) -> None:
    first, second = await customer.pay(), await customer.pay()
    pending = await create_refund(customer.client, first.id, 1)
    created = [await create_refund(customer.client, second.id, amount) for amount in (2, 3)]
    confirmed = await confirm_refund(customer.client, created[0].id)
    failed = await fail_refund(customer.client, created[1].id)
    other = await new_customer(customer.client, customer.clock)
    await create_refund(customer.client, (await other.pay()).id, 4)
    found = partial(refunds_of, customer.client, customer.subscription_id)
    assert await found() == [pending, confirmed, failed]
    for filters, expected in (
        ({"payment_id": first.id}, [pending]),
        ({"payment_id": second.id}, [confirmed, failed]),
        ({"status": PENDING}, [pending]),
        ({"status": FAILED, "payment_id": second.id}, [failed]),
        ({"status": SUCCEEDED, "payment_id": first.id}, []),
    ):
        assert await found(**filters) == expected
    page = partial(refunds_page, customer.client, customer.subscription_id)
    rows, token = await page(page_size=2)
    assert (rows, token != "") == ([pending, confirmed], True)
    assert await page(page_size=2, page_token=token) == ([failed], "")
    refusal = await refusal_of(page(page_token=token, payment_id=first.id))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_what_a_confirmation_adds_is_listed_with_its_refund(customer: Customer) -> None:
    payment = await customer.pay(1000)
    refund = await create_refund(
        customer.client, payment.id, 400, credit_policy=pb.REFUND_CREDIT_POLICY_KEEP
    )
    await customer.grant(70)
    customer.clock.advance(days=1)
    confirmed = await confirm_refund(customer.client, refund.id)
    entries = await customer.entries()
    assert moves(entries) == [
        Move("payment_recognized", 1000, "cash", "credit"),
        Move("payment_refunded", -400, "refund_clearing", "cash"),
        Move("refund_absorbed", 400, "refunds_and_allowances", "refund_clearing"),
        Move("credit_grant_recognized", 70, "promotional_expense", "credit"),
    ]
    _, refunded, absorbed, _ = entries
    assert refunded.ledger_transaction_id == absorbed.ledger_transaction_id
    assert refunded.entry_timestamp == confirmed.created_at
    assert absorbed.entry_timestamp == refunded.posted_at == confirmed.updated_at
    assert sources_of(absorbed) == {"refund": refund.id}
