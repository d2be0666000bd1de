"""Databases as earlier revisions of the schema and their services left them."""

import json
from collections.abc import Callable
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

ROWS_AT_0001: Final[Rows] = json.loads(
    (Path(__file__).parents[1] / "migrations" / "rows_at_0001.json").read_text("utf-8")
)
"""By table, all that a service of revision 0001 wrote."""


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
        for table in metadata.sorted_tables:
            if table.name in rows:
                await connection.execute(
                    f"INSERT INTO {table.name}"
                    f" SELECT * FROM jsonb_populate_recordset(NULL::{table.name}, $1)",
                    json.dumps(rows[table.name]),
                )
    finally:
        await connection.close()
