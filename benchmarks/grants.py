"""Credits granted a second over gRPC, against bare asyncpg that writes the same rows.

As many callers as the floor has connections; each grant is a transaction of its own in both.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice

import asyncpg
import uvloop

from benchmarks.copied_rows import Connection, CopiedRows, copy_parents
from benchmarks.surroundings import Surroundings, note, report, surroundings
from billing.v1 import credit_pb2, usage_credit_pb2

GRANTS = 4_000
CALLERS = 8
SUBSCRIPTIONS_PER_CALLER = 25
# Each in the order of the credits' ids, but for the answers that are kept: they refer to nothing.
WRITTEN = (
    ("ledger_transactions", "initiating_source_id", "initiating_source_type = 'credit_grant'"),
    ("ledger_accounts", "id", "kind = 'credit'"),
    ("usage_credits", "id", "true"),
    ("usage_credit_balances", "usage_credit_id", "true"),
    ("ledger_entries", "source_usage_credit_id", "true"),
    ("idempotent_requests", "request_id", "method = 'GrantCredit'"),
)


async def main() -> None:
    """Measure ours, then write the same rows with bare asyncpg: the floor."""
    async with surroundings() as around:
        subscriptions = await _subscribe(around)
        reader = await asyncpg.connect(around.database_url)
        parents = ("plans", "plan_versions", "ledger_accounts", "subscriptions", "billing_periods")
        await copy_parents(reader, parents)
        cpu_seconds = around.cpu_seconds()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for own in subscriptions:
                group.create_task(_grant(around, own))
        ours = GRANTS / (time.perf_counter() - began)
        cpu_seconds = around.cpu_seconds() - cpu_seconds
        tables = [
            await CopiedRows.read(reader, table, order=order, where=where)
            for table, order, where in WRITTEN
        ]
        await reader.close()
        assert {rows.count for rows in tables} == {GRANTS}
        floor = await _floor(around, tables)
        report("grants", ours=ours, floor=floor, unit="calls/s")
        note(f"grants: {1e6 * cpu_seconds / GRANTS:.0f} us of the service's CPU each")


async def _subscribe(around: Surroundings) -> list[list[str]]:
    """The subscriptions of each caller: a subscription's grants go one after the other."""
    plan = await around.client.create_plan()
    start = datetime.now(UTC) - timedelta(days=1)
    return [
        [
            (await around.client.subscribe(plan, started_at=start)).id
            for _ in range(SUBSCRIPTIONS_PER_CALLER)
        ]
        for _ in range(CALLERS)
    ]


async def _grant(around: Surroundings, subscription_ids: Sequence[str]) -> None:
    calls = around.client.credits
    for number, subscription_id in enumerate(islice(cycle(subscription_ids), GRANTS // CALLERS)):
        await calls.GrantCredit(
            credit_pb2.GrantCreditRequest(
                tenant_id=around.client.tenant_id,
                subscription_id=subscription_id,
                credit_type=usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
                amount=500,
                currency="USD",
                source_reference_id="WELCOME",
                request_id=f"{subscription_id}-{number}",
            )
        )


async def _floor(around: Surroundings, tables: Sequence[CopiedRows]) -> float:
    connections = [await asyncpg.connect(around.database_url) for _ in range(CALLERS)]
    share = GRANTS // CALLERS
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, connection in enumerate(connections):
            group.create_task(_write(connection, tables, number * share, share))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return GRANTS / seconds


async def _write(
    connection: Connection, tables: Sequence[CopiedRows], first: int, count: int
) -> None:
    for number in range(first, first + count):
        async with connection.transaction():
            for rows in tables:
                await rows.write(connection, number, number + 1)


if __name__ == "__main__":
    uvloop.run(main())
