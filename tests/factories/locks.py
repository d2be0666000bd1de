"""Locks that a test holds, so that somebody gets stuck at a certain place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.factories.billing_runs import until
from tests.factories.ledger_book import Connection


@asynccontextmanager
async def locked(owner: Connection, statement: str) -> AsyncIterator[None]:
    """Hold the locks of a statement, so that a worker gets stuck there."""
    async with owner.transaction():
        await owner.execute(statement)
        yield


async def until_somebody_is_stuck(owner: Connection) -> None:
    """Return when a session of the database waits for a lock."""

    async def is_stuck() -> bool:
        statement = """
            SELECT EXISTS (
                SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
            )
        """
        return bool(await owner.fetchval(statement))

    await until(is_stuck)
