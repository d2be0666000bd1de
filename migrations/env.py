"""How Alembic runs migrations: over the asyncpg connection that `billing migrate` hands in."""

from alembic import context
from sqlalchemy import Connection

from billing.store.tables import metadata

PGQUEUER_PREFIX = "pgqueuer"


def include_name(name: str | None, type_: str, parent_names: object) -> bool:
    """Leave the queue's tables to pgqueuer: their text is in the migration, not in our tables."""
    return not (type_ == "table" and name is not None and name.startswith(PGQUEUER_PREFIX))


def run_migrations() -> None:
    """Run every pending migration, each in a transaction of its own."""
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("run `billing migrate`: it makes the connection for the migrations")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=include_name,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
