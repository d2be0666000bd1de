"""Transactions that get in each other's way: what is tried again, and what is told instead."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
import sqlalchemy as sa

from billing.domain.errors import ConflictsPersist, DatabaseUnavailable
from billing.domain.scope import Scope
from billing.store.database import (
    Database,
    LostRace,
    Transaction,
    retried_on_conflict,
    violates,
)
from tests.factories.transactions import count_plans, database_with, insert_plan, write

MAX_ATTEMPTS = 5


def failing(error: Exception, *, times: int) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    """A use case that fails a number of times before it succeeds, and its attempts."""
    attempts: list[int] = []

    @retried_on_conflict
    async def use_case() -> int:
        attempts.append(len(attempts) + 1)
        if len(attempts) <= times:
            raise error
        return attempts[-1]

    return use_case, attempts


CONFLICTS = [
    asyncpg.SerializationError("40001"),
    asyncpg.DeadlockDetectedError("40P01"),
    # A migration changed a table under a prepared statement.
    asyncpg.InvalidCachedStatementError("0A000"),
    LostRace(),
]


class TestRetriedOnConflict:
    @pytest.mark.parametrize("error", CONFLICTS, ids=lambda error: type(error).__name__)
    async def test_a_conflict_is_tried_again(self, error: Exception) -> None:
        use_case, _ = failing(error, times=2)

        assert await use_case() == 3

    @pytest.mark.parametrize("error", CONFLICTS, ids=lambda error: type(error).__name__)
    async def test_but_not_for_ever(self, error: Exception) -> None:
        use_case, attempts = failing(error, times=MAX_ATTEMPTS)

        with pytest.raises(ConflictsPersist) as refusal:
            await use_case()
        assert refusal.value.__cause__ is error
        assert len(attempts) == MAX_ATTEMPTS

    @pytest.mark.parametrize(
        "error",
        [ValueError(), DatabaseUnavailable(), asyncpg.UniqueViolationError("23505")],
        ids=lambda error: type(error).__name__,
    )
    async def test_no_other_error_is_tried_again(self, error: Exception) -> None:
        use_case, attempts = failing(error, times=1)

        with pytest.raises(type(error)):
            await use_case()
        assert len(attempts) == 1

    @pytest.mark.parametrize("through", ["asyncpg", "sqlalchemy"])
    @pytest.mark.parametrize("state", ["40001", "40P01"])
    async def test_a_conflict_that_postgresql_finds(
        self, database: Database, scope: Scope, state: str, through: str
    ) -> None:
        attempts = 0
        failure = f"DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '{state}'; END $$"

        @retried_on_conflict
        async def use_case() -> None:
            nonlocal attempts
            attempts += 1
            async with database.transaction(scope) as tx:
                await insert_plan(tx)
                if attempts == 1 and through == "asyncpg":
                    await tx.pg.execute(failure)
                elif attempts == 1:
                    await tx.sa.execute(sa.text(failure))

        await use_case()

        assert attempts == 2
        assert await count_plans(database, scope) == 1

    async def test_use_cases_that_lock_each_other_out_both_succeed(
        self, database_url: str, scope: Scope
    ) -> None:
        attempts = 0
        both_hold_one = asyncio.Barrier(2)

        @retried_on_conflict
        async def use_case(database: Database, *locks: int) -> None:
            nonlocal attempts
            attempts += 1
            async with database.transaction(scope) as tx:
                await insert_plan(tx)
                for position, lock in enumerate(locks):
                    await tx.pg.execute("SELECT pg_advisory_xact_lock($1)", lock)
                    if position == 0 and attempts <= 2:
                        await both_hold_one.wait()

        async with database_with(database_url, pool_size=2) as database:
            await asyncio.gather(use_case(database, 1, 2), use_case(database, 2, 1))
            assert await count_plans(database, scope) == 2
        assert attempts == 3


class TestViolates:
    @pytest.mark.parametrize("through", ["asyncpg", "sqlalchemy"])
    async def test_a_unique_violation_is_known_by_its_constraint(
        self, database: Database, scope: Scope, through: str
    ) -> None:
        tenant = f"('{scope.tenant_id}', true, now())"

        async def insert_twice(tx: Transaction) -> None:
            insert = f"INSERT INTO tenants VALUES {tenant}, {tenant}"
            if through == "asyncpg":
                await tx.pg.execute(insert)
            else:
                await tx.sa.execute(sa.text(insert))

        with pytest.raises((asyncpg.UniqueViolationError, sa.exc.IntegrityError)) as violation:
            await write(database, scope, insert_twice)

        assert violates(violation.value, "pk_tenants")
        assert not violates(violation.value, "pk_plans")
        assert not violates(ValueError("pk_tenants"), "pk_tenants")
