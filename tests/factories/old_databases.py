"""Databases as earlier revisions of the schema and their services left them."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from billing.store import migrations
from billing.store.tables import metadata

Rows = dict[str, list[dict[str, Any]]]


def _rows_at(revision: str) -> Rows:
    path = Path(__file__).parents[1] / "migrations" / f"rows_at_{revision}.json"
    rows: Rows = json.loads(path.read_text("utf-8"))
    return rows


ROWS_AT_0001: Final = _rows_at("0001")
"""By table, all that a service of revision 0001 wrote."""

ROWS_AT_0002: Final = _rows_at("0002")
"""By table, all that a service of revision 0002 wrote."""


async def run_sync(url: str, work: Callable[[Connection], None]) -> None:
    """Do work that needs a connection of SQLAlchemy, in a transaction."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
    finally:
        await engine.dispose()


async def migrate_to(url: str, revision: str) -> None:
    """Bring a database to a revision, as the role of the URL."""

    def upgrade(connection: Connection) -> None:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    await run_sync(url, upgrade)


async def fill(url: str, rows: Rows) -> None:
    """Insert rows into the tables of their revision, as the role of the URL."""
    connection = await asyncpg.connect(url)
    try:
        # Entries come last: a trigger looks for what they name, which no key tells.
        for table in sorted(metadata.sorted_tables, key=lambda each: each.name == "ledger_entries"):
            if table.name in rows:
                await connection.execute(
                    f"INSERT INTO {table.name}"
                    f" SELECT * FROM jsonb_populate_recordset(NULL::{table.name}, $1)",
                    json.dumps(rows[table.name]),
                )
    finally:
        await connection.close()


async def rows_of(url: str, tables: Iterable[str]) -> Rows:
    """All rows of tables, without columns that are null."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: [
                json.loads(row[0])
                for row in await connection.fetch(
                    f"SELECT jsonb_strip_nulls(to_jsonb(t))::text FROM {table} t"
                )
            ]
            for table in tables
        }
    finally:
        await connection.close()


def by_content(rows: Iterable[Mapping[str, Any]], *, without: Collection[str] = ()) -> list[str]:
    """Rows in an order that says nothing, without some columns."""
    return sorted(
        json.dumps(
            _without_nulls({key: row[key] for key in row.keys() - set(without)}), sort_keys=True
        )
        for row in rows
    )


def _without_nulls(value: Any) -> Any:
    """As PostgreSQL strips nulls: those of fields, at any depth."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
