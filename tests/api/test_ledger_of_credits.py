"""Whatever happens to credits, payments and refunds: the books explain it, after every step."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from billing.domain.ledger import LedgerEntryType
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import refund_pb2, subscription_pb2
from tests.factories.billing_runs import APRIL, MARCH, MAY
from tests.factories.calculations import amend, recalculate, recover, void_event, write_off
from tests.factories.client import BillingClient, component
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credits import (
    confirm_refund,
    create_payment,
    create_refund,
    credits_of,
    expire_credits,
    fail_refund,
    grant_credit,
)
from tests.factories.ledger_audit import assert_ledger_explains
from tests.factories.ledger_moves import moves
from tests.factories.payments import payments_of

AT_BILLING = subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING
REALTIME = subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME
REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
KEEP = refund_pb2.REFUND_CREDIT_POLICY_KEEP

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Story:
    """A monthly subscription since 1 March: 1000 a month, 2 a unit."""

    client: BillingClient
    clock: FakeClock
    meter_id: str
    subscription_id: str
    march_id: str

    async def use(self, units: int) -> None:
        """Use units now."""
        await self.client.use(self.subscription_id, self.meter_id, str(units), self.clock.now)

    async def grants(self) -> AsyncIterator[str]:
        """Credits of all scopes, used, expired, adjusted and voided."""
        client, sub = self.client, self.subscription_id
        await grant_credit(client, sub, 300, effective_at=MARCH, expires_at=START + 5 * DAY)
        scoped = await grant_credit(client, sub, 50, usage_meter_id=self.meter_id)
        await grant_credit(client, sub, 40, billing_period_id=self.march_id)
        general = await grant_credit(client, sub, 200, covers_charges=True, effective_at=MARCH)
        await grant_credit(client, sub, 70, effective_at=APRIL)
        mistake = await grant_credit(client, sub, 30, effective_at=APRIL)
        yield "granted"
        await self.use(100)
        yield "used"
        self.clock.set(START + 6 * DAY)
        await self.use(5)
        await expire_credits(client, sub)
        yield "expired"
        await adjust_credit(client, general.id, 25)
        await adjust_credit(client, general.id, -10)
        await adjust_credit(client, scoped.id, -60, allow_deficit=True)
        yield "adjusted"
        await void_credit(client, mistake.id)
        yield "voided"

    async def payments(self) -> AsyncIterator[str]:
        """A top-up and a settlement of the open period, and what becomes of them."""
        client, sub = self.client, self.subscription_id
        top_up = await create_payment(client, sub, 500)
        settlement = await create_payment(client, sub, 100, billing_period_id=self.march_id)
        await self.use(60)
        yield "paid"
        held = await create_refund(client, top_up.id, 80)
        failed = await create_refund(client, top_up.id, 50)
        kept = await create_refund(client, top_up.id, 30, credit_policy=KEEP)
        taken = await create_refund(client, settlement.id, 90, credit_policy=REVERT_ALL)
        yield "being refunded"
        await fail_refund(client, failed.id)
        await confirm_refund(client, kept.id)
        await confirm_refund(client, taken.id)
        yield "refunded"
        self.clock.set(APRIL + DAY)
        await client.run_billing("march")
        yield "billed"
        await confirm_refund(client, held.id)
        yield "refunded in the next period"

    async def end(self) -> AsyncIterator[str]:
        """What happens to periods that are billed, and after the last one."""
        client, sub = self.client, self.subscription_id
        paid = await create_payment(client, sub, 4000, billing_period_id=self.march_id)
        pending = await create_payment(client, sub, 10)
        yield "settled"
        hold = await create_refund(client, pending.id, 10, credit_policy=REVERT_ALL)
        unpaid = await create_refund(client, paid.id, 3900, credit_policy=REVERT_ALL)
        top_up = (await payments_of(client, sub))[0]
        spent = top_up.amount - top_up.refunded_amount
        deficit = await create_refund(client, top_up.id, spent, credit_policy=REVERT_ALL)
        assert deficit.deficit_amount == spent > 0
        yield "being refunded"
        await void_credit(client, pending.usage_credit_id)
        yield "voided while it is held"
        self.clock.set(APRIL + 10 * DAY)
        await client.cancel(sub, immediately=True)
        for refund in (unpaid, deficit, hold):
            await confirm_refund(client, refund.id)
        yield "cancelled"
        for credit in await credits_of(client, sub):
            if credit.remaining_amount and not credit.billing_period_id:
                more = credit.remaining_amount + 5
                await adjust_credit(client, credit.id, -more, allow_deficit=True)
        yield "charged after the last invoice"
        self.clock.set(MAY)
        await expire_credits(client, sub)
        yield "over"

    async def corrections(self) -> AsyncIterator[str]:
        """What is put right: usage, a billed period, and what somebody gave up."""
        client, sub = self.client, self.subscription_id
        newest = next(e for e in reversed(await client.entries(sub)) if e.source_usage_event_id)
        await amend(client, newest.source_usage_event_id, "200")
        yield "amended"
        more = (await recalculate(client, sub, newest.billing_period_id)).recalculation
        assert more.net_change_amount > 0
        yield "recalculated"
        given_up = await write_off(client, sub, newest.billing_period_id, amount=100)
        yield "written off"
        await recover(client, given_up.id, amount=30)
        yield "recovered in part"
        await void_event(client, newest.source_usage_event_id)
        less = (await recalculate(client, sub, newest.billing_period_id)).recalculation
        assert less.net_change_amount < 0
        yield "recalculated to nothing"


@pytest.mark.parametrize("mode", [AT_BILLING, REALTIME], ids=["at billing", "realtime"])
async def test_the_books_explain_every_step(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    mode: subscription_pb2.CreditApplicationMode.ValueType,
) -> None:
    meter_id = await client.create_meter()
    plan_id = await client.create_plan(
        base_price_amount=1000, components=[component(meter_id, unit_price="2")]
    )
    subscription = await client.subscribe(plan_id, started_at=MARCH, credit_application=mode)
    story = Story(client, clock, meter_id, subscription.id, subscription.current_period_id)
    for chapter in (
        story.grants(),
        story.payments(),
        story.end(),
        story.corrections(),
    ):
        async for step in chapter:
            try:
                await assert_ledger_explains(client, invoicing, subscription.id)
            except AssertionError as difference:
                difference.add_note(f"after: {step}")
                raise
    told = moves(await client.entries(subscription.id))
    # Nothing is priced below zero, so no invoice is negative.
    assert {move.entry_type for move in told} == {*LedgerEntryType} - {"surplus_credited"}
    assert {move.state for move in told} == {"posted", "discarded"}
