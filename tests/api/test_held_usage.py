"""Late usage of plans that hold it: it waits in its own period, at that period's price."""

from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2, catalog_pb2, ledger_pb2, usage_pb2
from tests.factories.billing_runs import FEBRUARY, MARCH
from tests.factories.calculations import (
    amend,
    calculations_of,
    recalculate,
    usage_event_of,
    void_event,
)
from tests.factories.client import BillingClient, component, usage_event
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.ledger_moves import Move, moves, nothing_written
from tests.factories.usage import outcomes_of

RATED = usage_pb2.USAGE_EVENT_DISPOSITION_RATED
RATED_LATE = usage_pb2.USAGE_EVENT_DISPOSITION_RATED_LATE
HELD = usage_pb2.USAGE_EVENT_DISPOSITION_HELD
HOLD = catalog_pb2.LATE_USAGE_POLICY_HOLD
OPEN_PERIOD = catalog_pb2.LATE_USAGE_POLICY_OPEN_PERIOD
INVOICE = calculation_pb2.RECALCULATION_DOCUMENT_KIND_INVOICE
DAY = timedelta(days=1)
ENTRY = Move("usage_cost", -40, "receivable", "usage_revenue", "pending")


@pytest.fixture
async def held(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of a plan that holds late usage."""
    return await subscribe_credited(client, clock, invoicing, holds_late_usage=True)


@pytest.fixture
async def period_id(held: CreditedSubscription) -> str:
    """Its February, which is invoiced: 100 calls."""
    await held.use(100, february(3))
    return (await held.bill("february")).billing_period_id


async def meters_of(
    held: CreditedSubscription, billing_period_id: str
) -> dict[str, usage_pb2.SubscriptionUsageMeter]:
    """The aggregates of a period, by meter."""
    answer = await held.client.usage.ListSubscriptionUsageMeters(
        usage_pb2.ListSubscriptionUsageMetersRequest(
            tenant_id=held.client.tenant_id,
            subscription_id=held.id,
            billing_period_id=billing_period_id,
        )
    )
    return {row.usage_meter_id: row for row in answer.subscription_usage_meters}


def figures_of(meter: usage_pb2.SubscriptionUsageMeter) -> tuple[str, int, str, int]:
    """Quantity and amount that count, and those that wait."""
    return (
        meter.total_quantity.value,
        meter.total_raw_usage_amount,
        meter.pending_quantity.value,
        meter.pending_amount,
    )


async def publish(held: CreditedSubscription, unit_price: str, **version: Any) -> None:
    """Give the plan a version with calls alone: it takes effect at the next period."""
    await held.client.catalog.UpdatePlan(
        catalog_pb2.UpdatePlanRequest(
            tenant_id=held.client.tenant_id,
            plan_id=held.plan_id,
            version=held.client.plan_version(
                base_price_amount=0,
                components=[component(held.calls, name="calls", unit_price=unit_price)],
                **version,
            ),
        )
    )


class TestHeld:
    async def test_it_waits_in_its_own_period(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        before = await held.client.balance(held.id)

        late = await held.use(40, february(20))

        event = await usage_event_of(held.client, late.usage_event_id)
        assert (event.disposition, event.billing_period_id) == (HELD, period_id)
        assert (event.cost_amount, event.corrected_cost_amount) == (40, 40)
        assert not event.HasField("taken_in_at")
        assert moves(await held.entries())[-1] == ENTRY
        after = await held.client.balance(held.id)
        for balance in (before, after):
            balance.ClearField("as_of")
        assert after == before
        assert figures_of((await meters_of(held, period_id))[held.calls]) == ("100", 100, "40", 40)
        await held.audit()

    async def test_usage_of_the_open_period_is_rated_as_ever(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        """Several late events in one call, with others that come in time."""
        held.reach(MARCH + 3 * DAY)
        events = [
            held.event(40, february(20)),
            held.event(7, MARCH + DAY),
            held.event(5, february(21), held.tokens),
            held.event(2, february(22)),
        ]

        answer = await held.send(*events)

        assert outcomes_of(answer.results) == ["accepted"] * 4
        stored = [await usage_event_of(held.client, r.usage_event_id) for r in answer.results]
        assert [event.disposition for event in stored] == [HELD, RATED, HELD, HELD]
        assert [event.cost_amount for event in stored] == [40, 7, 5, 2]
        assert (await held.client.balance(held.id)).unbilled_amount == 7
        meters = await meters_of(held, period_id)
        assert figures_of(meters[held.calls]) == ("100", 100, "42", 42)
        assert figures_of(meters[held.tokens]) == ("0", 0, "5", 5)
        assert await held.bill_lines("march") == [("calls (7)", 7), ("tokens (0)", 0)]
        await held.audit()

    async def test_a_repeat_is_a_duplicate(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        event = held.event(40, february(20))
        first, second = (await held.send(event, event)).results
        assert outcomes_of([first, second]) == ["accepted", "duplicate"]

        async with nothing_written(held.client, held.id):
            [again] = (await held.send(event)).results
            event.quantity.value = "41"
            [other] = (await held.send(event)).results

        assert outcomes_of([again, other]) == ["duplicate", "conflict"]
        assert again.usage_event_id == other.usage_event_id == first.usage_event_id
        assert figures_of((await meters_of(held, period_id))[held.calls])[2:] == ("40", 40)

    async def test_it_waits_also_where_the_invoice_is_not_delivered(
        self, held: CreditedSubscription
    ) -> None:
        await held.use(100, february(3))
        held.invoicing.error_rate = 1.0
        billed = await held.bill()
        late = await held.use(40, february(20))
        event = await usage_event_of(held.client, late.usage_event_id)
        assert (event.disposition, event.billing_period_id) == (HELD, billed.billing_period_id)

    async def test_it_is_counted_after_what_waits_and_what_counts(
        self, client: BillingClient, clock: FakeClock
    ) -> None:
        """At 0.4 a unit a cent falls due with some units, and none with others."""
        clock.set(FEBRUARY)
        meter_id = await client.create_meter()
        plan_id = await client.create_plan(
            base_price_amount=0,
            components=[component(meter_id, unit_price="0.4", included="2")],
            late_usage_policy=HOLD,
        )
        subscription = await client.subscribe(plan_id, started_at=FEBRUARY)
        clock.set(MARCH + DAY)
        await client.use(subscription.id, meter_id, "3", february(3))
        await client.run_billing()

        events = [usage_event(subscription.id, meter_id, "1", february(4)) for _ in range(5)]
        answer = await client.ingest(events)

        costs = [
            (await usage_event_of(client, result.usage_event_id)).cost_amount
            for result in answer.results
        ]
        assert costs == [1, 0, 1, 0, 0]  # of 0.4 x 2, 3, 4, 5 and 6 units, after 0.4 x 1
        assert sum(costs) == 2

    async def test_a_recalculation_takes_it_in(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        late = await held.use(40, february(20))
        tokens = await held.use(5, february(21), held.tokens)

        answer = await recalculate(held.client, held.id, period_id)

        assert answer.recalculation.raw_change_amount == 45
        [document] = answer.recalculation.documents
        assert (document.kind, document.amount) == (INVOICE, 45)
        for result in (late, tokens):
            event = await usage_event_of(held.client, result.usage_event_id)
            assert (event.disposition, event.HasField("taken_in_at")) == (HELD, True)
        meters = await meters_of(held, period_id)
        assert figures_of(meters[held.calls]) == ("140", 140, "0", 0)
        assert figures_of(meters[held.tokens]) == ("5", 5, "0", 0)
        assert [move.state for move in moves(await held.entries())].count("discarded") == 2
        assert (await held.client.balance(held.id)).outstanding_amount == 145

    async def test_what_comes_after_a_recalculation_waits_for_the_next(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        await held.use(40, february(20))
        await recalculate(held.client, held.id, period_id)
        await held.use(3, february(21))
        assert figures_of((await meters_of(held, period_id))[held.calls]) == ("140", 140, "3", 3)
        again = await recalculate(held.client, held.id, period_id)
        assert again.recalculation.net_change_amount == 3


class TestCorrections:
    async def test_a_held_event_can_be_corrected(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        late = await held.use(40, february(20))

        correction = await amend(held.client, late.usage_event_id, "15")

        assert correction.status == ledger_pb2.LEDGER_ENTRY_STATUS_PENDING
        assert (correction.billing_period_id, correction.cost_change_amount) == (period_id, -25)
        assert figures_of((await meters_of(held, period_id))[held.calls])[2:] == ("15", 15)
        answer = await recalculate(held.client, held.id, period_id)
        assert answer.recalculation.raw_change_amount == 15
        event = await usage_event_of(held.client, late.usage_event_id)
        assert (event.cost_amount, event.corrected_cost_amount) == (40, 15)

    async def test_a_held_event_that_is_voided_changes_nothing(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        late = await held.use(40, february(20))
        await void_event(held.client, late.usage_event_id)
        assert figures_of((await meters_of(held, period_id))[held.calls])[2:] == ("0", 0)

        answer = await recalculate(held.client, held.id, period_id)

        assert answer.recalculation.net_change_amount == 0
        assert list(answer.recalculation.documents) == []
        event = await usage_event_of(held.client, late.usage_event_id)
        assert event.HasField("taken_in_at")
        assert (await held.client.balance(held.id)).outstanding_amount == 100


class TestPolicy:
    async def test_the_default_counts_late_usage_in_the_open_period(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        metered = await subscribe_credited(client, clock, invoicing)
        await metered.use(100, february(3))
        await metered.bill("february")
        late = await metered.use(40, february(20))
        event = await usage_event_of(client, late.usage_event_id)
        assert event.disposition == RATED_LATE
        assert event.billing_period_id == (await metered.get()).current_period_id
        assert (await client.balance(metered.id)).unbilled_amount == 40
        assert len(await calculations_of(client, metered.id)) == 2

    async def test_the_price_is_that_of_its_own_period(self, held: CreditedSubscription) -> None:
        """The new version has another price, and no tokens: neither is February's business."""
        await publish(held, "9", late_usage_policy=HOLD)
        await held.use(100, february(3))
        await held.bill("february")
        held.reach(MARCH + DAY)

        calls, tokens, now = (
            await held.send(
                held.event(40, february(20)),
                held.event(5, february(20), held.tokens),
                held.event(1, MARCH),
            )
        ).results

        costs = [
            (await usage_event_of(held.client, result.usage_event_id)).cost_amount
            for result in (calls, tokens, now)
        ]
        assert costs == [40, 5, 9]

    async def test_a_meter_that_its_own_period_does_not_price(
        self, held: CreditedSubscription
    ) -> None:
        """A later period's plan may price it: held usage is no usage of that one."""
        await publish(held, "9", late_usage_policy=HOLD)
        await held.bill("february")
        await held.use(1, MARCH + DAY)
        march = await held.bill("march")
        async with nothing_written(held.client, held.id):
            [result] = (await held.send(held.event(5, MARCH + DAY, held.tokens))).results
        assert outcomes_of([result]) == ["rejected"]
        assert result.reason == "USAGE_METER_NOT_PRICED"
        assert march.total_amount == 9

    @pytest.mark.parametrize("holds_first", [True, False])
    async def test_a_new_policy_is_of_the_periods_that_begin_with_it(
        self,
        client: BillingClient,
        clock: FakeClock,
        invoicing: ReferenceInvoicingServer,
        *,
        holds_first: bool,
    ) -> None:
        metered = await subscribe_credited(client, clock, invoicing, holds_late_usage=holds_first)
        await publish(metered, "1", late_usage_policy=OPEN_PERIOD if holds_first else HOLD)
        await metered.bill("february")
        await metered.bill("march")
        answer = await metered.send(metered.event(1, february(20)), metered.event(1, MARCH + DAY))
        stored = [await usage_event_of(client, r.usage_event_id) for r in answer.results]
        of_february, of_march = [event.disposition for event in stored]
        assert (of_february, of_march) == (
            (HELD, RATED_LATE) if holds_first else (RATED_LATE, HELD)
        )

    @pytest.mark.usefixtures("period_id")
    async def test_a_cancelled_subscription_takes_no_usage(
        self, held: CreditedSubscription
    ) -> None:
        await held.client.cancel(held.id, immediately=True)
        async with nothing_written(held.client, held.id):
            result = await held.use(40, february(20))
        assert result.reason == "SUBSCRIPTION_CANCELLED"

    async def test_usage_from_a_pause_belongs_to_no_period(
        self, held: CreditedSubscription
    ) -> None:
        held.reach(february(10))
        await held.client.pause(held.id)
        held.reach(MARCH + 5 * DAY)
        await held.client.resume(held.id)
        result = await held.use(40, MARCH + 2 * DAY)
        assert outcomes_of([result]) == ["rejected"]

    async def test_the_plan_tells_its_policy(self, held: CreditedSubscription) -> None:
        answer = await held.client.catalog.GetPlan(
            catalog_pb2.GetPlanRequest(tenant_id=held.client.tenant_id, plan_id=held.plan_id)
        )
        assert answer.plan.latest_version.late_usage_policy == HOLD
        await publish(held, "1")
        answer = await held.client.catalog.GetPlan(
            catalog_pb2.GetPlanRequest(tenant_id=held.client.tenant_id, plan_id=held.plan_id)
        )
        assert answer.plan.latest_version.late_usage_policy == OPEN_PERIOD


async def test_realtime_credits_pay_no_held_usage(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """The recalculation lets them."""
    metered = await subscribe_credited(
        client, clock, invoicing, holds_late_usage=True, is_realtime=True
    )
    await metered.use(100, february(3))
    billed = await metered.bill()
    granted = await metered.grant(30)
    await metered.use(40, february(20))
    assert (await metered.now(granted)).remaining_amount == 30

    answer = await recalculate(client, metered.id, billed.billing_period_id)

    assert answer.recalculation.credits_change_amount == 30
    assert (await client.balance(metered.id)).outstanding_amount == 110
