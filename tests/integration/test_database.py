"""Transactions and the pool, against a real PostgreSQL that fails in real ways."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest
import sqlalchemy as sa

from billing.domain.errors import DatabaseUnavailable
from billing.domain.scope import Scope
from billing.store.database import (
    APPLICATION_ROLE,
    Database,
    Transaction,
    TransactionAborted,
)
from tests.factories.client import new_tenant
from tests.factories.ledger_book import connected
from tests.factories.transactions import (
    COUNT_PLANS,
    count_plans,
    database_with,
    insert_plan,
    terminate,
    write,
)

DEADLINE_SECONDS = 10.0
SCOPE_NOW = (
    "SELECT current_setting('billing.tenant_id', true), current_setting('billing.livemode', true)"
)


async def divide_by_zero(tx: Transaction) -> None:
    await tx.pg.execute("SELECT 1 / 0")


async def assert_clean(database: Database, former: Scope) -> None:
    """Assert that the pool's one connection shows another scope that scope alone."""
    scope = Scope(new_tenant(), livemode=not former.livemode)
    async with database.transaction(scope) as tx:
        assert tuple(await tx.pg.fetchrow(SCOPE_NOW) or ()) == (
            scope.tenant_id,
            str(scope.livemode).lower(),
        )
        assert await tx.pg.fetchval(COUNT_PLANS) == 0
        await insert_plan(tx)
    assert await count_plans(database, scope) == 1


async def cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def cancel_asleep(url: str, task: "asyncio.Task[None]") -> None:
    """Cancel a task whose statement is at ``pg_sleep``: seen there, it is sure to be at work."""
    asleep = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    async with connected(url) as connection, asyncio.timeout(DEADLINE_SECONDS):
        while not await connection.fetchval(asleep):
            assert not task.done()
    await cancel(task)


class TestTransaction:
    async def test_it_works_as_the_application_in_its_scope(
        self, database: Database, scope: Scope
    ) -> None:
        async with database.transaction(scope) as tx:
            assert tx.scope == scope
            assert await tx.pg.fetchval("SELECT current_user") == APPLICATION_ROLE
            assert tuple(await tx.pg.fetchrow(SCOPE_NOW) or ()) == (scope.tenant_id, "true")

    async def test_it_commits_what_both_ways_wrote(self, database: Database, scope: Scope) -> None:
        async with database.transaction(scope) as tx:
            await insert_plan(tx)
            assert (await tx.sa.execute(sa.text(COUNT_PLANS))).scalar_one() == 1
            await tx.sa.execute(
                sa.text(
                    "INSERT INTO plans VALUES (:tenant, true, gen_random_uuid(), 'EUR', now())"
                ),
                {"tenant": scope.tenant_id},
            )
            assert await tx.pg.fetchval(COUNT_PLANS) == 2

        assert await count_plans(database, scope) == 2
        await assert_clean(database, scope)

    async def test_an_error_rolls_back(self, database: Database, scope: Scope) -> None:
        async def fail(_: Transaction) -> None:
            raise LookupError

        with pytest.raises(LookupError):
            await write(database, scope, fail)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    async def test_a_failed_statement_rolls_back(self, database: Database, scope: Scope) -> None:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await write(database, scope, divide_by_zero)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    async def test_a_swallowed_failure_is_no_commit(self, database: Database, scope: Scope) -> None:
        async def swallow(tx: Transaction) -> None:
            with suppress(asyncpg.DivisionByZeroError):
                await divide_by_zero(tx)

        with pytest.raises(TransactionAborted):
            await write(database, scope, swallow)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    @pytest.mark.parametrize(
        "tenant_id",
        [
            "o'brien",
            "'; SET LOCAL billing.tenant_id = 'other'; --",
            "\\'; SET LOCAL billing.tenant_id = 'other'; --",
            "$$; COMMIT; $$",
            "%s {} :name \u2028 \N{SNOWMAN}",
        ],
    )
    async def test_no_tenant_id_breaks_out_of_its_setting(
        self, database: Database, tenant_id: str
    ) -> None:
        async with database.transaction(Scope(tenant_id, livemode=False)) as tx:
            assert tuple(await tx.pg.fetchrow(SCOPE_NOW) or ()) == (tenant_id, "false")


