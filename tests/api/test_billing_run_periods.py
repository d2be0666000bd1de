"""Which periods a run bills: missed ones, future ones, those of late usage and of new prices."""

from datetime import datetime, timedelta

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain import identifiers
from billing.domain.money import MAX_AMOUNT_MINOR
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import catalog_pb2, subscription_pb2, usage_pb2
from tests.factories.billing_runs import (
    APRIL,
    COMPLETED,
    FAILED,
    FEBRUARY,
    JANUARY,
    MARCH,
    MAY,
    RUN_FAILED,
    SUCCEEDED,
    MeteredPlan,
    counts_of,
    due_subscriptions,
    metered_plan,
    results_by_subscription,
)
from tests.factories.client import (
    BillingClient,
    component,
    moment,
    timestamp,
    violated_fields,
)
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

DECEMBER = datetime(2025, 12, 1, tzinfo=JANUARY.tzinfo)
NOVEMBER = datetime(2025, 11, 1, tzinfo=JANUARY.tzinfo)
RATED_LATE = usage_pb2.USAGE_EVENT_DISPOSITION_RATED_LATE


async def publish(client: BillingClient, plan: MeteredPlan, *, base: int, unit_price: str) -> None:
    """Publish another version of a metered plan."""
    components = [component(plan.meter_id, unit_price=unit_price, included="0")]
    await client.catalog.UpdatePlan(
        catalog_pb2.UpdatePlanRequest(
            tenant_id=client.tenant_id,
            plan_id=plan.plan_id,
            version=client.plan_version(base_price_amount=base, components=components),
        )
    )


