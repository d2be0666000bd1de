"""The migrations: what they make is what the code's tables say, and running them is safe."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from pgqueuer import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from sqlalchemy import Connection

from billing.bootstrap import database_url as database_of
from billing.config import Settings
from billing.domain.ledger import TENANT_ACCOUNT_KINDS
from billing.domain.scope import Scope
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer
from billing.store import migrations
from billing.store.database import APPLICATION_ROLE, Database
from billing.store.migrations import (
    SchemaNotCurrent,
    head_revision,
    migrate,
    require_current_schema,
)
from billing.store.tables import metadata
from tests.conftest import create_database, drop_database
from tests.factories.old_databases import ROWS_AT_0001, fill, migrate_to, run_sync

OUR_TABLES = sorted(metadata.tables)
OUTSIDE_ROW_SECURITY = {"tenants"}

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1) AND a.attnum > 0
"""
CONSTRAINTS = """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1)
"""
INDEXES = """
SELECT tablename, indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename = ANY ($1)
"""
COMMENTS = """
SELECT relname, obj_description(oid) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1)
"""
UNIQUE_INDEXES = """
SELECT x.indexrelid::regclass::text, array(
    SELECT a.attname::text
    FROM unnest(x.indkey[0:1]) WITH ORDINALITY AS key (attnum, position)
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = key.attnum
    ORDER BY key.position
)
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND x.indisunique
  AND c.relname NOT LIKE 'pgqueuer%' AND c.relname <> 'alembic_version'
"""
FOREIGN_KEYS = """
SELECT k.conname::text, array(
    SELECT a.attname::text
    FROM unnest(k.conkey[1:2]) WITH ORDINALITY AS key (attnum, position)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.attnum
    ORDER BY key.position
), array(
    SELECT a.attname::text
    FROM unnest(k.confkey[1:2]) WITH ORDINALITY AS key (attnum, position)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = key.attnum
    ORDER BY key.position
)
FROM pg_constraint k
WHERE k.connamespace = 'public'::regnamespace AND k.contype = 'f'
"""
SCOPE_KEY = ["tenant_id", "livemode"]
ROW_SECURITY = """
SELECT c.relname::text, c.relrowsecurity, array(
    SELECT p.polcmd::text || ' ' || p.polpermissive || ' ' || pg_get_expr(p.polqual, p.polrelid)
    FROM pg_policy p WHERE p.polrelid = c.oid
)
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND c.relname NOT LIKE 'pgqueuer%' AND c.relname <> 'alembic_version'
"""
TABLE_FILES = """
SELECT relname::text, oid, relfilenode FROM pg_class
WHERE relnamespace = 'public'::regnamespace ORDER BY relname
"""


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database in which nobody has made anything."""
    url = await create_database(postgres_url)
    yield url
    await drop_database(postgres_url, url)


@pytest.fixture
async def migrated_url(empty_url: str) -> str:
    """The URL of a new database with the current schema."""
    await migrate(empty_url)
    return empty_url


async def rows(url: str, statement: str, *args: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return sorted((tuple(row) for row in await connection.fetch(statement, *args)), key=repr)
    finally:
        await connection.close()


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class TestSchema:
    async def test_alembic_finds_nothing_to_add_to_the_migrations(self, migrated_url: str) -> None:
        def check(connection: Connection) -> None:
            config = migrations._config()
            config.attributes["connection"] = connection
            command.check(config)  # raises, with the differences; compares as env.py configures

        await run_sync(migrated_url, check)

    @pytest.mark.parametrize(
        "statement", [COLUMNS, CONSTRAINTS, INDEXES, COMMENTS], ids=lambda text: text.split()[1]
    )
    async def test_the_migrations_make_what_the_tables_say(
        self, database_url: str, postgres_url: str, statement: str
    ) -> None:
        """Alembic compares neither checks nor predicates, and not every comment."""
        url = await create_database(postgres_url)
        try:
            await run_sync(url, metadata.create_all)
            said = await rows(url, statement, OUR_TABLES)
        finally:
            await drop_database(postgres_url, url)

        assert await rows(database_url, statement, OUR_TABLES) == said

    async def test_every_key_is_led_by_the_scope(self, database_url: str) -> None:
        unique_indexes = await rows(database_url, UNIQUE_INDEXES)
        foreign_keys = await rows(database_url, FOREIGN_KEYS)

        assert len(unique_indexes) >= len(OUR_TABLES)
        assert [row for row in unique_indexes if row[1] != SCOPE_KEY] == []
        assert foreign_keys
        assert [row for row in foreign_keys if row[1:] != (SCOPE_KEY, SCOPE_KEY)] == []

    async def test_row_security_holds_every_table_to_one_scope(self, database_url: str) -> None:
        tables = await rows(database_url, ROW_SECURITY)
        secured = {name: policies for name, enabled, policies in tables if enabled}

        assert {name for name, _, _ in tables} == set(OUR_TABLES)
        assert set(secured) == set(OUR_TABLES) - OUTSIDE_ROW_SECURITY
        [[policy]] = {tuple(policies) for policies in secured.values()}
        assert policy.startswith("* true ")  # every command, and nothing beside it widens it
        assert "billing.tenant_id" in policy
        assert "billing.livemode" in policy

    async def test_the_queue_is_what_the_installed_pgqueuer_wants(self, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            queries = Queries(AsyncpgDriver(connection))
            plan = await queries.plan_upgrade()
            assert not plan.statements
            assert not plan.notes
            await QueueManager(queries).verify_structure()
        finally:
            await connection.close()


class TestMigrate:
    async def test_a_second_migration_changes_nothing(self, migrated_url: str) -> None:
        before = await rows(migrated_url, TABLE_FILES)

        assert await migrate(migrated_url) == head_revision()

        assert await rows(migrated_url, TABLE_FILES) == before

    async def test_two_migrations_at_once_both_succeed(self, empty_url: str) -> None:
        revisions = await asyncio.gather(migrate(empty_url), migrate(empty_url))

        assert set(revisions) == {head_revision()}
        await require_current_schema(empty_url)

    async def test_a_migration_that_fails_leaves_nothing(self, empty_url: str) -> None:
        await execute(empty_url, "CREATE TABLE ledger_entries ()")

        with pytest.raises(asyncpg.DuplicateTableError):
            await migrate(empty_url)

        tables = await rows(empty_url, "SELECT tablename FROM pg_tables WHERE schemaname='public'")
        assert tables == [("ledger_entries",)]
        await execute(empty_url, "DROP TABLE ledger_entries")
        await migrate(empty_url)

    async def test_going_back_is_refused(self, migrated_url: str) -> None:
        def downgrade(connection: Connection) -> None:
            config = migrations._config()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")

        with pytest.raises(NotImplementedError, match="forward only"):
            await run_sync(migrated_url, downgrade)

        await require_current_schema(migrated_url)

    async def test_an_owner_who_is_no_superuser_migrates_and_serves(
        self, shared_directory: Path
    ) -> None:
        """As on a hosted server, where nobody is one. On a server of its own: roles outlive us.

        Also where there are rows already, of which row security shows nobody all.
        """
        async with EmbeddedPostgresServer(shared_directory / "hosted", durable=False) as postgres:
            await execute(postgres.url(), "CREATE ROLE hosted_owner LOGIN CREATEROLE")
            await execute(postgres.url(), "CREATE DATABASE hosted OWNER hosted_owner")
            url = postgres.url(user="hosted_owner", database="hosted")
            await migrate_to(url, "0001")
            await fill(url, ROWS_AT_0001)

            await migrate(url)

            database = Database(url, pool_size=1)
            async with database.transaction(Scope("tenant", livemode=True)) as tx:
                assert await tx.pg.fetchval("SELECT current_user") == APPLICATION_ROLE
            await database.close()
            found = await rows(
                url, "SELECT kind FROM ledger_accounts WHERE subscription_id IS NULL"
            )
            held = {(r["tenant_id"], r["livemode"], r["currency"]) for r in ROWS_AT_0001["plans"]}
            assert len(found) == len(held) * len(TENANT_ACCOUNT_KINDS)


class TestRequireCurrentSchema:
    async def test_a_migrated_database_is_taken(self, migrated_url: str) -> None:
        async with database_of(Settings(database_url=migrated_url)) as url:
            assert url == migrated_url

    async def test_an_unmigrated_database_is_refused(self, empty_url: str) -> None:
        with pytest.raises(SchemaNotCurrent, match=r"revision none.* run `billing migrate` first"):
            async with database_of(Settings(database_url=empty_url)):
                pass

    @pytest.mark.parametrize("revision", ["0000", "9999"])
    async def test_a_database_of_another_version_is_refused(
        self, migrated_url: str, revision: str
    ) -> None:
        await execute(migrated_url, f"UPDATE alembic_version SET version_num = '{revision}'")

        with pytest.raises(SchemaNotCurrent, match=f"{revision}, this version needs 0003"):
            await require_current_schema(migrated_url)
