"""Something else happens while a period is recalculated: one order of the two explains the end."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import refund_pb2
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.calculations import (
    ACTIVE,
    amend,
    calculations_of,
    recalculate,
    recalculations_of,
    recover,
    void_event,
    write_off,
)
from tests.factories.client import BillingClient, new_tenant
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_payment,
    create_refund,
    credits_of,
    expire_credits,
)
from tests.factories.recalculation_audit import (
    assert_recalculations_explain,
    invoiced_by,
    invoices_of_period,
)
from tests.factories.refusals import outcome_of

DAY = timedelta(days=1)
REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL


class World:
    """A subscription with much in it.

    In February 100 calls, of which 50 were too many, and 20 tokens, with 25 more held; a promotion
    of 60, another of 40 that ended in the middle of the month, a payment of 10, a write-off of 5.
    In March 30 calls, and a promotion that ends with that month. March is due.
    """

    def __init__(self, held: CreditedSubscription) -> None:
        self.held = held
        self.client = held.client
        self.id = held.id
        self.period_id = ""
        self.event_ids: list[str] = []
        self.credit_ids: list[str] = []
        self.payment_ids: list[str] = []
        self.write_off_id = ""

    async def begin(self) -> None:
        """Let it all happen."""
        held, client = self.held, self.held.client
        granted = [
            await held.grant(60),
            await held.grant(40, expires_at=february(15)),
            await held.grant(50, effective_at=MARCH, expires_at=APRIL),
        ]
        self.credit_ids = [each.id for each in granted]
        self.event_ids = [
            (await held.use(100, february(3))).usage_event_id,
            (await held.use(20, february(10), held.tokens)).usage_event_id,
        ]
        self.period_id = (await held.bill("february")).billing_period_id
        paid = await create_payment(client, self.id, 10, billing_period_id=self.period_id)
        begun = await create_payment(
            client, self.id, 70, billing_period_id=self.period_id, confirm=False
        )
        self.payment_ids = [paid.id, begun.id]
        self.write_off_id = (await write_off(client, self.id, self.period_id, amount=5)).id
        await held.use(25, february(5), held.tokens)
        await amend(client, self.event_ids[0], "50")
        await held.use(30, MARCH + DAY)
        held.reach(APRIL + DAY)

    async def figures(self) -> dict[str, Any]:
        """All that is left of it, without ids and times."""
        balance = await self.client.balance(self.id)
        calculations = [
            c
            for c in await calculations_of(self.client, self.id, status=ACTIVE)
            if c.billing_period_id == self.period_id
        ]
        by_component = {c.component_id: c for c in calculations}
        return {
            "invoiced": balance.invoiced_amount,
            "unbilled": balance.unbilled_amount,
            "credits": sorted(
                (each.issued_amount, each.remaining_amount, each.held_amount, each.status)
                for each in await credits_of(self.client, self.id)
            ),
            "calculations": [
                (
                    by_component[each].total_quantity.value,
                    by_component[each].total_raw_usage_amount,
                    by_component[each].credits_applied_amount,
                )
                for each in self.held.component_ids
            ],
            "february": invoiced_by(invoices_of_period(self.held, self.period_id)),
            "invoices": sorted(invoice.total_amount for invoice in self.held.invoices()),
        }


Act = Callable[[World], Awaitable[object]]


async def recalculates(world: World) -> object:
    """Recalculate February."""
    return await recalculate(world.client, world.id, world.period_id)


async def refunds(world: World) -> object:
    """Give the payment of 10 back."""
    refund = await create_refund(world.client, world.payment_ids[0], 10, credit_policy=REVERT_ALL)
    return await confirm_refund(world.client, refund.id)


ACTS: dict[str, Act] = {
    "late usage": lambda w: w.held.use(7, february(20)),
    "usage": lambda w: w.held.use(9, MARCH + 2 * DAY),
    "correction": lambda w: amend(w.client, w.event_ids[0], "130"),
    "void of usage": lambda w: void_event(w.client, w.event_ids[1]),
    "billing run": lambda w: w.client.run_for_subscription(w.id, "march"),
    "grant": lambda w: w.held.grant(33),
    "void of a credit": lambda w: void_credit(w.client, w.credit_ids[0]),
    "adjustment": lambda w: adjust_credit(w.client, w.credit_ids[0], -35, allow_deficit=True),
    "settlement": lambda w: confirm_payment(w.client, w.payment_ids[1]),
    "refund": refunds,
    "write-off": lambda w: write_off(w.client, w.id, w.period_id, amount=3),
    "recovery": lambda w: recover(w.client, w.write_off_id),
    "expiry": lambda w: expire_credits(w.client, w.id),
}


@pytest.fixture
def begin(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> Callable[[], Awaitable[World]]:
    """Make worlds that are all the same, in tenants of their own."""

    async def begin_one() -> World:
        caller = client.for_tenant(new_tenant())
        held = await subscribe_credited(caller, clock, invoicing, holds_late_usage=True)
        world = World(held)
        await world.begin()
        return world

    return begin_one


Begin = Callable[[], Awaitable[World]]


async def in_turn(world: World, acts: Sequence[Act]) -> tuple[list[str], dict[str, Any]]:
    """Do one after the other; return the refusals in order of the acts, and the figures."""
    refusals = [await outcome_of(act(world)) for act in acts]
    return refusals, await world.figures()


@pytest.mark.parametrize("name", ACTS)
async def test_some_order_explains_what_was_done_at_once(begin: Begin, name: str) -> None:
    act = ACTS[name]
    recalculated_first = await in_turn(await begin(), [recalculates, act])
    refusals, figures = await in_turn(await begin(), [act, recalculates])
    recalculated_last = list(reversed(refusals)), figures

    for pair in ([recalculates, act], [act, recalculates]):
        world = await begin()
        outcomes = await asyncio.gather(*[outcome_of(each(world)) for each in pair])
        if pair[0] is not recalculates:
            outcomes.reverse()
        ended = outcomes, await world.figures()
        assert ended in (recalculated_first, recalculated_last)
        await assert_recalculations_explain(world.held)


async def test_two_recalculations_are_one(begin: Begin) -> None:
    """The other finds nothing to change, or the first one's documents under way."""
    once = await begin()
    await recalculates(once)
    world = await begin()
    outcomes = await asyncio.gather(*[outcome_of(recalculates(world)) for _ in range(4)])
    assert set(outcomes) <= {"", "RECALCULATION_NOT_DELIVERED"}
    assert "" in outcomes
    assert len(await recalculations_of(world.client, world.id)) == 1
    assert await world.figures() == await once.figures()
    await assert_recalculations_explain(world.held)


@pytest.mark.parametrize("seed", range(3))
async def test_everything_at_once(begin: Begin, seed: int) -> None:
    """Whatever the order was: the books agree, and one more recalculation takes in the rest."""
    world = await begin()
    acts = [*ACTS.values(), recalculates, recalculates]
    random.Random(seed).shuffle(acts)
    outcomes = await asyncio.gather(*[outcome_of(act(world)) for act in acts])
    assert set(outcomes) <= {
        "",
        "RECALCULATION_NOT_DELIVERED",
        "CREDIT_ALREADY_VOIDED",
        "CREDIT_FULLY_USED",
        "WRITE_OFF_EXCEEDED",
        "WRITE_OFF_EXCEEDS_RECEIVABLE",
    }
    await assert_recalculations_explain(world.held)
    await recalculates(world)
    await assert_recalculations_explain(world.held)
    assert not (await recalculate(world.client, world.id, world.period_id)).changed
