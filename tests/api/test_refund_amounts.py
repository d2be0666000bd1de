"""All refunds of a payment together, pending and confirmed, are not more than the payment."""

import asyncio
from functools import partial

import pytest

from billing.v1 import refund_pb2 as pb
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credits import confirm_refund, create_refund, fail_refund
from tests.factories.customers import Customer, Owed, new_customer
from tests.factories.ledger_moves import account_balances, nothing_written
from tests.factories.payments import get_payment
from tests.factories.refusals import refusal_of

CONCURRENT_CALLS = 5


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def test_a_payment_is_refunded_in_parts_up_to_the_whole(customer: Customer) -> None:
    payment = await customer.pay(1000)
    for amount, refunded in ((300, 300), (250, 550), (450, 1000)):
        refund = await create_refund(customer.client, payment.id, amount)
        assert (await get_payment(customer.client, payment.id)).refunded_amount == refunded
        await confirm_refund(customer.client, refund.id)
        assert (await get_payment(customer.client, payment.id)).refunded_amount == refunded
        assert await account_balances(customer.client) == {
            "cash": 1000 - refunded,
            "credit": refunded - 1000,
        }
        left = 1000 - refunded
        assert await customer.owed() == Owed(credit_balance=left, available_credit=left)


async def test_more_than_the_payment_is_refused_with_the_figures(customer: Customer) -> None:
    payment = await customer.pay(1000)
    await confirm_refund(
        customer.client, (await create_refund(customer.client, payment.id, 300)).id
    )
    await create_refund(customer.client, payment.id, 250)
    async with nothing_written(customer.client, customer.subscription_id):
        refusal = await refusal_of(create_refund(customer.client, payment.id, 451))
    assert refusal.kind == ("FAILED_PRECONDITION", "REFUND_EXCEEDS_PAYMENT")
    figures = {key: refusal.metadata[key] for key in ("amount", "paid", "refunded")}
    assert figures == {"amount": "451", "paid": "1000", "refunded": "550"}
    assert refusal.metadata["refundable"] == "450"
    assert refusal.metadata["payment_id"] == payment.id


async def test_a_failed_refund_makes_room_again(customer: Customer) -> None:
    payment = await customer.pay(1000)
    first = await create_refund(customer.client, payment.id, 1000)
    await fail_refund(customer.client, first.id)
    assert (await get_payment(customer.client, payment.id)).refunded_amount == 0
    assert (await create_refund(customer.client, payment.id, 1000)).clawed_back_amount == 1000


@pytest.mark.parametrize("policy", pb.RefundCreditPolicy.values())
@pytest.mark.parametrize(("amount", "fitting"), [(600, 1), (300, 3)])
async def test_of_refunds_at_the_same_time_only_so_many_fit(
    customer: Customer,
    policy: pb.RefundCreditPolicy.ValueType,
    amount: int,
    fitting: int,
) -> None:
    payment = await customer.pay(1000)
    create = partial(create_refund, customer.client, payment.id, credit_policy=policy)
    answers = await asyncio.gather(
        *(create(amount) for _ in range(CONCURRENT_CALLS)), return_exceptions=True
    )
    refunds = [answer for answer in answers if isinstance(answer, pb.Refund)]
    assert len(refunds) == fitting
    assert (await get_payment(customer.client, payment.id)).refunded_amount == fitting * amount
    refusal = await refusal_of(create(amount))
    assert refusal.kind == ("FAILED_PRECONDITION", "REFUND_EXCEEDS_PAYMENT")
