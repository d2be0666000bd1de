"""Why something is carried to credit: what the other lines are below zero, and the surplus.

Nothing is priced below zero yet, so these tests take away the check that says so.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from billing.config import Settings
from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import charge_pb2, explanation_pb2
from tests.factories.billing_runs import FEBRUARY
from tests.factories.calculations import amend, recalculate, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, credits_of
from tests.factories.explanations import explain_balance, explained_lines
from tests.factories.own_service import allow_negative_prices, own_service, publish_past_the_service

CARRIED = charge_pb2.CHARGE_TYPE_CARRIED


@pytest.fixture(scope="module")
async def own(
    postgres_url: str,
    service_settings: Settings,
    session_clock: FakeClock,
    signing_key: DevelopmentKey,
) -> AsyncIterator[tuple[BillingClient, str]]:
    """A service whose database has nothing against negative prices, and its URL."""
    async with own_service(postgres_url, service_settings, session_clock, signing_key) as (
        client,
        url,
    ):
        await allow_negative_prices(url)
        yield client, url


@pytest.fixture
async def discounted(
    own: tuple[BillingClient, str], clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription at a base price of -500."""
    caller, url = own
    client = BillingClient(caller.channel, caller.key)
    credited = await subscribe_credited(client, clock, invoicing)
    await publish_past_the_service(url, client, credited.plan_id, base_price_amount=-500)
    subscription = await client.subscribe(credited.plan_id, started_at=FEBRUARY)
    return replace(credited, id=subscription.id)


async def carried_lines(
    credited: CreditedSubscription,
) -> list[explanation_pb2.CarriedExplanation]:
    """The explanations of all carried lines; the other lines add up too."""
    explained = await explained_lines(credited.client, credited.id)
    return [each.carried for each in explained if each.charge.charge_type == CARRIED]


async def surplus_ids(credited: CreditedSubscription) -> list[str]:
    return [each.id for each in await credits_of(credited.client, credited.id)]


async def test_what_a_run_carries_is_a_surplus_credit(discounted: CreditedSubscription) -> None:
    await discounted.use(300, february(10))
    await discounted.bill()
    [carried] = await carried_lines(discounted)
    assert (carried.lines_before_amount, carried.lines_after_amount) == (0, -200)
    assert [carried.surplus_usage_credit_id] == await surplus_ids(discounted)
    assert (carried.surplus_amount, carried.paid_before_amount) == (200, 0)
    assert (await explain_balance(discounted.client, discounted.id)).closing.net_amount == 200


async def test_what_payments_had_paid_is_surplus_too(discounted: CreditedSubscription) -> None:
    await discounted.use(300, february(10))
    period_id = (await discounted.get()).current_period_id
    await create_payment(discounted.client, discounted.id, 120, billing_period_id=period_id)
    await discounted.bill()
    # What is paid of the period later is no part of it.
    [carried] = await carried_lines(discounted)
    assert (carried.carried_after_amount, carried.paid_before_amount) == (200, 120)
    assert carried.surplus_amount == 320


async def test_what_a_recalculation_carries(discounted: CreditedSubscription) -> None:
    used = await discounted.use(600, february(10))
    result = await discounted.bill()
    assert result.total_amount == 100
    await void_event(discounted.client, used.usage_event_id)
    await recalculate(discounted.client, discounted.id, result.billing_period_id)
    [carried] = await carried_lines(discounted)
    assert (carried.lines_before_amount, carried.lines_after_amount) == (100, -500)
    assert (carried.carried_before_amount, carried.carried_after_amount) == (0, 500)
    # 100 were owed and are not any more.
    assert carried.surplus_amount == 500
    assert [carried.surplus_usage_credit_id] == await surplus_ids(discounted)


async def test_what_a_recalculation_carries_no_more(discounted: CreditedSubscription) -> None:
    used = await discounted.use(300, february(10))
    result = await discounted.bill()
    await amend(discounted.client, used.usage_event_id, "550")
    await recalculate(discounted.client, discounted.id, result.billing_period_id)
    first, second = await carried_lines(discounted)
    assert (first.carried_before_amount, first.carried_after_amount) == (0, 200)
    assert (second.carried_before_amount, second.carried_after_amount) == (200, 0)
    assert second.surplus_usage_credit_id == ""


async def test_payments_that_are_released_are_told(discounted: CreditedSubscription) -> None:
    used = await discounted.use(600, february(10))
    result = await discounted.bill()
    await create_payment(
        discounted.client, discounted.id, 100, billing_period_id=result.billing_period_id
    )
    await void_event(discounted.client, used.usage_event_id)
    await recalculate(discounted.client, discounted.id, result.billing_period_id)
    [carried] = await carried_lines(discounted)
    assert (carried.released_amount, carried.surplus_amount) == (100, 500)
