"""Two worker processes on one billing run: everything is billed once."""

import signal

from tests.factories.billing_runs import (
    COMPLETED,
    counts_of,
    due_subscriptions,
    ended_run,
    held_deliveries,
    one_period_ago,
    start_run,
)
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.service_process import Deployment

COUNT = 12
BOTH_ARE_BUSY = 8
"""A worker takes four batches at a time: so many are in delivery when both have theirs."""

WORKER = {"worker_heartbeat_timeout_seconds": 2}


async def test_two_workers_share_a_run_and_one_takes_over_when_the_other_freezes(
    deployment: Deployment,
) -> None:
    async with (
        deployment.running_here({"batch_size": 1}, worker=False) as client,
        deployment.running(WORKER, command="worker") as freezing,
        deployment.running(WORKER, command="worker") as other,
    ):
        subscriptions = await due_subscriptions(client, COUNT, started_at=one_period_ago())
        with held_deliveries(deployment.invoicing) as gate:
            run = await start_run(client, "shared")
            await gate.until_waiting(BOTH_ARE_BUSY)
            gate.open()
            shared = await ended_run(client, run.id)
        assert (shared.status, counts_of(shared)) == (COMPLETED, (COUNT, 0, 0, 0))
        assert len(invoices_of(deployment.invoicing, client)) == COUNT

        subscriptions += await due_subscriptions(client, COUNT, started_at=one_period_ago())
        with held_deliveries(deployment.invoicing) as gate:
            run = await start_run(client, "taken over")
            await gate.until_waiting(BOTH_ARE_BUSY)
            freezing.send(signal.SIGSTOP)
            gate.open()
            taken_over = await ended_run(client, run.id)
        assert (taken_over.status, counts_of(taken_over)) == (COMPLETED, (COUNT, 0, 0, 0))

        freezing.send(signal.SIGCONT)
        assert await freezing.terminate() == 0  # it goes on with what it believes to be its part
        assert await client.get_run(run.id) == taken_over
        assert len(invoices_of(deployment.invoicing, client)) == 2 * COUNT
        await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))
        assert await other.terminate() == 0
