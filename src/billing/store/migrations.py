"""Brings a database's schema to the one that this code was written for."""

from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

import billing

_LOCK_KEY: Final = 0x62696C6C
"""Serialises migrations of one database: "bill" in ASCII."""


class SchemaNotCurrent(Exception):
    """The database's schema is not the one that this code was written for."""

    def __init__(self, *, found: str | None, wanted: str) -> None:
        super().__init__(
            f"the database schema is at revision {found or 'none'}, this version needs {wanted}; "
            "run `billing migrate` first"
        )


def migrations_directory() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout."""
    package = Path(billing.__file__).parent
    installed = package / "migrations"
    return installed if installed.exists() else package.parents[1] / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    return config


async def migrate(url: str) -> str:
    """Run every pending migration, as the role of the URL, and return the new revision."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK_KEY})")
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
    finally:
        await engine.dispose()
    return head_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def run_scripts(*names: str) -> None:
    """Run scripts of ``migrations/sql`` in the transaction of the migration that calls."""
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    for name in names:
        script = (migrations_directory() / "sql" / f"{name}.sql").read_text("utf-8")
        # As it is: SQLAlchemy would prepare it, and only a single statement can be prepared.
        connection.run_async(partial(_execute, script=script))


async def _execute(driver: "asyncpg.Connection[asyncpg.Record]", *, script: str) -> None:
    await driver.execute(script)


def head_revision() -> str:
    """Return the revision that this code was written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def require_current_schema(url: str) -> None:
    """Raise SchemaNotCurrent unless the database has this code's schema."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
    finally:
        await engine.dispose()
    if found != head_revision():
        raise SchemaNotCurrent(found=found, wanted=head_revision())
