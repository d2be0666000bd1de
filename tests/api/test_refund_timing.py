"""When credits are expired does not matter to refunds: the result is the same."""

from datetime import timedelta

import pytest

from billing.v1 import refund_pb2 as pb
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.credits import (
    confirm_refund,
    create_refund,
    credits_of,
    expire_credits,
    fail_refund,
)
from tests.factories.customers import Customer, Owed, new_customer

DAY = timedelta(days=1)
REVERT_ALL = pb.REFUND_CREDIT_POLICY_REVERT_ALL

EXPIRED_BEFORE = pytest.mark.parametrize(
    "is_expired_before", [False, True], ids=["not expired before", "expired before"]
)
"""Whether the expiry of credits runs between the expiry's moment and the refund's end."""


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March, without a base price."""
    return await new_customer(client, clock, base_price_amount=0)


async def to_the_end_of(customer: Customer, *, is_expired_before: bool) -> None:
    """Go beyond the expiry of the promotion."""
    customer.clock.set(START + 2 * DAY)
    if is_expired_before:
        await expire_credits(customer.client)


async def left_of_credits(customer: Customer) -> list[int]:
    rows = await credits_of(customer.client, customer.subscription_id)
    return [row.remaining_amount for row in rows]


@EXPIRED_BEFORE
async def test_of_a_confirmed_reversal(customer: Customer, *, is_expired_before: bool) -> None:
    """While the settlement stood, there was nothing for the promotion to pay."""
    cost = await customer.use(45)
    payment = await customer.pay(cost, billing_period_id=customer.period_id)
    await customer.grant(100, effective_at=MARCH, expires_at=START + DAY)
    refund = await create_refund(customer.client, payment.id, cost, credit_policy=REVERT_ALL)
    await to_the_end_of(customer, is_expired_before=is_expired_before)
    await confirm_refund(customer.client, refund.id)
    await customer.bill()
    assert await left_of_credits(customer) == [0, 0]
    assert await customer.owed() == Owed(invoiced=cost)


@EXPIRED_BEFORE
async def test_of_a_failed_hold(customer: Customer, *, is_expired_before: bool) -> None:
    """While the refund held the payment's credit, only the promotion could pay."""
    payment = await customer.pay(100)
    await customer.grant(100, expires_at=START + DAY, priority=9)
    customer.clock.set(START + DAY / 2)
    cost = await customer.use(45)
    refund = await create_refund(customer.client, payment.id, 100)
    await to_the_end_of(customer, is_expired_before=is_expired_before)
    await fail_refund(customer.client, refund.id)
    await customer.bill()
    assert await left_of_credits(customer) == [100, 0]
    assert await customer.owed() == Owed(credit_balance=100, available_credit=100)
    assert cost == 90
