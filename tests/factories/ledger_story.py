"""A subscription with a bit of everything in its ledger, and the moments that it passed through."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing.v1 import refund_pb2
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.client import BillingClient, component
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credits import (
    confirm_refund,
    create_payment,
    create_refund,
    expire_credits,
    fail_refund,
    grant_credit,
)

REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
KEEP = refund_pb2.REFUND_CREDIT_POLICY_KEEP
DAY = timedelta(days=1)
FEE = 1000


@dataclass
class LedgerStory:
    """What happened: a fee of 1000 a month from 1 March, 2 a unit; told until 8 April.

    ``pending_refund_id`` is confirmed by nobody, ``failed_refund_id`` left discarded entries.
    """

    client: BillingClient
    subscription_id: str
    march_id: str
    meter_id: str
    april_id: str = ""
    promotion_id: str = ""
    top_up_id: str = ""
    pending_refund_id: str = ""
    failed_refund_id: str = ""
    moments: list[datetime] = field(default_factory=list)


async def tell_story(
    client: BillingClient, clock: FakeClock, *, currency: str = "USD"
) -> LedgerStory:
    """Play it; the clock stands at 8 April then."""
    meter_id = await client.create_meter(f"meter-{currency.lower()}")
    plan_id = await client.create_plan(
        name=f"Plan {currency}",
        currency=currency,
        base_price_amount=FEE,
        components=[component(meter_id, unit_price="2")],
    )
    subscription = await client.subscribe(plan_id, started_at=MARCH)
    story = LedgerStory(client, subscription.id, subscription.current_period_id, meter_id)
    await _march(story, clock, currency)
    await _april(story, clock, currency)
    return story


async def _march(story: LedgerStory, clock: FakeClock, currency: str) -> None:
    client, sub = story.client, story.subscription_id
    story.moments.append(clock.now - DAY)
    promotion = await grant_credit(
        client, sub, 300, currency=currency, effective_at=MARCH, expires_at=START + 5 * DAY
    )
    story.promotion_id = promotion.id
    await grant_credit(client, sub, 30, currency=currency, effective_at=APRIL + DAY)
    await client.use(sub, story.meter_id, "100", clock.now)
    await client.use(sub, story.meter_id, "0", clock.now)
    _pass(story, clock)
    top_up = await create_payment(client, sub, 500, currency=currency)
    story.top_up_id = top_up.id
    settlement = await create_payment(
        client, sub, 100, currency=currency, billing_period_id=story.march_id
    )
    _pass(story, clock)
    failed = await create_refund(client, top_up.id, 50, currency=currency)
    kept = await create_refund(client, top_up.id, 30, currency=currency, credit_policy=KEEP)
    taken = await create_refund(
        client, settlement.id, 90, currency=currency, credit_policy=REVERT_ALL
    )
    story.failed_refund_id = failed.id
    _pass(story, clock)
    await fail_refund(client, failed.id)
    await confirm_refund(client, kept.id)
    await confirm_refund(client, taken.id)
    _pass(story, clock)
    clock.set(START + 6 * DAY)
    await expire_credits(client, sub)
    _pass(story, clock)


async def _april(story: LedgerStory, clock: FakeClock, currency: str) -> None:
    client, sub = story.client, story.subscription_id
    clock.set(APRIL + DAY)
    await client.run_billing(f"march-{sub}")
    _pass(story, clock)
    story.april_id = (await client.get_subscription(sub)).current_period_id
    await client.use(sub, story.meter_id, "40", clock.now)
    extra = await grant_credit(client, sub, 80, currency=currency)
    await adjust_credit(client, extra.id, 25, currency=currency)
    _pass(story, clock)
    await adjust_credit(client, extra.id, -200, currency=currency, allow_deficit=True)
    mistake = await grant_credit(client, sub, 60, currency=currency)
    await void_credit(client, mistake.id)
    _pass(story, clock)
    refund_base = await create_payment(client, sub, 70, currency=currency)
    pending = await create_refund(client, refund_base.id, 20, currency=currency)
    story.pending_refund_id = pending.id
    clock.set(APRIL + 7 * DAY)
    story.moments.append(clock.now)


def _pass(story: LedgerStory, clock: FakeClock) -> None:
    """Let an hour pass, and remember its middle: nothing happens then."""
    clock.advance(minutes=30)
    story.moments.append(clock.now)
    clock.advance(minutes=30)
