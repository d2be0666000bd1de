"""RunBillingForSubscription: the oldest due period of one subscription, at once."""

import asyncio

import grpc
import grpc.aio
import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from tests.factories.billing_runs import (
    APRIL,
    COMPLETED,
    FAILED,
    FEBRUARY,
    JANUARY,
    MARCH,
    RUN_FAILED,
    SKIPPED,
    SUCCEEDED,
    counts_of,
    due_subscriptions,
    ended_run,
    held_deliveries,
    start_run,
)
from tests.factories.client import BillingClient, error_info, moment, violated_fields
from tests.factories.clock import FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

UNKNOWN = "sub_01h455vb4pex5vsknk084sn02q"


async def test_it_processes_that_subscription_alone(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBillingForSubscription processes single subscription", "Run billing for
    subscription processes single sub"."""
    billed, other = await due_subscriptions(client, 2)
    unmoved = await client.get_subscription(other.id)

    result = await client.run_for_subscription(billed.id)

    run = await client.get_run(result.run_id)
    assert run.run_type == pb.BILLING_RUN_TYPE_SINGLE
    assert run.status == COMPLETED
    assert list(run.results) == [result]
    assert counts_of(run) == (1, 0, 0, 0)
    assert await client.get_subscription(other.id) == unmoved
    assert await client.entries(other.id) == []
    await assert_ledger_explains(client, invoicing, billed.id, other.id)


async def test_it_returns_the_result_at_once(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "RunBillingForSubscription returns immediate result", "Run billing for subscription
    returns result"."""
    [subscription] = await due_subscriptions(client, 1)

    result = await client.run_for_subscription(subscription.id)

    assert result.status == SUCCEEDED
    assert result.subscription_id == subscription.id
    assert result.billing_period_id == subscription.current_period_id
    assert (moment(result.period_start), moment(result.period_end)) == (FEBRUARY, MARCH)
    assert (result.total_amount, result.currency) == (2000, "USD")
    [invoice] = invoices_of(invoicing, client)
    assert (invoice.id, invoice.total_amount) == (result.invoice_id, 2000)
    assert result.HasField("completed_at")


async def test_it_bills_the_oldest_due_period_only(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1, started_at=JANUARY)

    first = await client.run_for_subscription(subscription.id, "single-1")
    assert (moment(first.period_start), moment(first.period_end)) == (JANUARY, FEBRUARY)
    assert len(invoices_of(invoicing, client)) == 1
    second = await client.run_for_subscription(subscription.id, "single-2")
    assert (moment(second.period_start), moment(second.period_end)) == (FEBRUARY, MARCH)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(subscription.id, "single-3")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    info = error_info(refused.value)
    assert info.reason == "NO_BILLING_PERIOD_DUE"
    assert info.metadata["subscription_id"] == subscription.id
    assert info.metadata["current_period_end"] == APRIL.isoformat()
    assert len(invoices_of(invoicing, client)) == 2
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_a_paused_subscription_is_in_the_wrong_state(client: BillingClient) -> None:
    [subscription] = await due_subscriptions(client, 1)
    await client.pause(subscription.id)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(subscription.id)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(refused.value).reason == "SUBSCRIPTION_NOT_ACTIVE"
    assert await client.entries(subscription.id) == []


async def test_a_cancelled_subscription_is_in_the_wrong_state(client: BillingClient) -> None:
    [subscription] = await due_subscriptions(client, 1)
    await client.cancel(subscription.id, immediately=True)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(subscription.id)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(refused.value).reason == "SUBSCRIPTION_NOT_ACTIVE"


async def test_an_unknown_subscription_is_not_found(client: BillingClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(UNKNOWN)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_info(refused.value).reason == "SUBSCRIPTION_NOT_FOUND"


@pytest.mark.parametrize(
    ("subscription_id", "request_id", "field"),
    [
        ("", "single-1", "subscription_id"),
        ("plan_01h455vb4pex5vsknk084sn02q", "single-1", "subscription_id"),
        (UNKNOWN, "", "request_id"),
        (UNKNOWN, "x" * 129, "request_id"),
    ],
)
async def test_malformed_requests_are_refused(
    client: BillingClient, subscription_id: str, request_id: str, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(subscription_id, request_id)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == [field]


async def test_a_repeat_returns_the_same_result(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1, started_at=JANUARY)
    first = await client.run_for_subscription(subscription.id, "single-1")
    clock.advance(days=40)

    assert await client.run_for_subscription(subscription.id, "single-1") == first

    assert len(invoices_of(invoicing, client)) == 1
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_a_request_id_stands_for_one_subscription(client: BillingClient) -> None:
    first, second = await due_subscriptions(client, 2)
    await client.run_for_subscription(first.id, "single-1")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run_for_subscription(second.id, "single-1")

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == ["request_id"]
    assert error_info(refused.value).reason == "REQUEST_ID_REUSED"
    assert await client.entries(second.id) == []


async def test_a_repeat_beside_the_first_call_bills_once(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        first = asyncio.create_task(client.run_for_subscription(subscription.id, "single-1"))
        await gate.until_waiting(1)
        second = asyncio.create_task(client.run_for_subscription(subscription.id, "single-1"))
        await gate.until_waiting(2)  # both deliver the one invoice
        gate.open()
        results = await asyncio.gather(first, second)

    assert results[0] == results[1]
    assert results[0].status == SUCCEEDED
    run = await client.get_run(results[0].run_id)
    assert counts_of(run) == (1, 0, 0, 0)
    assert len(invoices_of(invoicing, client)) == 1
    await assert_ledger_explains(client, invoicing, subscription.id)


async def test_a_period_that_a_running_run_has_is_refused_with_the_name_of_the_run(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        run = await start_run(client)
        await gate.until_waiting(1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run_for_subscription(subscription.id)
        gate.open()
        ended = await ended_run(client, run.id)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    info = error_info(refused.value)
    assert (info.reason, info.metadata["run_id"]) == ("BILLING_PERIOD_TAKEN", run.id)
    assert counts_of(ended) == (1, 0, 0, 0)
    # The refusal was not stored: with the same request_id the caller may try again.
    with pytest.raises(grpc.aio.AioRpcError) as nothing_due:
        await client.run_for_subscription(subscription.id)
    assert error_info(nothing_due.value).reason == "NO_BILLING_PERIOD_DUE"


async def test_a_batch_run_skips_what_a_single_run_has(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    first, second = await due_subscriptions(client, 2)
    with held_deliveries(invoicing) as gate:
        billing = asyncio.create_task(client.run_for_subscription(first.id))
        await gate.until_waiting(1)
        run = await start_run(client)
        gate.open()
        single = await billing
        ended = await ended_run(client, run.id)

    assert single.status == SUCCEEDED
    by_subscription = {result.subscription_id: result for result in ended.results}
    assert by_subscription[first.id].status == SKIPPED
    assert by_subscription[first.id].taken_by_run_id == single.run_id
    assert by_subscription[second.id].status == SUCCEEDED
    assert counts_of(ended) == (1, 0, 1, 0)
    assert ended.status == COMPLETED
    await assert_ledger_explains(client, invoicing, first.id, second.id)


async def test_a_refused_invoice_does_not_keep_the_next_period_from_being_billed(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """What is due comes first, and then what could not be delivered, oldest first."""
    [subscription] = await due_subscriptions(client, 1, started_at=JANUARY)
    invoicing.error_rate = 1.0
    january = await client.run_for_subscription(subscription.id, "single-1")
    february = await client.run_for_subscription(subscription.id, "single-2")
    entries = await client.entries(subscription.id)
    invoicing.error_rate = 0.0

    assert (january.status, february.status) == (FAILED, FAILED)
    assert january.error_reason == "INVOICING_UNAVAILABLE"
    assert moment(february.period_start) == moment(january.period_end)
    assert (await client.get_run(january.run_id)).status == RUN_FAILED
    # The same request_id tells what became of it, and does nothing.
    assert await client.run_for_subscription(subscription.id, "single-1") == january
    assert invoices_of(invoicing, client) == []

    delivered = [
        await client.run_for_subscription(subscription.id, request_id)
        for request_id in ("single-3", "single-4")
    ]

    assert [result.status for result in delivered] == [SUCCEEDED, SUCCEEDED]
    assert [result.billing_period_id for result in delivered] == [
        january.billing_period_id,
        february.billing_period_id,
    ]
    assert await client.entries(subscription.id) == entries
    await assert_ledger_explains(client, invoicing, subscription.id)
