"""The service dies in the middle of a billing run, and another one brings it to its end."""

import asyncio

import grpc.aio
import pytest

from billing.v1 import billing_run_pb2, subscription_pb2
from tests.factories.billing_runs import (
    COMPLETED,
    RUNNING,
    SUCCEEDED,
    counts_of,
    ended_run,
    held_deliveries,
    metered_plan,
    one_period_ago,
    start_run,
)
from tests.factories.client import BillingClient
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.ledger_book import Connection
from tests.factories.locks import locked, until_somebody_is_stuck
from tests.factories.service_process import Deployment

COUNT = 8
SETTINGS = {"batch_size": 3, "worker_heartbeat_timeout_seconds": 1}


async def due_metered_subscriptions(
    client: BillingClient, count: int = COUNT
) -> list[subscription_pb2.Subscription]:
    """Subscriptions with one due period each, and usage in it."""
    started_at = one_period_ago()
    plan = await metered_plan(client, unit_price="2", included="0")
    subscriptions = []
    for number in range(count):
        subscription = await client.subscribe(
            plan.plan_id, started_at=started_at, customer_id=f"cus-{number}"
        )
        await client.use(subscription.id, plan.meter_id, str(number), started_at)
        subscriptions.append(subscription)
    return subscriptions


async def assert_resumed_and_billed_once(
    client: BillingClient,
    deployment: Deployment,
    run: billing_run_pb2.BillingRun,
    subscriptions: list[subscription_pb2.Subscription],
) -> None:
    """The run ends by itself, with one invoice a period."""
    ended = await ended_run(client, run.id)
    assert (ended.status, counts_of(ended)) == (COMPLETED, (COUNT, 0, 0, 0))
    invoices = invoices_of(deployment.invoicing, client)
    assert len(invoices) == COUNT
    assert {invoice.id for invoice in invoices} == {result.invoice_id for result in ended.results}
    assert sum(i.total_amount for i in invoices) == COUNT * 2000 + 2 * sum(range(COUNT))
    again = await client.run_billing("again")
    assert list(again.results) == []
    await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))


async def test_killed_in_delivery(deployment: Deployment) -> None:
    """Some invoices are made, and the service never learned of them."""
    async with (
        deployment.running(SETTINGS) as process,
        deployment.client(process.address) as client,
    ):
        subscriptions = await due_metered_subscriptions(client)
        with held_deliveries(deployment.invoicing, passing_count=2) as gate:
            run = await start_run(client)
            await gate.until_waiting(4)
            assert (await client.get_run(run.id)).status == RUNNING
            await process.kill()
    assert 2 <= len(deployment.invoicing.invoices) < COUNT

    async with (
        deployment.running(SETTINGS) as revived,
        deployment.client(revived.address, client) as client,
    ):
        await assert_resumed_and_billed_once(client, deployment, run, subscriptions)
        assert await revived.terminate() == 0


async def test_killed_before_anything_is_posted(deployment: Deployment, owner: Connection) -> None:
    async with (
        deployment.running(SETTINGS) as process,
        deployment.client(process.address) as client,
    ):
        subscriptions = await due_metered_subscriptions(client)
        async with locked(owner, "SELECT FROM subscriptions FOR UPDATE"):
            run = await start_run(client)
            await until_somebody_is_stuck(owner)
            await process.kill()
    assert deployment.invoicing.create_call_count == 0

    async with deployment.running_here(SETTINGS, like=client) as client:
        await assert_resumed_and_billed_once(client, deployment, run, subscriptions)


async def test_killed_after_the_last_invoice_and_before_its_record(
    deployment: Deployment, owner: Connection
) -> None:
    """Every invoice is made, and not one is recorded."""
    async with (
        deployment.running({**SETTINGS, "batch_size": COUNT}) as process,
        deployment.client(process.address) as client,
    ):
        subscriptions = await due_metered_subscriptions(client)
        with held_deliveries(deployment.invoicing) as gate:
            run = await start_run(client)
            await gate.until_waiting(COUNT)
            async with locked(owner, "SELECT FROM billing_periods FOR UPDATE"):
                gate.open()
                await until_somebody_is_stuck(owner)
                await process.kill()
    assert len(deployment.invoicing.invoices) == COUNT
    assert await owner.fetchval("SELECT count(*) FROM billing_periods WHERE invoice_id <> ''") == 0

    async with deployment.running_here(SETTINGS, like=client) as client:
        await assert_resumed_and_billed_once(client, deployment, run, subscriptions)


async def test_a_single_run_that_was_killed_ends_when_its_call_is_repeated(
    deployment: Deployment,
) -> None:
    async with (
        deployment.running(SETTINGS) as process,
        deployment.client(process.address) as client,
    ):
        [subscription] = await due_metered_subscriptions(client, 1)
        with held_deliveries(deployment.invoicing) as gate:
            call = asyncio.create_task(client.run_for_subscription(subscription.id, "single-1"))
            await gate.until_waiting(1)
            await process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call

    async with deployment.running_here(like=client, worker=False) as client:
        result = await client.run_for_subscription(subscription.id, "single-1")
        assert result.status == SUCCEEDED
        [invoice] = invoices_of(deployment.invoicing, client)
        assert invoice.id == result.invoice_id
        assert counts_of(await client.get_run(result.run_id)) == (1, 0, 0, 0)
        await assert_ledger_explains(client, deployment.invoicing, subscription.id)
