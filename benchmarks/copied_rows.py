"""Rows that the service wrote, to be written again by bare asyncpg: the floor of a figure."""

from collections.abc import Sequence
from typing import Any

ROWS_PER_STATEMENT = 1_000
FLOOR_TENANT = "floor"

Connection = Any  # asyncpg has no generic type at run time


class CopiedRows:
    """A table's rows by column, and the statement that writes a slice of them."""

    def __init__(self, table: str, names: Sequence[str], types: Sequence[str], rows: Any) -> None:
        # Columns that hold nothing cost the service nothing either.
        kept = [i for i, _ in enumerate(names) if any(row[i] is not None for row in rows)]
        self._columns = [[row[i] for row in rows] for i in kept]
        self.count = len(rows)
        listed = ", ".join(names[i] for i in kept)
        arrays = ", ".join(f"${n}::{types[i]}[]" for n, i in enumerate(kept, start=1))
        self._statement = (
            f"INSERT INTO {table} (tenant_id, livemode, {listed})"  # noqa: S608  own names
            f" SELECT '{FLOOR_TENANT}', true, u.* FROM unnest({arrays}) AS u"
        )

    @classmethod
    async def read(
        cls, connection: Connection, table: str, *, order: str = "id", where: str = "true"
    ) -> "CopiedRows":
        """Read a table's rows, of every tenant but the floor's."""
        names, types = await column_types(connection, table)
        rows = await connection.fetch(
            f"SELECT {', '.join(names)} FROM {table}"  # noqa: S608  own names
            f" WHERE tenant_id <> '{FLOOR_TENANT}' AND ({where}) ORDER BY {order}"
        )
        return cls(table, names, types, rows)

    async def write(self, connection: Connection, start: int, stop: int) -> None:
        """Write the rows of a slice, in sets."""
        for first in range(start, min(stop, self.count), ROWS_PER_STATEMENT):
            part = slice(first, min(first + ROWS_PER_STATEMENT, stop))
            await connection.execute(self._statement, *[column[part] for column in self._columns])


async def column_types(connection: Connection, table: str) -> tuple[list[str], list[str]]:
    """Return the names and types of a table's columns, without the scope's."""
    records = await connection.fetch(
        "SELECT attname, format_type(atttypid, NULL) AS kind FROM pg_attribute"
        " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attname NOT IN ('tenant_id', 'livemode') ORDER BY attnum",
        table,
    )
    kinds = [record["kind"] for record in records]
    return (
        [record["attname"] for record in records],
        ["text" if kind == "character" else kind for kind in kinds],
    )


async def copy_parents(connection: Connection, tables: Sequence[str]) -> None:
    """Give the floor's tenant whole tables, which its rows refer to."""
    for table in tables:
        names, _ = await column_types(connection, table)
        listed = ", ".join(names)
        await connection.execute(
            f"INSERT INTO {table} (tenant_id, livemode, {listed})"  # noqa: S608  own names
            f" SELECT '{FLOOR_TENANT}', livemode, {listed} FROM {table}"
        )
