"""A snapshot sees one moment and writes nothing."""

import asyncpg
import pytest

from billing.domain.scope import Scope
from billing.store.database import Database
from tests.factories.transactions import COUNT_PLANS, count_plans, database_with, insert_plan


async def test_it_does_not_see_what_is_written_after_its_first_look(
    database_url: str, scope: Scope
) -> None:
    async with database_with(database_url, pool_size=2) as database:
        async with database.snapshot(scope) as tx:
            assert await tx.pg.fetchval(COUNT_PLANS) == 0
            async with database.transaction(scope) as other:
                await insert_plan(other)
            assert await tx.pg.fetchval(COUNT_PLANS) == 0
        assert await count_plans(database, scope) == 1


async def test_it_refuses_to_write(database: Database, scope: Scope) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with database.snapshot(scope) as tx:
            await tx.pg.execute("CREATE TABLE anything ()")
    # The connection is as good as before.
    async with database.transaction(scope) as tx:
        await insert_plan(tx)


async def test_it_sees_its_scope_alone(database: Database, scope: Scope) -> None:
    async with database.transaction(scope) as tx:
        await insert_plan(tx)
    async with database.snapshot(scope) as tx:
        assert await tx.pg.fetchval(COUNT_PLANS) == 1
    async with database.snapshot(Scope(scope.tenant_id, livemode=not scope.livemode)) as tx:
        assert await tx.pg.fetchval(COUNT_PLANS) == 0
