"""Changes to credits that no part of the service makes: past its rules, as a superuser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from billing.domain import identifiers
from tests.factories.credited_subscription import Credit
from tests.factories.ledger_book import Connection, connected

_LET_EXPIRE = (
    "UPDATE usage_credits SET expires_at = $2 WHERE id = $1",
    "UPDATE usage_credit_balances SET expires_at = $2 WHERE usage_credit_id = $1",
)
_SET_CURRENCY = "UPDATE ledger_accounts SET currency = $2 WHERE id = $1"


@asynccontextmanager
async def _without_guards(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


async def let_expire(url: str, granted: Credit, expires_at: datetime) -> None:
    """Give a credit an expiry that it does not have: paid ones never do."""
    async with _without_guards(url) as connection:
        for statement in _LET_EXPIRE:
            await connection.execute(statement, _id_of(granted), expires_at)


@asynccontextmanager
async def damaged_account(url: str, granted: Credit) -> AsyncIterator[None]:
    """Let the account of a credit be of another currency: no entry fits it meanwhile."""
    for_now, before = "EUR", granted.currency
    async with _without_guards(url) as connection:
        await connection.execute(_SET_CURRENCY, _id_of(granted), for_now)
    yield
    async with _without_guards(url) as connection:
        await connection.execute(_SET_CURRENCY, _id_of(granted), before)


def _id_of(granted: Credit) -> object:
    return identifiers.from_typeid(identifiers.USAGE_CREDIT, granted.id)
