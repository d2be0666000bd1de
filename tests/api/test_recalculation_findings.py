"""What random histories of corrections and estimates brought to light, told by hand."""

from datetime import timedelta

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.calculations import amend, estimate
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import february, subscribe_credited
from tests.factories.credits import create_payment


async def test_what_a_payment_paid_too_much_is_used_before_credits(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """A promotion must not pay what a payment covers: it would come back as paid credit."""
    metered = await subscribe_credited(client, clock, invoicing, is_realtime=True)
    used = await metered.use(100, february(2))
    period_id = (await metered.get()).current_period_id
    await create_payment(client, metered.id, 100, billing_period_id=period_id)
    await amend(client, used.usage_event_id, "40")
    promotion = await metered.grant(60)
    await metered.use(50, february(3))
    assert (await metered.now(promotion)).remaining_amount == 60
    await metered.bill()
    assert (await metered.now(promotion)).remaining_amount == 60
    assert (await client.balance(metered.id)).credit_balance_amount == 60 + 10


async def test_an_estimate_applies_nothing(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Where credits went is told by what is posted."""
    metered = await subscribe_credited(client, clock, invoicing)
    granted = await metered.grant(30)
    await metered.use(20, february(2))
    await estimate(client, metered.id)
    assert await metered.applications() == []
    assert (await metered.now(granted)).held_amount == 20
    await metered.bill()
    assert [each.amount_applied for each in await metered.applications()] == [20]


async def test_a_correction_takes_nothing_from_credits_that_still_fit(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """A credit that paid later usage before there was an end in between keeps paying that."""
    metered = await subscribe_credited(client, clock, invoicing, is_realtime=True)
    evergreen = await metered.grant(100)
    clock.set(february(2))
    await metered.send(metered.event(10, february(2) + timedelta(minutes=54)))
    short = await metered.grant(
        10,
        effective_at=february(1) + timedelta(hours=2),
        expires_at=february(2) + timedelta(minutes=30),
    )
    await metered.use(10, february(1) + timedelta(hours=3))
    other = await metered.use(5, february(3), metered.tokens)
    assert [(await metered.now(each)).remaining_amount for each in (evergreen, short)] == [85, 0]
    await amend(client, other.usage_event_id, "4")
    assert (await client.balance(metered.id)).outstanding_amount == 0
    assert [(await metered.now(each)).remaining_amount for each in (evergreen, short)] == [86, 0]
