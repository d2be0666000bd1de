"""Transactions to write with, and what ends them."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from billing.domain.scope import Scope
from billing.store.database import Database, Transaction
from tests.factories.ledger_book import connected

COUNT_PLANS = "SELECT count(*) FROM plans"
_INSERT_PLAN = """
INSERT INTO plans (tenant_id, livemode, id, currency, created_at)
VALUES ($1, $2, $3, 'USD', now())
"""


@asynccontextmanager
async def database_with(url: str, *, pool_size: int, **options: Any) -> AsyncIterator[Database]:
    """A database that is closed at the end."""
    database = Database(url, pool_size=pool_size, **options)
    try:
        yield database
    finally:
        await database.close()


async def insert_plan(tx: Transaction) -> None:
    """Insert a plan with nothing in it."""
    await tx.pg.execute(_INSERT_PLAN, tx.scope.tenant_id, tx.scope.livemode, uuid.uuid4())


async def write(
    database: Database, scope: Scope, then: Callable[[Transaction], Awaitable[object]]
) -> None:
    """Insert a plan and go on in the same transaction."""
    async with database.transaction(scope) as tx:
        await insert_plan(tx)
        await then(tx)


async def count_plans(database: Database, scope: Scope) -> int:
    """Count the plans of a scope."""
    async with database.transaction(scope) as tx:
        return int(await tx.pg.fetchval(COUNT_PLANS))


async def terminate(url: str, *pids: int) -> None:
    """End server processes, and return when they are gone."""
    async with connected(url) as connection:
        for pid in pids:
            assert await connection.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)
