"""Usage events a second over gRPC, against bare asyncpg that writes the same rows."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import NamedTuple

import asyncpg
import uvloop

from benchmarks.copied_rows import Connection, CopiedRows, copy_parents
from benchmarks.surroundings import Surroundings, note, report, surroundings
from billing.v1 import subscription_pb2, usage_pb2
from tests.factories.client import component, usage_event

EVENTS = 200_000
EVENTS_PER_CALL = 2_500
CALLERS = 4
SUBSCRIPTIONS_PER_CALLER = 100
PARENTS = (
    "usage_meters",
    "plans",
    "plan_versions",
    "components",
    "ledger_accounts",
    "subscriptions",
    "billing_periods",
    "subscription_usage_meters",
    "ledger_transactions",
)
AT_BILLING = subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING

Calls = Sequence[usage_pb2.IngestUsageEventsRequest]


class WrittenTable(NamedTuple):
    """Rows of a table that the calls wrote: each call as many, in the order of their ids."""

    name: str
    where: str = "true"


WRITTEN = (WrittenTable("usage_events"), WrittenTable("ledger_entries"))


async def main() -> None:
    """Measure ours, then copy what it wrote with bare asyncpg: the floor."""
    async with surroundings() as around:
        calls = await prepare(around, included_units="1000", mode=AT_BILLING)
        await measure("ingestion", around, calls, PARENTS, WRITTEN)


async def prepare(
    around: Surroundings,
    *,
    included_units: str,
    mode: subscription_pb2.CreditApplicationMode.ValueType,
) -> list[Calls]:
    """Make subscriptions, and the calls of each caller for its own ones."""
    client = around.client
    meter = await client.create_meter()
    plan = await client.create_plan(components=[component(meter, included=included_units)])
    start = datetime.now(UTC) - timedelta(days=10)
    calls: list[Calls] = []
    number = 0
    for _ in range(CALLERS):
        own = [
            (await client.subscribe(plan, started_at=start, credit_application=mode)).id
            for _ in range(SUBSCRIPTIONS_PER_CALLER)
        ]
        events = [
            usage_event(
                subscription,
                meter,
                "17",
                start + timedelta(seconds=offset),
                key=f"event-{number + offset:012d}",
                properties={"region": "eu-west"},
            )
            for offset, subscription in enumerate(islice(cycle(own), EVENTS // CALLERS))
        ]
        number += len(events)
        calls.append(
            [
                usage_pb2.IngestUsageEventsRequest(
                    tenant_id=client.tenant_id, events=events[i : i + EVENTS_PER_CALL]
                )
                for i in range(0, len(events), EVENTS_PER_CALL)
            ]
        )
    return calls


async def measure(
    name: str,
    around: Surroundings,
    calls: Sequence[Calls],
    parents: Sequence[str],
    written: Sequence[WrittenTable],
) -> None:
    """Send the calls, write the same rows again, and report both."""
    cpu_seconds = around.cpu_seconds()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for own in calls:
            group.create_task(_send(around, own))
    ours = EVENTS / (time.perf_counter() - began)
    cpu_seconds = around.cpu_seconds() - cpu_seconds
    memory = around.peak_memory_mib()
    floor = await _floor(around, parents, written)
    report(name, ours=ours, floor=floor, unit="events/s")
    note(
        f"{name}: {1e6 * cpu_seconds / EVENTS:.1f} us of the service's CPU an event, "
        f"peak memory {memory:.0f} MiB"
    )


async def _send(around: Surroundings, calls: Calls) -> None:
    usage = around.client.usage
    for request in calls:
        answer = await usage.IngestUsageEvents(request)
        assert answer.accepted_count == len(request.events)


async def _floor(
    around: Surroundings, parents: Sequence[str], written: Sequence[WrittenTable]
) -> float:
    """Write the same rows again, as another tenant's, and nothing else."""
    reader = await asyncpg.connect(around.database_url)
    await copy_parents(reader, parents)
    tables = [await CopiedRows.read(reader, table.name, where=table.where) for table in written]
    await reader.close()
    connections = [await asyncpg.connect(around.database_url) for _ in range(CALLERS)]
    share = EVENTS // EVENTS_PER_CALL // CALLERS
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, connection in enumerate(connections):
            group.create_task(_write(connection, tables, number * share, share))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return EVENTS / seconds


async def _write(
    connection: Connection, tables: Sequence[CopiedRows], first: int, count: int
) -> None:
    for call in range(first, first + count):
        async with connection.transaction():
            for rows in tables:
                each = rows.count // (EVENTS // EVENTS_PER_CALL)
                await rows.write(connection, call * each, (call + 1) * each)


if __name__ == "__main__":
    uvloop.run(main())
