"""Estimates: what billing now would bill, and the credits that it holds meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2 as pb
from billing.v1 import subscription_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.calculations import (
    ACTIVE,
    DISCARDED,
    PENDING_CONFIRMATION,
    SUPERSEDED,
    amend,
    calculations_of,
    estimate,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, credit_summary, credits_of
from tests.factories.ledger_moves import Move, moves, nothing_written
from tests.factories.refusals import refusal_of

HOUR = timedelta(hours=1)
INTERIM = pb.CALCULATION_TYPE_INTERIM_ESTIMATE
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
RACING = 6


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 1000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=1000)


async def many_credits(metered: CreditedSubscription) -> None:
    """Usage and credits of many kinds, of which some are over in the middle of February."""
    await metered.grant(70, expires_at=february(10))
    await metered.grant(45, component_id=metered.component_ids[1])
    await metered.grant(300, covers_charges=True, effective_at=february(12))
    await metered.use(100, february(3))
    await metered.use(80, february(11), metered.tokens)
    await metered.use(90, february(14))
    period_id = (await metered.get()).current_period_id
    await create_payment(metered.client, metered.id, 15, billing_period_id=period_id)
    await metered.top_up(20)


def figures_of(calculation: pb.Calculation) -> tuple[Any, ...]:
    """What a calculation says of its component."""
    return (
        calculation.component_id,
        calculation.total_quantity.value,
        calculation.billable_quantity.value,
        calculation.unit_price.value,
        calculation.total_raw_usage_amount,
        calculation.credits_applied_amount,
        calculation.net_billed_amount,
    )


async def held_by(metered: CreditedSubscription) -> list[tuple[int, int]]:
    """What each credit has to spend and holds, oldest first."""
    listed = await credits_of(metered.client, metered.id)
    return [(each.remaining_amount, each.held_amount) for each in listed]


class TestFigures:
    @pytest.mark.parametrize("has_ended", [True, False])
    async def test_they_are_those_that_billing_bills(
        self, metered: CreditedSubscription, *, has_ended: bool
    ) -> None:
        await many_credits(metered)
        metered.reach(MARCH + HOUR if has_ended else february(20))

        estimated = await estimate(metered.client, metered.id)

        result = await metered.bill()
        assert estimated.billing_period_id == result.billing_period_id
        assert estimated.total_amount == result.total_amount
        [invoice] = metered.invoices()
        assert [(line.description, line.amount) for line in estimated.charges] == [
            (line.description, line.amount) for line in invoice.line_items
        ]
        balance = await metered.client.balance(metered.id)
        assert estimated.receivable_amount == balance.outstanding_amount
        billed = await calculations_of(metered.client, metered.id, status=ACTIVE)
        assert [figures_of(c) for c in estimated.calculations] == [figures_of(c) for c in billed]
        await metered.audit()

    async def test_what_was_paid_is_not_owed_and_what_was_overpaid_is_a_surplus(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        metered = await subscribe_credited(client, clock, invoicing)
        period_id = (await metered.get()).current_period_id
        event = await metered.use(100, february(3))
        await create_payment(metered.client, metered.id, 80, billing_period_id=period_id)
        owed = await estimate(client, metered.id)
        assert (owed.total_amount, owed.receivable_amount, owed.surplus_amount) == (100, 20, 0)
        await amend(client, event.usage_event_id, "30")
        paid = await estimate(client, metered.id)
        assert (paid.total_amount, paid.receivable_amount, paid.surplus_amount) == (30, 0, 50)
        assert paid.held_amount == 0

    async def test_without_credits_and_usage_there_is_nothing_to_hold(
        self, metered: CreditedSubscription
    ) -> None:
        async with nothing_written(metered.client, metered.id):
            estimated = await estimate(metered.client, metered.id)
        assert [(line.description, line.amount) for line in estimated.charges] == [
            ("Monthly subscription - Pro Plan", 1000),
            ("calls (0)", 0),
            ("tokens (0)", 0),
        ]
        assert (estimated.total_amount, estimated.held_amount) == (1000, 0)
        assert [c.total_raw_usage_amount for c in estimated.calculations] == [0, 0]
        assert estimated.currency == "USD"


class TestStanding:
    async def test_it_holds_what_would_pay(self, metered: CreditedSubscription) -> None:
        granted = await metered.grant(100)
        await metered.use(30, february(3))
        owed = await metered.client.balance(metered.id)

        estimated = await estimate(metered.client, metered.id)

        assert estimated.held_amount == 30
        assert await held_by(metered) == [(70, 30)]
        assert moves(await metered.entries())[-1] == Move(
            "credit_applied_to_usage", 30, "credit", "receivable", "pending"
        )
        balance = await metered.client.balance(metered.id)
        assert balance.outstanding_amount == owed.outstanding_amount == 30
        assert (balance.credit_balance_amount, balance.available_credit_amount) == (100, 70)
        summary = await credit_summary(metered.client, metered.id)
        assert (summary.available_amount, summary.held_amount) == (70, 30)
        assert [(c.status, c.calculation_type) for c in estimated.calculations] == [
            (PENDING_CONFIRMATION, INTERIM)
        ] * 2
        assert await calculations_of(metered.client, metered.id) == list(estimated.calculations)
        assert {c.calculation_run_id for c in estimated.calculations} == {
            estimated.calculation_run_id
        }
        assert {c.billing_run_id for c in estimated.calculations} == {""}
        assert (await metered.now(granted)).held_amount == 30
        await metered.audit()

    async def test_the_next_one_supersedes_it(self, metered: CreditedSubscription) -> None:
        await metered.grant(100)
        await metered.use(30, february(3))
        first = await estimate(metered.client, metered.id)
        await metered.use(15, february(4), metered.tokens)

        second = await estimate(metered.client, metered.id)

        assert (second.held_amount, await held_by(metered)) == (45, [(55, 45)])
        successors = {c.component_id: c.id for c in second.calculations}
        old = await calculations_of(metered.client, metered.id, status=SUPERSEDED)
        assert [c.id for c in old] == [c.id for c in first.calculations]
        assert all(c.superseded_by_calculation_id == successors[c.component_id] for c in old)
        answer = await metered.client.calculations.GetCalculation(
            pb.GetCalculationRequest(
                tenant_id=metered.client.tenant_id, calculation_id=second.calculations[0].id
            )
        )
        assert [c.id for c in answer.superseded_calculations] == [first.calculations[0].id]
        states = [move.state for move in moves(await metered.entries())]
        assert (states.count("discarded"), states.count("pending")) == (1, 2)
        await metered.audit()

    async def test_the_run_supersedes_it(self, metered: CreditedSubscription) -> None:
        granted = await metered.grant(100)
        await metered.use(30, february(3))
        estimated = await estimate(metered.client, metered.id)
        await metered.use(50, february(20))  # at billing: nobody looks at credits meanwhile
        assert await held_by(metered) == [(70, 30)]

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -80)
        assert await held_by(metered) == [(20, 0)]
        [old] = [
            c
            for c in await calculations_of(metered.client, metered.id, status=SUPERSEDED)
            if c.component_id == metered.component_ids[0]
        ]
        assert old.id == estimated.calculations[0].id
        [new] = [
            c
            for c in await calculations_of(metered.client, metered.id, status=ACTIVE)
            if c.id == old.superseded_by_calculation_id
        ]
        assert (new.total_raw_usage_amount, new.credits_applied_amount) == (80, 80)
        assert await calculations_of(metered.client, metered.id, status=DISCARDED) == []
        assert (await metered.now(granted)).held_amount == 0
        await metered.audit()

    async def test_a_cancellation_at_once_supersedes_it(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(100)
        await metered.use(30, february(3))
        await estimate(metered.client, metered.id)
        await metered.client.cancel(metered.id, immediately=True)
        assert await held_by(metered) == [(70, 0)]
        statuses = {c.status for c in await calculations_of(metered.client, metered.id)}
        assert statuses == {SUPERSEDED, ACTIVE}
        await metered.audit()

    async def test_estimates_at_the_same_time_leave_one(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(100)
        await metered.use(30, february(3))
        made = await asyncio.gather(*(estimate(metered.client, metered.id) for _ in range(RACING)))
        assert [each.held_amount for each in made] == [30] * RACING
        assert await held_by(metered) == [(70, 30)]
        standing = await calculations_of(metered.client, metered.id, status=PENDING_CONFIRMATION)
        assert len(standing) == len({c.component_id for c in standing}) == 2
        assert len(await calculations_of(metered.client, metered.id)) == 2 * RACING
        await metered.audit()

    async def test_an_estimate_and_a_run_at_the_same_time(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(100)
        await metered.use(30, february(3))
        metered.reach(MARCH + HOUR)
        await asyncio.gather(
            metered.client.run_billing(),
            *(estimate(metered.client, metered.id) for _ in range(RACING)),
        )
        assert await held_by(metered) == [(70, 0)]
        assert (await metered.client.balance(metered.id)).outstanding_amount == 1000
        active = await calculations_of(metered.client, metered.id, status=ACTIVE)
        assert sum(c.credits_applied_amount for c in active) == 30
        await metered.audit()


class TestRequests:
    async def test_a_repeat_is_answered_as_the_first_time(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(100)
        await metered.use(30, february(3))
        first = await estimate(metered.client, metered.id, request_id="estimate-1")
        await metered.use(15, february(4))
        async with nothing_written(metered.client, metered.id):
            again = await estimate(metered.client, metered.id, request_id="estimate-1")
        assert again == first
        assert len(await calculations_of(metered.client, metered.id)) == 2

    async def test_a_request_id_is_of_one_request(self, metered: CreditedSubscription) -> None:
        period_id = (await metered.get()).current_period_id
        await estimate(metered.client, metered.id, request_id="estimate-1")
        refusal = await refusal_of(
            estimate(
                metered.client,
                metered.id,
                request_id="estimate-1",
                billing_period_id=period_id,
            )
        )
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["request_id"])

    async def test_the_period_may_be_named(self, metered: CreditedSubscription) -> None:
        period_id = (await metered.get()).current_period_id
        named = await estimate(metered.client, metered.id, billing_period_id=period_id)
        assert named.billing_period_id == period_id


class TestRefusals:
    async def assert_refused(
        self, metered: CreditedSubscription, kind: tuple[str, str], **fields: Any
    ) -> dict[str, str]:
        """Assert that there is no such estimate, and that one that stands still does."""
        standing = await calculations_of(metered.client, metered.id)
        async with nothing_written(metered.client, metered.id):
            refusal = await refusal_of(estimate(metered.client, metered.id, **fields))
        assert refusal.kind == kind
        assert await calculations_of(metered.client, metered.id) == standing
        return dict(refusal.metadata)

    async def test_a_billed_period(self, metered: CreditedSubscription) -> None:
        await metered.grant(5000, covers_charges=True)
        billed = (await metered.bill()).billing_period_id
        await metered.use(30, MARCH + HOUR)
        await estimate(metered.client, metered.id)
        figures = await self.assert_refused(
            metered,
            ("FAILED_PRECONDITION", "BILLING_PERIOD_NOT_OPEN"),
            billing_period_id=billed,
        )
        assert (figures["billing_period_id"], figures["status"]) == (billed, "invoiced")

    async def test_a_later_period(self, metered: CreditedSubscription) -> None:
        await metered.grant(100)
        first = (await metered.get()).current_period_id
        await metered.use(30, MARCH + HOUR)
        [entry] = [e for e in await metered.entries() if e.billing_period_id not in ("", first)]
        await estimate(metered.client, metered.id)
        figures = await self.assert_refused(
            metered,
            ("FAILED_PRECONDITION", "EARLIER_PERIOD_OPEN"),
            billing_period_id=entry.billing_period_id,
        )
        assert figures["earlier_period_id"] == first

    async def test_a_period_that_there_is_not(self, metered: CreditedSubscription) -> None:
        other = await metered.client.subscribe(metered.plan_id)
        for period_id in (UNKNOWN_PERIOD, other.current_period_id):
            await self.assert_refused(
                metered, ("NOT_FOUND", "BILLING_PERIOD_NOT_FOUND"), billing_period_id=period_id
            )

    async def test_a_cancelled_subscription(self, metered: CreditedSubscription) -> None:
        await metered.client.cancel(metered.id, immediately=True)
        await self.assert_refused(
            metered, ("FAILED_PRECONDITION", "SUBSCRIPTION_HAS_NO_OPEN_PERIOD")
        )

    async def test_a_paused_subscription_has_its_period(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(30, february(3))
        paused = await metered.client.pause(metered.id)
        assert paused.status == subscription_pb2.SUBSCRIPTION_STATUS_PAUSED
        assert (await estimate(metered.client, metered.id)).total_amount == 1030

    async def test_a_subscription_that_there_is_not(self, metered: CreditedSubscription) -> None:
        client = metered.client
        other = BillingClient(client.channel, client.key)
        for call in (
            estimate(client, UNKNOWN_SUBSCRIPTION),
            estimate(client.in_test_mode(), metered.id),
            estimate(other, metered.id),
        ):
            refusal = await refusal_of(call)
            assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")

    async def test_who_may_not(self, metered: CreditedSubscription) -> None:
        reader = metered.client.with_capabilities("billing.calculation:read")
        refusal = await refusal_of(estimate(reader, metered.id))
        assert refusal.code == "PERMISSION_DENIED"
        assert "billing.calculation:write" in refusal.message
