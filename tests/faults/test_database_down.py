"""PostgreSQL goes away and comes back: the service says so, and goes on without a restart."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.store.migrations import migrate
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
from tests.factories.client import BillingClient, error_info
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.service_process import Deployment

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EVERY_SERVICE = ("", "billing.v1.BillingRunService", "billing.v1.LedgerService")
SETTINGS = {"worker_heartbeat_timeout_seconds": 1}


@pytest.fixture
async def own_postgres(shared_directory: Path) -> AsyncIterator[EmbeddedPostgresServer]:
    """A server that the test may stop; its address stays the same."""
    server = EmbeddedPostgresServer(shared_directory / "own", durable=False)
    yield server
    await server.stop()


@pytest.fixture
async def own_deployment(
    own_postgres: EmbeddedPostgresServer,
    signing_key: DevelopmentKey,
    own_invoicing: ReferenceInvoicingServer,
) -> Deployment:
    """A migrated database on the server."""
    url = (await own_postgres.start()).url()
    await migrate(url)
    return Deployment(url, signing_key, own_invoicing)


async def until_health_is(client: BillingClient, status: int) -> None:
    """Return when every service has the status."""
    stub: Any = health_pb2_grpc.HealthStub(client.channel)

    async def all_have_it() -> bool:
        answers = [
            await stub.Check(health_pb2.HealthCheckRequest(service=service))
            for service in EVERY_SERVICE
        ]
        return all(answer.status == status for answer in answers)

    await until(all_have_it)


async def assert_unavailable(client: BillingClient, subscription_id: str) -> None:
    """Reads and writes are refused with what a caller needs for another attempt."""
    for call in (
        client.run_billing("while-down"),
        client.run_for_subscription(subscription_id),
        client.balance(subscription_id),
        client.create_meter(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(refused.value).reason == "DATABASE_UNAVAILABLE"
        assert retry_delay_seconds(refused.value) > 0


def retry_delay_seconds(error: grpc.aio.AioRpcError) -> int:
    """Return after how long the caller may try again; fails if the error does not say."""
    metadata: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(metadata)["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    return retry.retry_delay.seconds


async def test_the_service_goes_on_when_the_database_is_back(
    own_deployment: Deployment, own_postgres: EmbeddedPostgresServer
) -> None:
    async with (
        own_deployment.running(SETTINGS) as process,
        own_deployment.client(process.address) as client,
    ):
        subscriptions = await due_subscriptions(client, 3, started_at=one_period_ago())
        await until_health_is(client, SERVING)
        with held_deliveries(own_deployment.invoicing) as gate:
            interrupted = await start_run(client, "interrupted")
            await gate.until_waiting(3)
            later = await due_subscriptions(client, 2, started_at=one_period_ago())
            await own_postgres.stop()
            await assert_unavailable(client, later[0].id)
            await until_health_is(client, NOT_SERVING)
        await assert_unavailable(client, later[0].id)

        await own_postgres.start()
        await until_health_is(client, SERVING)

        # The worker found its queue again: a new run ends, and the one that was interrupted.
        run = await client.run_billing("after")
        assert (run.status, counts_of(run)[0]) == (COMPLETED, 2)
        ended = await ended_run(client, interrupted.id)
        assert (ended.status, counts_of(ended)) == (COMPLETED, (3, 0, 0, 0))
        everyone = [s.id for s in (*subscriptions, *later)]
        assert len(invoices_of(own_deployment.invoicing, client)) == len(everyone)
        await assert_ledger_explains(client, own_deployment.invoicing, *everyone)
        assert await process.terminate() == 0


async def test_a_process_that_lost_its_database_stops_when_asked(
    own_deployment: Deployment, own_postgres: EmbeddedPostgresServer
) -> None:
    async with (
        own_deployment.running(SETTINGS) as process,
        own_deployment.client(process.address) as client,
    ):
        await due_subscriptions(client, 1, started_at=one_period_ago())
        with held_deliveries(own_deployment.invoicing) as gate:
            run = await start_run(client)
            await gate.until_waiting(1)
            await own_postgres.stop()
        assert await process.terminate() == 0

    await own_postgres.start()
    async with own_deployment.running_here(SETTINGS, like=client) as client:
        ended = await ended_run(client, run.id)
        assert (ended.status, counts_of(ended)) == (COMPLETED, (1, 0, 0, 0))
        assert len(invoices_of(own_deployment.invoicing, client)) == 1