class TestCancellation:
    async def test_between_statements(self, database: Database, scope: Scope) -> None:
        began = asyncio.Event()

        async def wait(_: Transaction) -> None:
            began.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(write(database, scope, wait))
        await began.wait()
        await cancel(task)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    @pytest.mark.parametrize("through", ["asyncpg", "sqlalchemy"])
    async def test_in_a_statement(
        self, database: Database, database_url: str, scope: Scope, through: str
    ) -> None:
        async def sleep(tx: Transaction) -> None:
            if through == "asyncpg":
                await tx.pg.execute("SELECT pg_sleep(60)")
            else:
                await tx.sa.execute(sa.text("SELECT pg_sleep(60)"))

        await cancel_asleep(database_url, asyncio.create_task(write(database, scope, sleep)))

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    async def test_in_the_commit(self, database: Database, database_url: str, scope: Scope) -> None:
        """A deferred trigger makes the commit slow."""

        async def slow_down_commit(tx: Transaction) -> None:
            await tx.pg.execute(
                "CREATE TEMPORARY TABLE slow (id integer) ON COMMIT DROP;"
                "CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql"
                " AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';"
                "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON slow"
                " DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION pg_temp.wait();"
                "INSERT INTO slow VALUES (1)"
            )

        task = asyncio.create_task(write(database, scope, slow_down_commit))
        await cancel_asleep(database_url, task)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)

    async def test_of_a_statement_that_goes_on(
        self,
        database: Database,
        database_url: str,
        scope: Scope,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """PostgreSQL may miss a cancellation; then the connection is given up, whatever it does."""
        monkeypatch.setattr("billing.store.database._ROLL_BACK_TIMEOUT_SECONDS", 0.05)
        pids = []

        async def sleep_on(tx: Transaction) -> None:
            pids.append(await tx.pg.fetchval("SELECT pg_backend_pid()"))
            await tx.pg.execute(
                "DO $$ BEGIN PERFORM pg_sleep(60);"
                " EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END $$"
            )

        await cancel_asleep(database_url, asyncio.create_task(write(database, scope, sleep_on)))

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)
        await terminate(database_url, *pids)

    async def test_while_waiting_for_a_connection(self, database_url: str, scope: Scope) -> None:
        began = asyncio.Event()

        async def queue_up(database: Database) -> None:
            began.set()  # whoever awaits it is woken when this task waits
            await count_plans(database, scope)

        async with database_with(database_url, pool_size=1) as database:
            async with database.transaction(scope):
                task = asyncio.create_task(queue_up(database))
                await began.wait()
                await cancel(task)

            await assert_clean(database, scope)


class TestPool:
    async def test_no_connection_to_be_had_is_an_error(
        self, database: Database, scope: Scope
    ) -> None:
        async with database.transaction(scope) as tx:
            with pytest.raises(DatabaseUnavailable):
                await asyncio.wait_for(count_plans(database, scope), DEADLINE_SECONDS)
            await insert_plan(tx)

        assert await count_plans(database, scope) == 1

    async def test_a_server_that_is_not_there(self, scope: Scope) -> None:
        nowhere = "postgresql://nobody@/nowhere?host=/nowhere/at/all&port=5432"
        async with database_with(nowhere, pool_size=1) as database:
            with pytest.raises(DatabaseUnavailable):
                await database.ping()
            with pytest.raises(DatabaseUnavailable):
                await count_plans(database, scope)
            with pytest.raises(DatabaseUnavailable):
                async with database.dedicated_connection():
                    pass

    async def test_a_ping_needs_no_scope(self, database: Database) -> None:
        await database.ping()

    async def test_connections_lost_at_rest_are_replaced(
        self, database_url: str, scope: Scope
    ) -> None:
        size = 3
        async with database_with(database_url, pool_size=size) as database:
            all_are_open = asyncio.Barrier(size)

            async def backend_pid() -> int:
                async with database.transaction(scope) as tx:
                    await all_are_open.wait()
                    return int(await tx.pg.fetchval("SELECT pg_backend_pid()"))

            lost = await asyncio.gather(*(backend_pid() for _ in range(size)))
            await terminate(database_url, *lost)

            assert await count_plans(database, scope) == 0  # the first caller meets all the dead
            found = await asyncio.gather(*(backend_pid() for _ in range(size)))
            assert not set(lost) & set(found)

    @pytest.mark.parametrize("through", ["asyncpg", "sqlalchemy", "commit"])
    async def test_a_connection_lost_at_work(
        self, database: Database, database_url: str, scope: Scope, through: str
    ) -> None:
        async def lose_connection(tx: Transaction) -> None:
            await terminate(database_url, await tx.pg.fetchval("SELECT pg_backend_pid()"))
            if through == "asyncpg":
                await tx.pg.execute("SELECT 1")
            elif through == "sqlalchemy":
                await tx.sa.execute(sa.text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable):
            await write(database, scope, lose_connection)

        assert await count_plans(database, scope) == 0
        await assert_clean(database, scope)


class TestDedicatedConnection:
    async def test_it_is_outside_pool_and_scope(self, database: Database, scope: Scope) -> None:
        async with database.transaction(scope) as tx:
            await insert_plan(tx)
            async with database.dedicated_connection() as connection:
                assert await connection.fetchval("SELECT current_user") == APPLICATION_ROLE
                assert tuple(await connection.fetchrow(SCOPE_NOW) or ()) == (None, None)
                assert not connection.is_in_transaction()
                assert await connection.fetchval(COUNT_PLANS) == 0
        assert connection.is_closed()

    async def test_it_is_closed_after_an_error(self, database: Database) -> None:
        with pytest.raises(LookupError):
            async with database.dedicated_connection() as connection:
                raise LookupError
        assert connection.is_closed()

    async def test_its_loss_is_told(self, database: Database, database_url: str) -> None:
        async def lose_connection() -> None:
            async with database.dedicated_connection() as connection:
                await terminate(database_url, connection.get_server_pid())
                await connection.execute("SELECT 1")

        with pytest.raises(DatabaseUnavailable):
            await lose_connection()
