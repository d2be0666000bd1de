"""RunBilling: whom it bills, what it posts and what it tells, as seed 004 asks."""

from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import ledger_pb2, subscription_pb2
from tests.factories.billing_runs import (
    APRIL,
    COMPLETED,
    FAILED,
    FEBRUARY,
    MARCH,
    RUN_FAILED,
    SUCCEEDED,
    counts_of,
    due_subscriptions,
    metered_plan,
    results_by_subscription,
)
from tests.factories.client import BillingClient, error_info, moment, violated_fields
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

MOMENT = timedelta(microseconds=1)
CANCELLED = subscription_pb2.SUBSCRIPTION_STATUS_CANCELLED
CHARGE_BILLED = ledger_pb2.LEDGER_ENTRY_TYPE_CHARGE_BILLED
USAGE_COST = ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST


async def test_due_subscriptions_are_processed_and_others_are_not(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBilling processes due subscriptions", "Run billing processes subscriptions due for
    billing"."""
    due = await due_subscriptions(client, 2, started_at=FEBRUARY)
    [young] = await due_subscriptions(client, 1, started_at=MARCH)
    unmoved = await client.get_subscription(young.id)

    run = await client.run_billing(run_type=pb.BILLING_RUN_TYPE_SCHEDULED)

    assert run.run_type == pb.BILLING_RUN_TYPE_SCHEDULED
    assert run.status == COMPLETED
    assert counts_of(run) == (2, 0, 0, 0)
    assert moment(run.as_of) >= START
    assert run.HasField("completed_at")
    assert {result.subscription_id for result in run.results} == {s.id for s in due}
    for result in run.results:
        assert result.run_id == run.id
        assert result.status == SUCCEEDED
        assert (moment(result.period_start), moment(result.period_end)) == (FEBRUARY, MARCH)
        assert (result.total_amount, result.currency) == (2000, "USD")
        assert result.calculation_run_id.startswith("calcrun_")
        assert result.HasField("completed_at")
        moved = await client.get_subscription(result.subscription_id)
        assert moment(moved.current_period_start) == MARCH
        assert moment(moved.current_period_end) == APRIL
    assert await client.get_subscription(young.id) == unmoved
    await assert_ledger_explains(client, invoicing, *(s.id for s in due), young.id)


async def test_a_period_is_due_at_its_end_and_not_before(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1, started_at=FEBRUARY)

    early = await client.run_billing("early", as_of=MARCH - MOMENT)
    due = await client.run_billing("due", as_of=MARCH)

    assert (early.status, len(early.results)) == (COMPLETED, 0)
    assert moment(early.completed_at) >= moment(early.started_at)
    assert (due.status, len(due.results)) == (COMPLETED, 1)
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_the_recurring_charge_is_posted_to_the_ledger(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBilling creates recurring charges", "Run billing creates recurring charges
    correctly"."""
    [subscription] = await due_subscriptions(client, 1, base_price_amount=2000)

    run = await client.run_billing()

    [entry] = await client.entries(subscription.id)
    assert entry.entry_type == CHARGE_BILLED
    assert (entry.amount, entry.currency) == (-2000, "USD")
    assert entry.description == "Monthly subscription - Pro Plan"
    assert entry.source_charge_id.startswith("charge_")
    assert entry.billing_period_id == run.results[0].billing_period_id
    assert entry.calculation_run_id == run.results[0].calculation_run_id
    transaction = await client.ledger.GetLedgerTransaction(
        ledger_pb2.GetLedgerTransactionRequest(
            tenant_id=client.tenant_id, ledger_transaction_id=entry.ledger_transaction_id
        )
    )
    assert transaction.ledger_transaction.initiating_source_type == "billing_run"
    assert transaction.ledger_transaction.initiating_source_id == run.id
    assert list(transaction.ledger_transaction.entries) == [entry]
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_usage_is_aggregated_and_charged(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBilling creates usage charges", "Run billing aggregates usage and creates
    charges"."""
    plan = await metered_plan(client, unit_price="2", included="1000")
    subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
    for day, quantity in ((3, "400"), (4, "900"), (5, "1200")):
        at = FEBRUARY.replace(day=day)
        await client.use(subscription.id, plan.meter_id, quantity, at)

    run = await client.run_billing()

    assert run.results[0].total_amount == 2000 + 3000
    [invoice] = invoices_of(invoicing, client)
    usage_line = invoice.line_items[1]
    assert (usage_line.quantity.value, usage_line.amount) == ("1500", 3000)
    entries = await client.entries(subscription.id)
    costs = [entry.amount for entry in entries if entry.entry_type == USAGE_COST]
    assert costs == [0, -600, -2400]
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_every_billed_period_has_an_invoice_of_the_invoicing_service(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBilling creates invoices via invoicing-service", "Run billing creates invoices via
    invoicing-service"."""
    subscriptions = await due_subscriptions(client, 3)

    run = await client.run_billing()

    invoices = invoices_of(invoicing, client)
    assert {(i.subscription_id, i.customer_id) for i in invoices} == {
        (s.id, s.customer_id) for s in subscriptions
    }
    assert {(i.id, i.idempotency_key) for i in invoices} == {
        (r.invoice_id, r.billing_period_id) for r in run.results
    }
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_success_and_failure_are_recorded_per_subscription(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBilling records success/failure per subscription"."""
    subscriptions = await due_subscriptions(client, 3)
    invoicing.refused_customer_ids.add("cus-1")

    run = await client.run_billing()

    assert run.status == RUN_FAILED
    assert counts_of(run) == (2, 1, 0, 0)
    by_subscription = results_by_subscription(run)
    statuses = [by_subscription[s.id].status for s in subscriptions]
    assert statuses == [SUCCEEDED, FAILED, SUCCEEDED]
    for subscription in subscriptions:
        result = by_subscription[subscription.id]
        assert bool(result.error_reason) == bool(result.error_message) == (result.status == FAILED)
        assert bool(result.invoice_id) == (result.status == SUCCEEDED)
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_paused_subscriptions_are_skipped(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "Paused subscriptions are skipped", "Run billing skips paused subscriptions"."""
    paused, active = await due_subscriptions(client, 2)
    await client.pause(paused.id)

    run = await client.run_billing()

    assert [result.subscription_id for result in run.results] == [active.id]
    assert await client.entries(paused.id) == []
    await assert_ledger_explains(client, invoicing, paused.id, active.id)


async def test_cancelled_subscriptions_are_skipped(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "Run billing skips cancelled subscriptions"."""
    cancelled, active = await due_subscriptions(client, 2, started_at=MARCH)
    await client.cancel(cancelled.id, immediately=True)
    assert (await client.get_subscription(cancelled.id)).status == CANCELLED
    clock.set(APRIL)

    run = await client.run_billing()

    assert [result.subscription_id for result in run.results] == [active.id]
    assert len(invoices_of(invoicing, client, cancelled.id)) == 1  # of the cancellation itself
    await assert_ledger_explains(client, invoicing, cancelled.id, active.id)


async def test_a_second_run_bills_nothing(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1)
    await client.run_billing("run-1")
    entries = await client.entries(subscription.id)

    again = await client.run_billing("run-2")

    assert (again.status, len(again.results)) == (COMPLETED, 0)
    assert await client.entries(subscription.id) == entries
    assert len(invoices_of(invoicing, client)) == 1


async def test_an_invoicing_failure_is_recorded_as_the_results_error(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "Billing run with invoicing failure records error"."""
    [subscription] = await due_subscriptions(client, 1)
    invoicing.error_rate = 1.0

    run = await client.run_billing()

    assert run.status == RUN_FAILED
    [result] = run.results
    assert result.status == FAILED
    assert result.error_reason == "INVOICING_UNAVAILABLE"
    assert "nothing was done" in result.error_message
    assert (result.invoice_id, result.total_amount) == ("", 2000)
    balance = await client.balance(subscription.id)
    assert balance.billed_not_invoiced_amount == 2000
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_a_tenant_bills_and_sees_its_own_subscriptions_alone(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "All methods enforce tenant isolation"."""
    other = client.for_tenant(f"{client.tenant_id}-other")
    [ours] = await due_subscriptions(client, 1)
    [theirs] = await due_subscriptions(other, 1)

    run = await client.run_billing()

    assert [result.subscription_id for result in run.results] == [ours.id]
    assert invoices_of(invoicing, other) == []
    assert moment((await other.get_subscription(theirs.id)).current_period_start) == FEBRUARY
    for call in (other.get_run(run.id), other.run_for_subscription(ours.id)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    listed = await other.billing_runs.ListBillingRuns(
        pb.ListBillingRunsRequest(tenant_id=other.tenant_id)
    )
    assert list(listed.billing_runs) == []


async def test_live_and_test_data_never_touch(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    test_mode = client.in_test_mode()
    [live] = await due_subscriptions(client, 1)
    [test] = await due_subscriptions(test_mode, 1)

    run = await test_mode.run_billing()

    assert [result.subscription_id for result in run.results] == [test.id]
    assert invoices_of(invoicing, client) == []
    assert len(invoices_of(invoicing, test_mode)) == 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.get_run(run.id)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert await client.entries(live.id) == []
    await assert_ledger_explains(test_mode, invoicing, test.id)


CALLS: dict[str, Any] = {
    "RunBilling": pb.RunBillingRequest(run_type=pb.BILLING_RUN_TYPE_MANUAL, request_id="run-1"),
    "RunBillingForSubscription": pb.RunBillingForSubscriptionRequest(
        subscription_id="sub_01h455vb4pex5vsknk084sn02q", request_id="single-1"
    ),
    "GetBillingRun": pb.GetBillingRunRequest(run_id="run_01h455vb4pex5vsknk084sn02q"),
    "ListBillingRuns": pb.ListBillingRunsRequest(),
    "ListBillingRunResults": pb.ListBillingRunResultsRequest(
        run_id="run_01h455vb4pex5vsknk084sn02q"
    ),
}
CAPABILITIES = {
    method: "billing.run:execute" if method.startswith("Run") else "billing.run:read"
    for method in CALLS
}


@pytest.mark.parametrize("method", CALLS)
async def test_every_method_requires_its_capability(client: BillingClient, method: str) -> None:
    """004: "All methods check capabilities", "Operations without capability return
    PERMISSION_DENIED"."""
    request = type(CALLS[method])()
    request.CopyFrom(CALLS[method])
    request.tenant_id = client.tenant_id
    others = {*CAPABILITIES.values(), "billing.ledger:read"} - {CAPABILITIES[method]}

    for capabilities in ((), tuple(others)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(client.with_capabilities(*capabilities).billing_runs, method)(request)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error_info(refused.value).reason

    # With the capability alone the call gets as far as its own answer.
    allowed = getattr(client.with_capabilities(CAPABILITIES[method]).billing_runs, method)
    if method in ("RunBilling", "ListBillingRuns"):
        await allowed(request)
    else:
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await allowed(request)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", CALLS)
async def test_a_tenant_that_the_token_lacks_is_refused_before_existence_is_looked_at(
    client: BillingClient, method: str
) -> None:
    """004: "All methods enforce tenant isolation"."""
    request = type(CALLS[method])()
    request.CopyFrom(CALLS[method])
    request.tenant_id = "somebody-else"

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(client.billing_runs, method)(request)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("run_type", [pb.BILLING_RUN_TYPE_SINGLE, pb.BILLING_RUN_TYPE_UNSPECIFIED])
async def test_only_scheduled_and_manual_runs_can_be_asked_for(
    client: BillingClient, run_type: int
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_billing(run_type=run_type)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == ["run_type"]


async def test_a_request_id_is_required(client: BillingClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_billing("")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == ["request_id"]


async def test_runs_results_and_invoices_are_metered(
    client: BillingClient, service: RunningService, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "Add metering for billing operations"."""
    await due_subscriptions(client, 3)
    invoicing.refused_customer_ids.add("cus-1")

    await client.run_billing()

    def count(name: str, **labels: str) -> float | None:
        labels["tenant_id"] = client.tenant_id
        return service.metrics.registry.get_sample_value(f"billing_{name}_total", labels)

    assert count("runs", run_type="manual", status="failed") == 1
    assert count("run_subscriptions_processed") == 3
    assert count("run_subscriptions_succeeded") == 2
    assert count("run_subscriptions_failed") == 1
    assert count("invoices_created") == 2
    invoicing.refused_customer_ids.clear()
    await client.run_billing("the rest")
    await client.run_billing("nothing left")
    assert count("runs", run_type="manual", status="completed") == 2
    assert count("invoices_created") == 3
