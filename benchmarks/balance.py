"""The cost of a balance at a small and at a large ledger, against its bare statement."""

import time
from datetime import UTC, datetime, timedelta

import asyncpg
import uvloop

from benchmarks.surroundings import Surroundings, report, surroundings
from billing.domain.identifiers import SUBSCRIPTION, from_typeid
from billing.store.statements import load_query
from tests.factories.client import component, usage_event

SIZES = (1_000, 200_000)
EVENTS_PER_CALL = 5_000
READS = 2_000


async def main() -> None:
    """Measure after the first size and after the last: the ratio of the two is what matters."""
    async with surroundings() as around:
        client = around.client
        meter = await client.create_meter()
        plan = await client.create_plan(components=[component(meter)])
        start = datetime.now(UTC) - timedelta(days=5)
        subscription = await client.subscribe(plan, started_at=start)
        written = 0
        latencies = []
        for size in SIZES:
            while written < size:
                count = min(EVENTS_PER_CALL, size - written)
                await client.ingest(
                    [usage_event(subscription.id, meter, "1", start) for _ in range(count)]
                )
                written += count
            ours = await _read_balances(around, subscription.id)
            floor = await _floor(around, subscription.id)
            report(f"balance_at_{size}", ours=ours, floor=floor, unit="us")
            latencies.append(ours)
        report("balance_growth", ours=latencies[-1], floor=latencies[0], unit="us")


async def _read_balances(around: Surroundings, subscription_id: str) -> float:
    """Return microseconds a call, one at a time."""
    began = time.perf_counter()
    for _ in range(READS):
        await around.client.balance(subscription_id)
    return 1e6 * (time.perf_counter() - began) / READS


async def _floor(around: Surroundings, subscription_id: str) -> float:
    """The bare statement on a bare connection."""
    connection = await asyncpg.connect(around.database_url)
    statement = load_query("balance_now")
    key = from_typeid(SUBSCRIPTION, subscription_id)
    began = time.perf_counter()
    for _ in range(READS):
        await connection.fetchrow(statement, around.client.tenant_id, True, key)
    seconds = time.perf_counter() - began
    await connection.close()
    return 1e6 * seconds / READS


if __name__ == "__main__":
    uvloop.run(main())
