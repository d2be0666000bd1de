"""The service dies in the middle of an import, and the importer goes on with the next one."""

import asyncio
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import asyncpg

from billing.v1 import usage_pb2
from tests.factories.billing_runs import until
from tests.factories.client import BillingClient, component
from tests.factories.ports import free_port
from tests.factories.service_process import Deployment
from tests.factories.usage_import import TRACE_START, write_trace

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ROWS = 3_000
METERS = ("input_tokens", "output_tokens")
OPTIONS = [
    *("--map", "event_timestamp=TIMESTAMP", "--time-zone", "UTC", "--batch-size", "100"),
    *("--meter", "input_tokens=ContextTokens", "--meter", "output_tokens=GeneratedTokens"),
]


async def until_stored(owner: Owner, count: int) -> None:
    """Return when the service has so many events."""

    async def stored() -> bool:
        return int(await owner.fetchval("SELECT count(*) FROM usage_events")) >= count

    await until(stored)


async def test_every_acknowledged_event_is_there_once(
    deployment: Deployment, owner: Owner, tmp_path: Path
) -> None:
    """Killed while events arrive, started again at the same address; nobody begins anew."""
    file = tmp_path / "trace.csv"
    sums = write_trace(file, ROWS)
    settings = {"listen_address": f"127.0.0.1:{free_port()}"}
    async with (
        deployment.running(settings) as process,
        deployment.client(process.address) as client,
    ):
        components = [
            component(await client.create_meter(code), name=code, unit_price="0.5")
            for code in METERS
        ]
        plan_id = await client.create_plan(base_price_amount=0, components=components)
        subscription = await client.subscribe(plan_id, started_at=TRACE_START)
        importer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "billing.cli", "usage", "import", str(file), *OPTIONS),
            *("--address", process.address, "--tenant", client.tenant_id),
            *("--set", f"subscription_id={subscription.id}"),
            env={**os.environ, "BILLING_TOKEN": client.token},
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until_stored(owner, 500)
        await process.kill()
    stored_count = int(await owner.fetchval("SELECT count(*) FROM usage_events"))
    assert 500 <= stored_count < 2 * ROWS
    assert importer.returncode is None

    async with (
        deployment.running(settings) as revived,
        deployment.client(revived.address, client) as client,
    ):
        async with asyncio.timeout(60):
            assert await importer.wait() == 0
        entries = await client.entries(subscription.id)
        assert len({entry.source_usage_event_id for entry in entries}) == len(entries) == 2 * ROWS
        expected = sum(-(-total // 2) for total in sums)  # halves up
        assert sum(entry.amount for entry in entries) == -expected
        assert (await client.balance(subscription.id)).outstanding_amount == expected
        quantities = await _quantities(client, subscription.id)
        assert quantities == sum(sums)


async def _quantities(client: BillingClient, subscription_id: str) -> Decimal:
    """The sum of what is stored, whatever the meter."""
    total = Decimal(0)
    page_token = ""
    while True:
        answer = await client.usage.ListUsageEvents(
            usage_pb2.ListUsageEventsRequest(
                tenant_id=client.tenant_id,
                subscription_id=subscription_id,
                page_size=1000,
                page_token=page_token,
            )
        )
        total += sum(Decimal(event.quantity.value) for event in answer.usage_events)
        page_token = answer.next_page_token
        if not page_token:
            return total
