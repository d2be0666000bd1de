"""SIGTERM: calls and batches under way end properly, and then the process."""

import asyncio
import signal

import grpc
import grpc.aio

from tests.factories.billing_runs import (
    COMPLETED,
    counts_of,
    due_subscriptions,
    ended_run,
    held_deliveries,
    one_period_ago,
    start_run,
    until,
)
from tests.factories.client import BillingClient
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.service_process import Deployment


async def until_unavailable(client: BillingClient) -> None:
    """Return when the service takes no calls: one that comes just then may be cancelled."""

    async def is_unavailable() -> bool:
        try:
            await client.trial_balance()
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    await until(is_unavailable)


async def test_a_waiting_call_ends_properly_and_no_new_one_is_taken(
    deployment: Deployment,
) -> None:
    async with deployment.running() as process, deployment.client(process.address) as client:
        subscriptions = await due_subscriptions(client, 3, started_at=one_period_ago())
        with held_deliveries(deployment.invoicing) as gate:
            waiting = asyncio.create_task(start_run(client, wait=None))
            await gate.until_waiting(3)
            process.send(signal.SIGTERM)
            await process.until_draining()
            async with deployment.client(process.address) as late:
                await until_unavailable(late)
            gate.open()
            run = await waiting
        assert await process.exit_code() == 0

    assert (run.status, counts_of(run)) == (COMPLETED, (3, 0, 0, 0))
    async with deployment.running_here(like=client) as client:
        del (told := await client.get_run(run.id)).results[:]
        assert told == run
        assert len(invoices_of(deployment.invoicing, client)) == 3
        await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))


async def test_a_worker_ends_its_batches_and_takes_no_more(deployment: Deployment) -> None:
    async with (
        deployment.running_here({"batch_size": 1}, worker=False) as client,
        deployment.running(command="worker") as worker,
    ):
        subscriptions = await due_subscriptions(client, 6, started_at=one_period_ago())
        with held_deliveries(deployment.invoicing) as gate:
            run = await start_run(client)
            await gate.until_waiting(1)
            worker.send(signal.SIGTERM)
            await worker.until_draining()
            gate.open()
            assert await worker.exit_code() == 0
        taken = len(deployment.invoicing.invoices)
        left = await client.get_run(run.id)
        assert counts_of(left) == (taken, 0, 0, 6 - taken)
        assert 1 <= taken < 6

        async with deployment.running_here():
            ended = await ended_run(client, run.id)
        assert (ended.status, counts_of(ended)) == (COMPLETED, (6, 0, 0, 0))
        assert len(invoices_of(deployment.invoicing, client)) == 6
        await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))
