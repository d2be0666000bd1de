"""What every store needs to write statements: the scope, keyset pages, SQL files."""

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Protocol, TypeVar
from uuid import UUID

import sqlalchemy as sa

from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope

T = TypeVar("T")


class Row(Protocol):
    """A row by column name, of asyncpg or of SQLAlchemy."""

    def __getitem__(self, key: str, /) -> Any: ...


def in_scope(table: sa.FromClause, scope: Scope) -> sa.ColumnElement[bool]:
    """The condition that every statement begins with: exactly one tenant's live or test data."""
    return sa.and_(table.c.tenant_id == scope.tenant_id, table.c.livemode == scope.livemode)


def scope_values(scope: Scope) -> dict[str, Any]:
    """The scope's columns of a new row."""
    return {"tenant_id": scope.tenant_id, "livemode": scope.livemode}


def page_of(
    statement: sa.Select[Any],
    key: Sequence[sa.ColumnElement[UUID]],
    request: PageRequest,
    *,
    newest_first: bool = False,
) -> sa.Select[Any]:
    """Limit a list to one page, and one row more, which tells whether another page follows."""
    if request.after is not None:
        bound = sa.tuple_(*[sa.literal(value, sa.Uuid) for value in request.after])
        columns = sa.tuple_(*key)
        statement = statement.where(columns < bound if newest_first else columns > bound)
    order = [column.desc() if newest_first else column.asc() for column in key]
    return statement.order_by(*order).limit(request.size + 1)


def to_page(
    rows: Sequence[Any],
    request: PageRequest,
    *,
    decode: Callable[[Any], T],
    key: Callable[[Any], tuple[UUID, ...]],
) -> Page[T]:
    """Make a page of the rows that ``page_of`` selected."""
    shown = rows[: request.size]
    more = len(rows) > request.size
    return Page(tuple(decode(row) for row in shown), key(shown[-1]) if more else None)


def load_query(name: str) -> str:
    """Return the statement in ``queries/<name>.sql``."""
    return (resources.files("billing.store") / "queries" / f"{name}.sql").read_text("utf-8")
