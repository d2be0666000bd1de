"""What every table is made of: the scope in front of each key, and columns by their meaning."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

SCOPE = ("tenant_id", "livemode")

Column = sa.Column[Any]


def scope_columns() -> list[Column]:
    return [
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("livemode", sa.Boolean, nullable=False),
    ]


def id_column(name: str, *, nullable: bool = False) -> Column:
    return sa.Column(name, sa.Uuid, nullable=nullable)


def text_column(name: str, *, nullable: bool = False) -> Column:
    return sa.Column(name, sa.Text, nullable=nullable)


def amount_column(name: str, *, nullable: bool = False) -> Column:
    """An amount in minor units."""
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def decimal_column(name: str) -> Column:
    return sa.Column(name, sa.Numeric, nullable=False)


def time_column(name: str, *, nullable: bool = False) -> Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def count_column(name: str) -> Column:
    return sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))


def currency_column() -> Column:
    return sa.Column("currency", sa.CHAR(3), nullable=False)


def primary_key(*columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*SCOPE, *columns)


def one_of(column: str, values: Iterable[StrEnum]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def references(table: str, columns: list[str], referred: list[str]) -> sa.ForeignKeyConstraint:
    """A foreign key within the scope."""
    return sa.ForeignKeyConstraint(
        [*SCOPE, *columns], [f"{table}.{column}" for column in (*SCOPE, *referred)]
    )
