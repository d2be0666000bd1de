"""Payments: begun, confirmed, failed; told twice, late and out of order, they count once."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import grpc.aio
import pytest

from billing.v1 import payment_pb2 as pb
from billing.v1 import usage_credit_pb2
from tests.factories.billing_runs import APRIL, MAY
from tests.factories.client import BillingClient, error_info, moment, new_tenant
from tests.factories.clock import START, FakeClock
from tests.factories.credits import confirm_payment, create_payment, credit, credits_of
from tests.factories.customers import Customer, Owed, new_customer
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    nothing_written,
    sources_of,
)
from tests.factories.payments import fail_payment, get_payment, payments_of, payments_page
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_PAYMENT = "payment_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
PENDING, SUCCEEDED, FAILED = (
    pb.PAYMENT_STATUS_PENDING,
    pb.PAYMENT_STATUS_SUCCEEDED,
    pb.PAYMENT_STATUS_FAILED,
)
INSTANT = timedelta(microseconds=1)
CONCURRENT_CALLS = 5


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def begin(customer: Customer, amount: int = 1000, **terms: Any) -> pb.Payment:
    """A payment that the processor has not answered yet."""
    return await customer.pay(amount, confirm=False, **terms)


async def refused(customer: Customer, call: Any) -> Refusal:
    """How a call is refused; fails unless it leaves everything as it was."""
    async with nothing_written(customer.client, customer.subscription_id):
        return await refusal_of(call)


class TestCreate:
    """Nothing is posted before the confirmation."""

    async def test_a_payment_begins_pending_and_makes_no_credit(self, customer: Customer) -> None:
        payment = await begin(
            customer,
            payment_method_details={"card": "visa ending 4242"},
            metadata={"order": "7"},
            invoice_id="inv-9",
        )
        assert payment.id.startswith("payment_")
        assert START < moment(payment.created_at) <= customer.clock.now
        assert payment == pb.Payment(
            id=payment.id,
            subscription_id=customer.subscription_id,
            purpose=pb.PAYMENT_PURPOSE_TOP_UP,
            amount=1000,
            currency="USD",
            status=PENDING,
            invoice_id="inv-9",
            payment_method_details={"card": "visa ending 4242"},
            metadata={"order": "7"},
            created_at=payment.created_at,
            updated_at=payment.created_at,
        )
        assert await get_payment(customer.client, payment.id) == payment
        assert await customer.entries() == []
        assert await credits_of(customer.client, customer.subscription_id) == []
        assert await customer.owed() == Owed()

    async def test_a_settlement_names_its_period_and_a_top_up_has_none(
        self, customer: Customer
    ) -> None:
        payment = await begin(customer, billing_period_id=customer.period_id)
        assert payment.purpose == pb.PAYMENT_PURPOSE_PERIOD_SETTLEMENT
        assert payment.billing_period_id == customer.period_id
        other = await new_customer(customer.client, customer.clock)
        settlement = pb.PAYMENT_PURPOSE_PERIOD_SETTLEMENT
        for purpose, period_id in (
            (settlement, ""),
            (settlement, UNKNOWN_PERIOD),
            (settlement, other.period_id),
            (pb.PAYMENT_PURPOSE_TOP_UP, customer.period_id),
        ):
            refusal = await refused(
                customer, begin(customer, purpose=purpose, billing_period_id=period_id)
            )
            assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
            assert refusal.fields == ["billing_period_id"]

    async def test_another_currency_and_an_unknown_subscription_are_refused(
        self, customer: Customer
    ) -> None:
        refusal = await refused(customer, begin(customer, currency="EUR"))
        assert refusal.kind == ("INVALID_ARGUMENT", "CURRENCY_MISMATCH")
        assert (refusal.metadata["currency"], refusal.metadata["expected"]) == ("EUR", "USD")
        refusal = await refusal_of(create_payment(customer.client, UNKNOWN_SUBSCRIPTION, 1))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")

    async def test_a_cancelled_subscription_can_settle_but_not_top_up(
        self, customer: Customer
    ) -> None:
        await customer.client.cancel(customer.subscription_id, immediately=True)
        refusal = await refused(customer, begin(customer))
        assert refusal.kind == ("FAILED_PRECONDITION", "SUBSCRIPTION_ALREADY_CANCELLED")
        await begin(customer, billing_period_id=customer.period_id)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("amount", 0),
            ("amount", -1),
            ("currency", "usd"),
            ("purpose", pb.PAYMENT_PURPOSE_UNSPECIFIED),
            ("purpose", 3),
            ("billing_period_id", "march"),
            ("invoice_id", "x" * 201),
            ("request_id", ""),
        ],
    )
    async def test_a_field_that_breaks_its_rule_is_named(
        self, customer: Customer, field: str, value: Any
    ) -> None:
        refusal = await refused(customer, begin(customer, **{field: value}))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == [field]

    async def test_a_repeat_is_the_same_payment(self, customer: Customer) -> None:
        create = partial(begin, customer, request_id="payment-1")
        payments = await asyncio.gather(*(create() for _ in range(CONCURRENT_CALLS)))
        await confirm_payment(customer.client, payments[0].id)
        assert all(payment == payments[0] for payment in [*payments, await create()])
        refusal = await refused(customer, create(amount=1001))
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


class TestConfirm:
    """A confirmed payment is one credit, and one entry that recognizes it."""

    async def test_a_top_up_becomes_spendable_credit(self, customer: Customer) -> None:
        pending = await begin(customer)
        customer.clock.advance(days=1)
        payment = await confirm_payment(
            customer.client, pending.id, processor_transaction_id="ch-1"
        )
        assert (payment.status, payment.processor_transaction_id) == (SUCCEEDED, "ch-1")
        assert (payment.settled_amount, payment.refunded_amount) == (0, 0)
        assert payment.created_at == pending.created_at
        assert payment.processed_at == payment.updated_at
        assert await get_payment(customer.client, payment.id) == payment
        (made,) = await credits_of(customer.client, customer.subscription_id)
        assert made == usage_credit_pb2.UsageCredit(
            id=payment.usage_credit_id,
            subscription_id=customer.subscription_id,
            credit_type=usage_credit_pb2.USAGE_CREDIT_TYPE_PAYMENT_TOP_UP,
            source_reference_id=payment.id,
            issued_amount=1000,
            currency="USD",
            covers_charges=True,
            effective_at=payment.processed_at,
            issued_at=payment.processed_at,
            initial_status="granted_active",
            status=usage_credit_pb2.USAGE_CREDIT_STATUS_AVAILABLE,
            remaining_amount=1000,
            updated_at=payment.processed_at,
        )
        assert await customer.owed() == Owed(credit_balance=1000, available_credit=1000)

    async def test_it_is_recognized_by_one_posted_entry_of_its_own_transaction(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay()
        (entry,) = await customer.entries()
        assert moves([entry]) == [Move("payment_recognized", 1000, "cash", "credit")]
        assert sources_of(entry) == {
            "payment": payment.id,
            "usage_credit": payment.usage_credit_id,
        }
        assert entry.credit_account_id == payment.usage_credit_id.replace("credit_", "account_")
        assert entry.currency == "USD"
        assert entry.entry_timestamp == entry.posted_at == payment.updated_at
        transaction = await ledger_transaction(customer.client, entry.ledger_transaction_id)
        assert transaction.initiating_source_type == "payment"
        assert transaction.initiating_source_id == payment.id
        assert list(transaction.entries) == [entry]
        assert await account_balances(customer.client) == {"cash": 1000, "credit": -1000}

    async def test_what_the_processor_tells_is_added(self, customer: Customer) -> None:
        pending = await begin(customer, payment_method_details={"card": "visa", "by": "web"})
        payment = await confirm_payment(
            customer.client,
            pending.id,
            processed_at=START - timedelta(hours=3),
            payment_method_details={"card": "visa ending 4242", "bank": "N"},
        )
        assert dict(payment.payment_method_details) == {
            "card": "visa ending 4242",
            "by": "web",
            "bank": "N",
        }
        assert moment(payment.processed_at) == START - timedelta(hours=3)
        made = await credit(customer.client, payment.usage_credit_id)
        assert made.effective_at == made.issued_at == payment.updated_at

    async def test_the_future_is_refused(self, customer: Customer) -> None:
        pending = await begin(customer)
        confirm = partial(confirm_payment, customer.client, pending.id)
        ahead = customer.clock.now + timedelta(minutes=1)
        refusal = await refused(customer, confirm(processed_at=ahead))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["processed_at"]
        assert ahead.isoformat() in refusal.message
        assert (await confirm(processed_at=customer.clock.now)).status == SUCCEEDED

    async def test_told_twice_it_counts_once(self, customer: Customer) -> None:
        payment = await customer.pay()
        async with nothing_written(customer.client, customer.subscription_id):
            for fields in ({}, {"processed_at": START}, {"payment_method_details": {"a": "b"}}):
                assert await confirm_payment(customer.client, payment.id, **fields) == payment

    async def test_told_several_times_at_once_it_counts_once(self, customer: Customer) -> None:
        pending = await begin(customer)
        answers = await asyncio.gather(
            *(confirm_payment(customer.client, pending.id) for _ in range(CONCURRENT_CALLS))
        )
        assert all(answer == answers[0] for answer in answers)
        assert [entry.amount for entry in await customer.entries()] == [1000]

    async def test_a_request_id_stands_for_one_content(self, customer: Customer) -> None:
        pending = await begin(customer)
        confirm = partial(confirm_payment, customer.client, pending.id, request_id="confirm-1")
        assert await confirm() == await confirm()
        refusal = await refused(customer, confirm(processor_transaction_id="other"))
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")

    async def test_with_another_id_of_the_processor_it_is_refused(self, customer: Customer) -> None:
        pending = await begin(customer)
        confirm = partial(confirm_payment, customer.client, pending.id)
        await confirm(processor_transaction_id="ch-1")
        refusal = await refused(customer, confirm(processor_transaction_id="ch-2"))
        assert refusal.kind == ("FAILED_PRECONDITION", "PAYMENT_CONFIRMED_OTHERWISE")
        assert refusal.metadata["payment_id"] == pending.id
        assert refusal.metadata["processor_transaction_id"] == "ch-1"
        assert refusal.metadata["told"] == "ch-2"

    async def test_the_same_money_cannot_confirm_two_payments(self, customer: Customer) -> None:
        first, second = await begin(customer), await begin(customer)
        await confirm_payment(customer.client, first.id, processor_transaction_id="ch-1")
        confirm = partial(confirm_payment, customer.client, second.id)
        refusal = await refused(customer, confirm(processor_transaction_id="ch-1"))
        assert refusal.kind == ("ALREADY_EXISTS", "PROCESSOR_TRANSACTION_TAKEN")
        assert refusal.metadata["payment_id"] == second.id
        assert refusal.metadata["processor_transaction_id"] == "ch-1"
        assert (await confirm(processor_transaction_id="ch-2")).status == SUCCEEDED

    async def test_of_two_that_claim_the_same_money_at_once_one_wins(
        self, customer: Customer
    ) -> None:
        other = await new_customer(customer.client, customer.clock)
        pending = [await begin(customer), await begin(other)]
        confirm = partial(confirm_payment, customer.client, processor_transaction_id="ch-1")
        answers = await asyncio.gather(
            *(confirm(each.id) for each in pending), return_exceptions=True
        )
        (failed,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert error_info(failed).reason == "PROCESSOR_TRANSACTION_TAKEN"
        assert [entry.amount for entry in (*await customer.entries(), *await other.entries())] == [
            1000
        ]

    async def test_the_processors_ids_are_of_one_tenant_and_mode(self, customer: Customer) -> None:
        for caller in (
            customer.client,
            customer.client.in_test_mode(),
            customer.client.for_tenant(new_tenant()),
        ):
            owner = await new_customer(caller, customer.clock)
            pending = await begin(owner)
            payment = await confirm_payment(caller, pending.id, processor_transaction_id="ch-1")
            assert payment.status == SUCCEEDED

    async def test_it_may_come_late(self, customer: Customer) -> None:
        pending = await begin(customer)
        await customer.bill()
        customer.clock.set(MAY)
        await customer.client.cancel(customer.subscription_id, immediately=True)
        payment = await confirm_payment(customer.client, pending.id, processed_at=APRIL)
        assert payment.status == SUCCEEDED
        made = await credit(customer.client, payment.usage_credit_id)
        assert made.remaining_amount == 1000
        assert moment(made.effective_at) > MAY


class TestFail:
    """A failed payment never comes."""

    async def test_it_posts_nothing_and_says_why(self, customer: Customer) -> None:
        pending = await begin(customer)
        failed = await fail_payment(customer.client, pending.id)
        assert (failed.status, failed.failure_reason) == (FAILED, "card_declined")
        assert not failed.usage_credit_id
        assert moment(failed.updated_at) > moment(pending.updated_at)
        assert await get_payment(customer.client, pending.id) == failed
        assert await customer.entries() == []
        assert await credits_of(customer.client, customer.subscription_id) == []

    async def test_told_twice_nothing_changes(self, customer: Customer) -> None:
        pending = await begin(customer)
        failed = await fail_payment(customer.client, pending.id)
        async with nothing_written(customer.client, customer.subscription_id):
            for fields in ({}, {"failure_reason": "other"}, {"request_id": ""}):
                assert await fail_payment(customer.client, pending.id, **fields) == failed

    async def test_a_failed_payment_cannot_be_confirmed(self, customer: Customer) -> None:
        pending = await begin(customer)
        await fail_payment(customer.client, pending.id)
        refusal = await refused(customer, confirm_payment(customer.client, pending.id))
        assert refusal.kind == ("FAILED_PRECONDITION", "PAYMENT_NOT_PENDING")
        assert refusal.metadata["payment_id"] == pending.id
        assert refusal.metadata["status"] == "failed"

    async def test_a_confirmed_payment_cannot_fail(self, customer: Customer) -> None:
        payment = await customer.pay()
        refusal = await refused(customer, fail_payment(customer.client, payment.id))
        assert refusal.kind == ("FAILED_PRECONDITION", "PAYMENT_NOT_PENDING")
        assert refusal.metadata["status"] == "succeeded"

    async def test_one_that_is_told_both_at_once_is_one_of_them(self, customer: Customer) -> None:
        pending = await begin(customer)
        answers = await asyncio.gather(
            confirm_payment(customer.client, pending.id),
            fail_payment(customer.client, pending.id),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, BaseException) for answer in answers) == 1
        payment = await get_payment(customer.client, pending.id)
        assert payment in answers
        made = await credits_of(customer.client, customer.subscription_id)
        assert len(made) == len(await customer.entries()) == (payment.status == SUCCEEDED)


async def test_unknown_payments_are_not_found(customer: Customer) -> None:
    for call in (
        get_payment(customer.client, UNKNOWN_PAYMENT),
        confirm_payment(customer.client, UNKNOWN_PAYMENT),
        fail_payment(customer.client, UNKNOWN_PAYMENT),
    ):
        refusal = await refusal_of(call)
        assert refusal.kind == ("NOT_FOUND", "PAYMENT_NOT_FOUND")
    refusal = await refusal_of(payments_of(customer.client, UNKNOWN_SUBSCRIPTION))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")


async def test_payments_are_listed_in_pages_oldest_first(customer: Customer) -> None:
    settlement: dict[str, Any] = {"billing_period_id": customer.period_id}
    pending = await begin(customer, **settlement)
    failed = await fail_payment(customer.client, (await begin(customer)).id)
    paid = await customer.pay(**settlement)
    await begin(await new_customer(customer.client, customer.clock))
    found = partial(payments_of, customer.client, customer.subscription_id)
    assert await found() == [pending, failed, paid]
    for filters, expected in (
        ({"status": PENDING}, [pending]),
        ({"status": FAILED}, [failed]),
        ({"status": SUCCEEDED}, [paid]),
        (settlement, [pending, paid]),
        ({**settlement, "status": SUCCEEDED}, [paid]),
        ({"billing_period_id": UNKNOWN_PERIOD}, []),
    ):
        assert await found(**filters) == expected
    page = partial(payments_page, customer.client, customer.subscription_id)
    first, token = await page(page_size=2)
    assert (first, token != "") == ([pending, failed], True)
    assert await page(page_size=2, page_token=token) == ([paid], "")
    refusal = await refusal_of(page(page_token=token, status=PENDING))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