class TestMissedPeriods:
    async def test_each_is_billed_in_one_run_oldest_first(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        plan = await metered_plan(client, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id, started_at=NOVEMBER)
        for number, start in enumerate((NOVEMBER, DECEMBER, JANUARY, FEBRUARY), start=1):
            await client.use(subscription.id, plan.meter_id, str(number), start)

        run = await client.run_billing("run-1")

        assert (run.status, counts_of(run)) == (COMPLETED, (4, 0, 0, 0))
        bounds = [(moment(r.period_start), moment(r.period_end)) for r in run.results]
        assert bounds == [
            (NOVEMBER, DECEMBER),
            (DECEMBER, JANUARY),
            (JANUARY, FEBRUARY),
            (FEBRUARY, MARCH),
        ]
        assert [r.total_amount for r in run.results] == [2002, 2004, 2006, 2008]
        ends = [moment(result.completed_at) for result in run.results]
        assert ends == sorted(ends)
        invoices = invoices_of(invoicing, client)
        assert [i.id for i in invoices] == [r.invoice_id for r in run.results]
        created = [moment(invoice.created_at) for invoice in invoices]
        assert created == sorted(created)
        assert len({r.calculation_run_id for r in run.results}) == 4
        moved = await client.get_subscription(subscription.id)
        assert moment(moved.current_period_start) == MARCH
        await assert_ledger_explains(client, invoicing, subscription.id)

        again = await client.run_billing("run-2")
        assert list(again.results) == []
        assert len(invoices_of(invoicing, client)) == 4

    async def test_subscriptions_of_different_age_catch_up_together(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        starts = (NOVEMBER, FEBRUARY, JANUARY)
        subscriptions = [
            (await due_subscriptions(client, 1, started_at=start))[0] for start in starts
        ]

        run = await client.run_billing()

        assert counts_of(run) == (4 + 1 + 2, 0, 0, 0)
        numbers = [len(invoices_of(invoicing, client, s.id)) for s in subscriptions]
        assert numbers == [4, 1, 2]
        await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))

    async def test_a_monthly_subscription_of_the_31st_comes_back_to_the_31st(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        started_at = JANUARY.replace(day=31)
        [subscription] = await due_subscriptions(client, 1, started_at=started_at)
        clock.set(MAY)

        run = await client.run_billing()

        ends = [moment(result.period_end) for result in run.results]
        assert [(end.month, end.day) for end in ends] == [(2, 28), (3, 31), (4, 30)]
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_invoices_that_cannot_be_delivered_hold_up_no_later_period(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=NOVEMBER)
        invoicing.error_rate = 1.0
        run = await client.run_billing("run-1")
        assert (run.status, counts_of(run)) == (RUN_FAILED, (0, 4, 0, 0))
        entries = await client.entries(subscription.id)
        invoicing.error_rate = 0.0

        again = await client.run_billing("run-2")

        assert (again.status, counts_of(again)) == (COMPLETED, (4, 0, 0, 0))
        assert await client.entries(subscription.id) == entries
        await assert_ledger_explains(client, invoicing, subscription.id)


class TestAsOf:
    async def test_the_future_is_refused_for_live_data(
        self, client: BillingClient, clock: FakeClock
    ) -> None:
        [subscription] = await due_subscriptions(client, 1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run_billing(as_of=clock.now + timedelta(seconds=1))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["as_of"]
        assert await client.entries(subscription.id) == []

    async def test_the_future_is_allowed_for_test_data(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        caller = client.in_test_mode()
        [subscription] = await due_subscriptions(caller, 1)

        run = await caller.run_billing(as_of=MAY)

        ends = [moment(result.period_end) for result in run.results]
        assert ends == [MARCH, APRIL, MAY]
        assert moment(run.as_of) == MAY
        assert len(invoices_of(invoicing, caller)) == 3
        await assert_ledger_explains(caller, invoicing, subscription.id)

    @pytest.mark.parametrize(
        "as_of",
        [
            Timestamp(seconds=253_402_300_800),  # the year 10000
            Timestamp(seconds=-62_135_596_801),
            Timestamp(nanos=-1),
            timestamp(START.replace(year=2036, month=4)),
        ],
    )
    async def test_what_is_no_moment_or_lies_far_ahead_is_refused_for_test_data_too(
        self, client: BillingClient, as_of: Timestamp
    ) -> None:
        caller = client.in_test_mode()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.billing_runs.RunBilling(
                pb.RunBillingRequest(
                    tenant_id=caller.tenant_id,
                    run_type=pb.BILLING_RUN_TYPE_MANUAL,
                    request_id="run-1",
                    as_of=as_of,
                )
            )
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["as_of"]

    async def test_the_past_bills_what_was_due_then(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        [subscription] = await due_subscriptions(client, 1, started_at=NOVEMBER)

        run = await client.run_billing(as_of=JANUARY)

        ends = [moment(result.period_end) for result in run.results]
        assert ends == [DECEMBER, JANUARY]
        assert moment(run.as_of) == JANUARY
        await assert_ledger_explains(client, invoicing, subscription.id)


class TestLateUsage:
    async def test_it_is_counted_in_the_open_period_and_on_the_next_invoice(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        plan = await metered_plan(client, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
        await client.use(subscription.id, plan.meter_id, "5", FEBRUARY)
        first = await client.run_billing("run-1")

        late = await client.use(subscription.id, plan.meter_id, "7", FEBRUARY)
        await client.use(subscription.id, plan.meter_id, "11", START)

        event = await client.usage.GetUsageEvent(
            usage_pb2.GetUsageEventRequest(
                tenant_id=client.tenant_id, usage_event_id=late.usage_event_id
            )
        )
        assert event.usage_event.disposition == RATED_LATE
        assert moment(event.usage_event.event_timestamp) == FEBRUARY
        moved = await client.get_subscription(subscription.id)
        assert event.usage_event.billing_period_id == moved.current_period_id
        assert (await client.get_run(first.id)).results == first.results
        await assert_ledger_explains(client, invoicing, subscription.id)
        clock.set(APRIL)

        await client.run_billing("run-2")

        february, march = invoices_of(invoicing, client)
        assert february.total_amount == 2000 + 10
        assert march.total_amount == 2000 + 2 * (7 + 11)
        await assert_ledger_explains(client, invoicing, subscription.id)


class TestPlanVersions:
    async def test_a_version_published_within_a_period_applies_from_the_next_one(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        clock.set(FEBRUARY)
        plan = await metered_plan(client, base_price_amount=2000, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id)
        await client.use(subscription.id, plan.meter_id, "10", clock.now)
        clock.advance(days=14)
        await publish(client, plan, base=5000, unit_price="3")
        await client.use(subscription.id, plan.meter_id, "10", clock.now)
        clock.set(MARCH + timedelta(days=1))
        await client.run_billing("run-1")
        await client.use(subscription.id, plan.meter_id, "10", clock.now)
        clock.set(APRIL + timedelta(days=1))

        await client.run_billing("run-2")

        february, march = invoices_of(invoicing, client)
        assert [line.amount for line in february.line_items] == [2000, 40]
        assert [line.amount for line in march.line_items] == [5000, 30]
        await assert_ledger_explains(client, invoicing, subscription.id)

    async def test_missed_periods_have_the_prices_of_their_start(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        clock.set(JANUARY)
        plan = await metered_plan(client, base_price_amount=2000, unit_price="2", included="0")
        subscription = await client.subscribe(plan.plan_id)
        clock.set(FEBRUARY + timedelta(days=10))
        await publish(client, plan, base=5000, unit_price="3")
        clock.set(MARCH + timedelta(days=10))
        await publish(client, plan, base=7000, unit_price="4")
        clock.set(MAY + timedelta(days=10))

        run = await client.run_billing()  # the first in four months

        assert [result.total_amount for result in run.results] == [2000, 2000, 5000, 7000]
        await assert_ledger_explains(client, invoicing, subscription.id)


async def insert_foreign_charge(
    database_url: str, tenant_id: str, subscription: subscription_pb2.Subscription
) -> None:
    """Put a charge where the run's own must go, as no part of the service does."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO charges (tenant_id, livemode, id, subscription_id, billing_period_id,"
        " billing_run_id, calculation_run_id, position, charge_type, description, quantity,"
        " unit_price, amount, currency, created_at)"
        " VALUES ($1, true, $2, $3, $4, $2, $2, 0, 'recurring', 'foreign', 1, 1, 1, 'USD', now())",
        tenant_id,
        identifiers.new_id(),
        identifiers.from_typeid(identifiers.SUBSCRIPTION, subscription.id),
        identifiers.from_typeid(identifiers.BILLING_PERIOD, subscription.current_period_id),
    )
    await connection.close()


class TestUnbillable:
    async def test_one_subscription_does_not_stop_its_neighbours(
        self, client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        """A period's usage fits the ledger by itself, and no longer beside the base price."""
        before, after = await due_subscriptions(client, 2)
        plan = await metered_plan(
            client, base_price_amount=10**15, unit_price="1000000000", included="0"
        )
        unbillable = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
        await client.use(unbillable.id, plan.meter_id, "1000000", FEBRUARY)
        assert (await client.balance(unbillable.id)).unbilled_amount == MAX_AMOUNT_MINOR

        run = await client.run_billing("run-1")

        assert (run.status, counts_of(run)) == (RUN_FAILED, (2, 1, 0, 0))
        results = results_by_subscription(run)
        assert results[before.id].status == results[after.id].status == SUCCEEDED
        failed = results[unbillable.id]
        assert (failed.status, failed.error_reason) == (FAILED, "AMOUNT_OUT_OF_RANGE")
        assert str(MAX_AMOUNT_MINOR) in failed.error_message
        assert failed.invoice_id == failed.calculation_run_id == ""
        assert len(await client.entries(unbillable.id)) == 1  # the usage, and nothing of the run
        unmoved = await client.get_subscription(unbillable.id)
        assert unmoved.current_period_id == unbillable.current_period_id
        await assert_ledger_explains(client, invoicing, before.id, after.id, unbillable.id)

        # It fails again by itself, also on the direct way, and later periods wait for it.
        clock.set(APRIL)
        again = results_by_subscription(await client.run_billing("run-2"))
        assert again[unbillable.id].error_reason == "AMOUNT_OUT_OF_RANGE"
        assert again[before.id].status == again[after.id].status == SUCCEEDED
        single = await client.run_for_subscription(unbillable.id)
        assert (single.status, single.error_reason) == (FAILED, "AMOUNT_OUT_OF_RANGE")
        await assert_ledger_explains(client, invoicing, before.id, after.id, unbillable.id)

    async def test_a_failure_that_nobody_foresaw_does_not_stop_them_either(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer, database_url: str
    ) -> None:
        """The database refuses what the run writes for one subscription of the batch."""
        before, after = await due_subscriptions(client, 2, started_at=JANUARY)
        plan = await client.create_plan()
        unbillable = await client.subscribe(plan, started_at=JANUARY)
        await insert_foreign_charge(database_url, client.tenant_id, unbillable)

        run = await client.run_billing()

        assert (run.status, counts_of(run)) == (RUN_FAILED, (4, 1, 0, 0))
        [failed] = [result for result in run.results if result.status == FAILED]
        assert failed.subscription_id == unbillable.id
        assert failed.error_reason == "SUBSCRIPTION_UNBILLABLE"
        assert failed.error_message
        for subscription in (before, after):
            assert len(invoices_of(invoicing, client, subscription.id)) == 2
