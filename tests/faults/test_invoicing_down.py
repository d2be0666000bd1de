"""The invoicing service is gone for whole runs: the first run after that delivers."""

from tests.factories.billing_runs import (
    COMPLETED,
    RUN_FAILED,
    counts_of,
    due_subscriptions,
    one_period_ago,
)
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.service_process import Deployment

COUNT = 10


async def test_the_first_run_after_an_outage_delivers_everything(deployment: Deployment) -> None:
    """With the settings that it has by default: four attempts outlast a channel's reconnection."""
    async with deployment.running_here() as client:
        subscriptions = await due_subscriptions(client, COUNT, started_at=one_period_ago())
        await deployment.invoicing.stop(grace_seconds=0)
        for number in range(3):
            down = await client.run_billing(f"down-{number}")
            assert (down.status, counts_of(down)) == (RUN_FAILED, (0, COUNT, 0, 0))
            assert {result.error_reason for result in down.results} == {"INVOICING_UNAVAILABLE"}
        entries = [await client.entries(s.id) for s in subscriptions]
        trial_balance = await client.trial_balance()
        await deployment.invoicing.start()

        up = await client.run_billing("up")

        assert (up.status, counts_of(up)) == (COMPLETED, (COUNT, 0, 0, 0))
        assert len(invoices_of(deployment.invoicing, client)) == COUNT
        assert [await client.entries(s.id) for s in subscriptions] == entries
        assert await client.trial_balance() == trial_balance
        await assert_ledger_explains(client, deployment.invoicing, *(s.id for s in subscriptions))
