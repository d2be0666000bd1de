"""The current period's usage and the spendable credits, on the subscription itself."""

from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import subscription_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, create_refund

MOMENT = timedelta(microseconds=1)


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 1000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=1000)


def summary_of(
    subscription: subscription_pb2.Subscription,
) -> list[tuple[str, str, tuple[int, int, int]]]:
    """Name and quantity of each meter of the current period, raw usage, credits and net."""
    return [
        (
            row.usage_meter_name,
            row.total_quantity.value,
            (row.total_raw_usage_amount, row.credits_applied_amount, row.net_billed_amount),
        )
        for row in subscription.current_period_usage_summary
    ]


def available_of(subscription: subscription_pb2.Subscription) -> tuple[int, str, int]:
    """What can be spent, the currency, and of how many credits."""
    summary = subscription.available_credits_summary
    return summary.total_remaining_amount, summary.currency, summary.credit_count


async def test_it_shows_every_meter_of_the_plan_even_unused(metered: CreditedSubscription) -> None:
    """003: a summary of the current period; new periods begin with zeros."""
    subscription = await metered.get()
    assert summary_of(subscription) == [
        ("calls", "0", (0, 0, 0)),
        ("tokens", "0", (0, 0, 0)),
    ]
    ids = [
        (row.usage_meter_id, row.component_id) for row in subscription.current_period_usage_summary
    ]
    assert ids == list(zip(metered.meter_ids, metered.component_ids, strict=True))
    assert available_of(subscription) == (0, "USD", 0)


async def test_it_shows_usage_at_once_and_credits_once_they_are_applied(
    metered: CreditedSubscription,
) -> None:
    await metered.grant(50, expires_at=february(15))
    await metered.use(70, february(10), metered.calls)
    await metered.use(9, february(16), metered.tokens)
    before = await metered.get()
    assert summary_of(before) == [("calls", "70", (70, 0, 70)), ("tokens", "9", (9, 0, 9))]

    await metered.grant(30)  # for the past: what is over pays first

    assert summary_of(await metered.get()) == [
        ("calls", "70", (70, 50, 20)),
        ("tokens", "9", (9, 0, 9)),
    ]


async def test_after_a_run_it_is_of_the_next_period(metered: CreditedSubscription) -> None:
    await metered.grant(100)
    await metered.use(70, february(10))
    await metered.bill()
    assert summary_of(await metered.get()) == [
        ("calls", "0", (0, 0, 0)),
        ("tokens", "0", (0, 0, 0)),
    ]
    await metered.use(5, MARCH, metered.tokens)
    assert summary_of(await metered.get())[1] == ("tokens", "5", (5, 0, 5))


async def test_available_credits_are_those_that_can_be_spent(metered: CreditedSubscription) -> None:
    period_id = (await metered.get()).current_period_id
    await metered.grant(100)
    await metered.grant(30, expires_at=february(15))
    await metered.grant(7, billing_period_id=period_id)
    await metered.grant(1, effective_at=MARCH)
    payment = await create_payment(metered.client, metered.id, 1000)
    assert available_of(await metered.get()) == (1138, "USD", 5)

    await create_refund(metered.client, payment.id, 400)
    assert available_of(await metered.get()) == (738, "USD", 5)
    metered.clock.set(february(15) - MOMENT)  # the service looks a moment later
    assert available_of(await metered.get()) == (708, "USD", 4)
    await metered.use(50, february(16))
    assert available_of(await metered.get()) == (708, "USD", 4), "the run has not come"
    await metered.bill()  # the usage takes 7 and 43, the base price all that was paid
    assert available_of(await metered.get()) == (58, "USD", 2)
    balance = await metered.client.balance(metered.id)
    assert balance.available_credit_amount == 58


async def test_only_one_subscription_read_alone_tells_it(metered: CreditedSubscription) -> None:
    await metered.grant(100)
    await metered.use(70, february(10))
    answer = await metered.client.subscriptions.ListSubscriptions(
        subscription_pb2.ListSubscriptionsRequest(tenant_id=metered.client.tenant_id)
    )
    [row] = answer.subscriptions
    assert not row.current_period_usage_summary
    assert not row.HasField("available_credits_summary")


async def test_cancelled_it_shows_the_last_period(metered: CreditedSubscription) -> None:
    await metered.grant(50)
    await metered.use(70, february(10))
    await metered.client.cancel(metered.id, immediately=True)
    assert summary_of(await metered.get())[0] == ("calls", "70", (70, 50, 20))


async def test_a_payment_of_the_period_is_no_credit(metered: CreditedSubscription) -> None:
    await metered.use(70, february(10))
    period_id = (await metered.get()).current_period_id
    await create_payment(metered.client, metered.id, 70, billing_period_id=period_id)
    assert summary_of(await metered.get())[0] == ("calls", "70", (70, 0, 70))
