"""Whatever moves credits discards an estimate first: it ends as if there had never been one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import payment_pb2, refund_pb2
from tests.factories.billing_runs import APRIL, FEBRUARY, MARCH
from tests.factories.calculations import (
    DISCARDED,
    PENDING_CONFIRMATION,
    amend,
    calculations_of,
    estimate,
    recalculate,
    void_event,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    FULLY_USED,
    GRANT_EXPIRED,
    POSTED,
    REALTIME,
    Credit,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import (
    confirm_refund,
    create_payment,
    create_refund,
    credits_of,
    expire_credits,
    fail_refund,
)

DAY = timedelta(days=1)


@dataclass
class March:
    """A subscription in March with February invoiced, and what is there to change."""

    metered: CreditedSubscription
    february_id: str
    events: dict[str, str] = field(default_factory=dict)
    credits: dict[str, Credit] = field(default_factory=dict)
    payment: payment_pb2.Payment = field(default_factory=payment_pb2.Payment)
    refund: refund_pb2.Refund = field(default_factory=refund_pb2.Refund)

    @property
    def client(self) -> BillingClient:
        """Its caller."""
        return self.metered.client

    async def held(self) -> dict[str, int]:
        """What each credit holds, by its name."""
        listed = {c.id: c for c in await credits_of(self.client, self.metered.id)}
        return {name: listed[each.id].held_amount for name, each in self.credits.items()}


async def march(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    *,
    is_realtime: bool = False,
) -> March:
    """On the ninth: 300 of usage, less in credits, a payment that is being refunded.

    The last credit was granted when the usage was there: it pays only when it is asked to.
    """
    metered = await subscribe_credited(client, clock, invoicing, is_realtime=is_realtime)
    event = await metered.use(80, FEBRUARY + DAY)
    story = March(metered, (await metered.bill("february")).billing_period_id)
    story.events["february"] = event.usage_event_id
    story.credits["early"] = await metered.grant(
        50, expires_at=MARCH + 10 * DAY, component_id=metered.component_ids[0]
    )
    story.credits["promotion"] = await metered.grant(60)
    story.payment = await create_payment(client, metered.id, 100)
    story.credits["paid"] = await metered.credit_of(story.payment)
    early = await metered.use(30, MARCH + 2 * DAY)
    story.events["march"] = early.usage_event_id
    await metered.use(270, MARCH + 5 * DAY, metered.tokens)
    story.refund = await create_refund(client, story.payment.id, 20)
    metered.reach(MARCH + 8 * DAY)
    story.credits["late"] = await metered.grant(90)
    return story


async def _settle(story: March) -> None:
    period_id = (await story.metered.get()).current_period_id
    await create_payment(story.client, story.metered.id, 40, billing_period_id=period_id)


async def _refund(story: March) -> None:
    await create_refund(
        story.client,
        story.payment.id,
        80,
        credit_policy=refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL,
    )


async def _expire(story: March) -> None:
    story.metered.reach(MARCH + 10 * DAY)
    answer = await expire_credits(story.client, story.metered.id)
    assert answer.failed_count == 0


async def _recalculate(story: March) -> None:
    await recalculate(story.client, story.metered.id, story.february_id)


OPERATIONS: dict[str, Callable[[March], Awaitable[Any]]] = {
    "void a credit": lambda s: void_credit(s.client, s.credits["late"].id),
    "decrease a credit": lambda s: adjust_credit(s.client, s.credits["late"].id, -45),
    "decrease below zero": lambda s: adjust_credit(
        s.client, s.credits["early"].id, -55, allow_deficit=True
    ),
    "increase a credit": lambda s: adjust_credit(s.client, s.credits["late"].id, 45),
    "grant back in time": lambda s: s.metered.grant(35, priority=-1),
    "settle the period": _settle,
    "create a refund": _refund,
    "confirm a refund": lambda s: confirm_refund(s.client, s.refund.id),
    "fail a refund": lambda s: fail_refund(s.client, s.refund.id),
    "expire credits": _expire,
    "amend usage": lambda s: amend(s.client, s.events["march"], "12"),
    "void usage": lambda s: void_event(s.client, s.events["march"]),
    "recalculate": _recalculate,
}
"""What discards an estimate."""

OTHERS: dict[str, Callable[[March], Awaitable[Any]]] = {
    "more usage": lambda s: s.metered.use(25, MARCH + 8 * DAY),
    "grant from now on": lambda s: s.metered.grant(35, effective_at=MARCH + 9 * DAY),
    "top up": lambda s: s.metered.top_up(35),
    "correct what is billed": lambda s: amend(s.client, s.events["february"], "70"),
    "pause": lambda s: s.client.pause(s.metered.id),
}
"""What leaves it standing, for the run to supersede."""


async def _end_of(story: March) -> Any:
    """How March ends: lines, and what is left of each credit."""
    metered = story.metered
    metered.reach(APRIL)
    if (await metered.get()).HasField("paused_at"):
        await metered.client.resume(metered.id)
    await metered.client.run_billing("march")
    held = await story.held()
    lines = [
        [(line.description, line.amount) for line in invoice.line_items]
        for invoice in metered.invoices()
    ]
    listed = await credits_of(metered.client, metered.id)
    balance = await metered.client.balance(metered.id)
    standing = await calculations_of(metered.client, metered.id, status=PENDING_CONFIRMATION)
    assert standing == []
    return (
        lines,
        held,
        [(each.status, each.remaining_amount, each.held_amount) for each in listed],
        (balance.outstanding_amount, balance.credit_balance_amount, balance.net_amount),
    )


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("is_realtime", [False, True], ids=["at billing", "as it goes"])
async def test_it_is_discarded_and_changes_nothing(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    name: str,
    *,
    is_realtime: bool,
) -> None:
    ends, held = [], []
    for is_estimated in (True, False):
        caller = BillingClient(client.channel, client.key)
        story = await march(caller, clock, invoicing, is_realtime=is_realtime)
        estimated = await estimate(caller, story.metered.id) if is_estimated else None

        await OPERATIONS[name](story)

        held.append(await story.held())
        if estimated is not None:
            statuses = {
                calculation.status
                for calculation in await calculations_of(caller, story.metered.id)
                if calculation.calculation_run_id == estimated.calculation_run_id
            }
            assert statuses == {DISCARDED}
            assert estimated.held_amount >= 90
        ends.append(await _end_of(story))
    assert held[0] == held[1]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", OTHERS)
async def test_what_leaves_it_standing_ends_the_same_too(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer, name: str
) -> None:
    ends = []
    for is_estimated in (True, False):
        caller = BillingClient(client.channel, client.key)
        story = await march(caller, clock, invoicing)
        if is_estimated:
            await estimate(caller, story.metered.id)
        await OTHERS[name](story)
        if is_estimated:
            standing = await calculations_of(caller, story.metered.id, status=PENDING_CONFIRMATION)
            assert len(standing) == 2
        ends.append(await _end_of(story))
    assert ends[0] == ends[1]


async def test_pay_as_you_go_usage_discards_it(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Credits granted back in time are for the run: the estimate holds them, new usage may not."""
    story = await march(client, clock, invoicing, is_realtime=True)
    late = story.credits["late"]
    estimated = await estimate(client, story.metered.id)
    assert estimated.held_amount == (await story.metered.now(late)).held_amount == 90

    await story.metered.use(25, MARCH + 8 * DAY, story.metered.tokens)

    paid = (await story.metered.applications(kind=REALTIME))[-1]
    assert (paid.usage_credit_id, paid.amount_applied) == (late.id, 25)
    after = await story.metered.now(late)
    assert (after.remaining_amount, after.held_amount) == (65, 0)
    statuses = {
        c.status
        for c in await calculations_of(client, story.metered.id)
        if c.calculation_run_id == estimated.calculation_run_id
    }
    assert statuses == {DISCARDED}


async def test_an_expiry_finds_what_an_estimate_holds(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """All of it: late usage finds as little of the credit as without the estimate."""
    metered = await subscribe_credited(client, clock, invoicing)
    granted = await metered.grant(50, expires_at=february(10))
    await metered.use(80, february(3))
    estimated = await estimate(client, metered.id)
    assert estimated.held_amount == (await metered.now(granted)).held_amount == 50
    metered.reach(february(12))

    await expire_credits(client, metered.id)

    after = await metered.now(granted)
    assert (after.status, after.held_amount) == (FULLY_USED, 0)
    posted = [e.amount for e in await metered.entries(APPLIED_TO_USAGE) if e.status == POSTED]
    assert posted == [50]
    assert await metered.entries(GRANT_EXPIRED) == []
    await metered.audit()


async def test_an_expiry_with_nothing_to_do_leaves_it(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    story = await march(client, clock, invoicing)
    await estimate(client, story.metered.id)
    await expire_credits(client, story.metered.id)
    await expire_credits(client)
    standing = await calculations_of(client, story.metered.id, status=PENDING_CONFIRMATION)
    assert len(standing) == 2
