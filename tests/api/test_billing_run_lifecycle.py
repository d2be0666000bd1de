"""What pauses, resumptions and cancellations mean for billing runs."""

from datetime import timedelta

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import subscription_pb2, usage_pb2
from tests.factories.billing_runs import (
    APRIL,
    COMPLETED,
    FEBRUARY,
    MARCH,
    MAY,
    counts_of,
    due_subscriptions,
    metered_plan,
)
from tests.factories.client import BillingClient, moment
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

ACTIVE = subscription_pb2.SUBSCRIPTION_STATUS_ACTIVE
CANCELLED = subscription_pb2.SUBSCRIPTION_STATUS_CANCELLED
REJECTED = usage_pb2.USAGE_EVENT_OUTCOME_REJECTED
MID_FEBRUARY = FEBRUARY + timedelta(days=13)


class TestPause:
    async def test_resumed_within_its_period_a_subscription_is_billed_as_ever(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=MARCH)
        await client.pause(subscription.id)
        clock.advance(days=5)
        resumed = await client.resume(subscription.id)
        assert moment(resumed.current_period_end) == APRIL
        clock.set(APRIL)

        run = await client.run_billing()

        [result] = run.results
        assert (moment(result.period_start), moment(result.period_end)) == (MARCH, APRIL)
        assert result.total_amount == 2000
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_resumed_after_its_period_the_old_one_is_billed_and_the_next_begins_then(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        clock.set(MID_FEBRUARY)
        plan = await metered_plan(client, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
        await client.use(subscription.id, plan.meter_id, "3", FEBRUARY)
        await client.pause(subscription.id)
        clock.set(START)
        paused = await client.run_billing("paused")
        assert list(paused.results) == []
        resumed = await client.resume(subscription.id)
        resumed_at = moment(resumed.updated_at)
        await client.use(subscription.id, plan.meter_id, "5", resumed_at)

        run = await client.run_billing("resumed")

        [result] = run.results  # nothing for the time between
        assert (moment(result.period_start), moment(result.period_end)) == (FEBRUARY, MARCH)
        assert result.total_amount == 2000 + 6
        current = await client.get_subscription(subscription.id)
        assert current.status == ACTIVE
        assert moment(current.current_period_start) == resumed_at
        assert moment(current.current_period_end) == resumed_at.replace(month=4)
        clock.set(MAY)
        [later] = (await client.run_billing("later")).results
        assert moment(later.period_start) == resumed_at
        assert later.total_amount == 2000 + 10
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_a_period_billed_before_the_pause_is_still_delivered_within_it(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1)
        invoicing.error_rate = 1.0
        await client.run_billing("run-1")
        await client.pause(subscription.id)
        invoicing.error_rate = 0.0

        run = await client.run_billing("run-2")

        assert (run.status, counts_of(run)) == (COMPLETED, (1, 0, 0, 0))
        assert len(invoices_of(invoicing, client)) == 1
        await assert_ledger_explains(client, invoicing, subscription.id)


class TestCancelAtPeriodEnd:
    async def test_the_run_that_bills_the_last_period_cancels(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=MARCH)
        answer = await client.cancel(subscription.id)
        assert answer.run_id == ""
        assert answer.subscription.status == ACTIVE
        assert moment(answer.subscription.cancel_at) == APRIL
        assert list((await client.run_billing("early")).results) == []
        clock.set(APRIL)

        run = await client.run_billing("last")

        [result] = run.results
        assert (moment(result.period_start), moment(result.period_end)) == (MARCH, APRIL)
        cancelled = await client.get_subscription(subscription.id)
        assert cancelled.status == CANCELLED
        assert moment(cancelled.cancelled_at) == APRIL
        clock.set(MAY)
        assert list((await client.run_billing("after")).results) == []
        assert len(invoices_of(invoicing, client)) == 1
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_missed_periods_are_billed_up_to_the_last(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=FEBRUARY)
        await client.cancel(subscription.id)  # February is not billed yet; March is the last
        clock.set(MAY)

        run = await client.run_billing()

        starts = [moment(result.period_start) for result in run.results]
        assert starts == [FEBRUARY, MARCH]
        assert (await client.get_subscription(subscription.id)).status == CANCELLED
        assert len(invoices_of(invoicing, client)) == 2
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_a_single_run_cancels_as_well(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=MARCH)
        await client.cancel(subscription.id)
        clock.set(APRIL)

        await client.run_for_subscription(subscription.id)

        assert (await client.get_subscription(subscription.id)).status == CANCELLED
        await assert_ledger_explains(client, invoicing, subscription.id)


class TestCancelImmediately:
    async def test_the_period_is_cut_billed_and_invoiced_at_once(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        plan = await metered_plan(client, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id, started_at=MARCH)
        await client.use(subscription.id, plan.meter_id, "4", MARCH)

        answer = await client.cancel(subscription.id, immediately=True)

        cancelled = answer.subscription
        assert cancelled.status == CANCELLED
        cut_at = moment(cancelled.cancelled_at)
        assert START <= cut_at <= clock.now
        run = await client.get_run(answer.run_id)
        assert (run.run_type, run.status) == (pb.BILLING_RUN_TYPE_SINGLE, COMPLETED)
        [result] = run.results
        assert (moment(result.period_start), moment(result.period_end)) == (MARCH, cut_at)
        [invoice] = invoices_of(invoicing, client)
        assert moment(invoice.period_end) == cut_at
        assert invoice.total_amount == result.total_amount == 2000 + 8
        refused = await client.use(subscription.id, plan.meter_id, "1", MARCH)
        assert (refused.outcome, refused.reason) == (REJECTED, "SUBSCRIPTION_CANCELLED")
        await assert_ledger_explains(client, invoicing, subscription.id)

        repeated = await client.cancel(subscription.id, immediately=True)
        assert repeated == answer
        clock.set(MAY)
        assert list((await client.run_billing()).results) == []
        assert len(invoices_of(invoicing, client)) == 1

    async def test_missed_periods_are_billed_before_the_cut_one(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=FEBRUARY)

        answer = await client.cancel(subscription.id, immediately=True)

        run = await client.get_run(answer.run_id)
        starts = [moment(result.period_start) for result in run.results]
        assert starts == [FEBRUARY, MARCH]
        assert len(invoices_of(invoicing, client)) == 2
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_a_paused_subscription_is_billed_up_to_its_periods_end(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        clock.set(MID_FEBRUARY)
        [subscription] = await due_subscriptions(client, 1, started_at=FEBRUARY)
        await client.pause(subscription.id)
        clock.set(START)

        answer = await client.cancel(subscription.id, immediately=True)

        assert moment(answer.subscription.cancelled_at) == MARCH
        [result] = (await client.get_run(answer.run_id)).results
        assert (moment(result.period_start), moment(result.period_end)) == (FEBRUARY, MARCH)
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_a_cancellation_on_its_way_can_be_hastened(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=MARCH)
        await client.cancel(subscription.id, request_id="at-period-end")

        answer = await client.cancel(subscription.id, immediately=True, request_id="now")

        assert answer.subscription.status == CANCELLED
        assert moment(answer.subscription.cancelled_at) < APRIL
        assert len(invoices_of(invoicing, client)) == 1
        await assert_ledger_explains(client, invoicing, subscription.id)
