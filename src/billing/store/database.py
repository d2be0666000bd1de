"""Connections and transactions: one visible transaction a use case, always in one scope."""

import asyncio
import functools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final, NamedTuple, ParamSpec, Protocol, TypeVar

import asyncpg
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from billing.domain.errors import ConflictsPersist, DatabaseUnavailable
from billing.domain.ledger import LedgerEntryType
from billing.domain.scope import Scope
from billing.store.transaction_spans import transaction_span

APPLICATION_ROLE: Final = "billing_app"
"""The role that the service works as: it owns nothing, and row security applies to it."""

_SERVER_SETTINGS: Final = {
    "role": APPLICATION_ROLE,
    "application_name": "billing-service",
    # A process that froze or lost its network must not keep its locks for hours.
    "idle_in_transaction_session_timeout": "60s",
}
_CONNECT_TIMEOUT_SECONDS: Final = 10.0
_ROLL_BACK_TIMEOUT_SECONDS: Final = 5.0
_CONFLICTS: Final = frozenset({"40001", "40P01"})
_MAX_ATTEMPTS: Final = 5
_UNIQUE_VIOLATION: Final = "23505"
_SNAPSHOT: Final = " ISOLATION LEVEL REPEATABLE READ, READ ONLY"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction of one scope.

    ``sa`` takes SQLAlchemy statements; ``pg`` is the asyncpg connection below it, for statements
    on sets of rows, where every microsecond a row counts.
    ``posted`` counts the ledger entries that it posts. ``after_commit`` is for what cannot be taken
    back, such as counting: called once the transaction has committed, as it may be rolled back and
    run again; what is called must not raise.
    """

    scope: Scope
    sa: AsyncConnection
    pg: "asyncpg.Connection[asyncpg.Record]"
    posted: Counter[LedgerEntryType] = field(default_factory=Counter)
    after_commit: list[Callable[[], None]] = field(default_factory=list)


class LedgerMetering(Protocol):
    """Counts what is posted."""

    def record_ledger_entries(self, entry_type: LedgerEntryType, *, count: int) -> None:
        """Count entries of one type."""
        ...


class PoolUse(NamedTuple):
    """How many connections there may be and are at work, and how many callers wait for one."""

    size: int
    in_use: int
    waiting: int


class Database:
    """A pool of connections to PostgreSQL."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        pool_wait_seconds: float = 30.0,
        metering: LedgerMetering | None = None,
    ) -> None:
        self._engine = _create_engine(url, pool_size=pool_size, pool_wait_seconds=pool_wait_seconds)
        self._pool_size = pool_size
        self._metering = metering
        self._waiting = 0

    def pool_use(self) -> PoolUse:
        """Return the state of the pool; any thread may ask."""
        pool = self._engine.pool
        assert isinstance(pool, sa.AsyncAdaptedQueuePool)
        return PoolUse(self._pool_size, pool.checkedout(), self._waiting)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless the database answers."""
        async with self.unscoped_connection() as pg:
            await pg.execute("SELECT 1")

    @asynccontextmanager
    async def unscoped_connection(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Lend a connection of the pool outside transaction and scope: it sees no tenant's data."""
        async with _unavailable_on_lost_connection(), self._connection() as (_, pg):
            yield pg

    @asynccontextmanager
    async def transaction(self, scope: Scope) -> AsyncIterator[Transaction]:
        """Open a transaction that sees one scope alone; commit it unless the block raises.

        Raises DatabaseUnavailable when PostgreSQL does not answer, and TransactionAborted when the
        block swallows the error of a statement.
        """
        async with self._transaction(scope, _begin_statement(scope)) as tx:
            yield tx

    @asynccontextmanager
    async def snapshot(self, scope: Scope) -> AsyncIterator[Transaction]:
        """Open a transaction that sees one scope as of one moment, and writes nothing.

        Raises what ``transaction`` raises.
        """
        async with self._transaction(scope, _begin_statement(scope, _SNAPSHOT)) as tx:
            yield tx

    @asynccontextmanager
    async def _transaction(self, scope: Scope, begin: str) -> AsyncIterator[Transaction]:
        with transaction_span(scope) as span:
            async with (
                _unavailable_on_lost_connection(),
                self._connection(begin) as (connection, pg),
            ):
                tx = Transaction(scope, connection, pg)
                with span.watching(connection, pg) if span else nullcontext():
                    try:
                        yield tx
                        answer = await pg.execute("COMMIT")
                    except BaseException:
                        await _roll_back(connection, pg)
                        raise
                    if answer != "COMMIT":
                        raise TransactionAborted
                self._tell_of_commit(tx)

    @asynccontextmanager
    async def dedicated_connection(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Lend a connection outside pool, transaction and scope: the work queue listens on it."""
        url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with _unavailable_on_lost_connection():
            connection = await asyncpg.connect(
                url, server_settings=_SERVER_SETTINGS, timeout=_CONNECT_TIMEOUT_SECONDS
            )
            try:
                yield connection
            finally:
                await connection.close(timeout=_CONNECT_TIMEOUT_SECONDS)

    @asynccontextmanager
    async def _connection(
        self, begin: str = "SELECT 1"
    ) -> AsyncIterator[tuple[AsyncConnection, "asyncpg.Connection[asyncpg.Record]"]]:
        connection, pg = await self._begin(begin)
        try:
            yield connection, pg
        finally:
            await asyncio.shield(connection.close())

    async def _begin(
        self, begin: str
    ) -> tuple[AsyncConnection, "asyncpg.Connection[asyncpg.Record]"]:
        """Take a live connection from the pool: after a restart of PostgreSQL many are dead."""
        for attempt in range(self._pool_size + 1):
            connection = await self._connect()
            try:
                pg = (await connection.get_raw_connection()).driver_connection
                assert pg is not None
                await pg.execute(begin)
            except BaseException as error:
                await connection.invalidate()
                await connection.close()
                if not is_lost_connection(error) or attempt == self._pool_size:
                    raise
            else:
                return connection, pg
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _connect(self) -> AsyncConnection:
        self._waiting += 1
        try:
            return await self._engine.connect()
        finally:
            self._waiting -= 1

    def _tell_of_commit(self, tx: Transaction) -> None:
        if self._metering is not None:
            for entry_type, count in tx.posted.items():
                self._metering.record_ledger_entries(entry_type, count=count)
        for tell in tx.after_commit:
            tell()


def _create_engine(url: str, *, pool_size: int, pool_wait_seconds: float) -> AsyncEngine:
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        # The driver never begins by itself: BEGIN and the scope's settings are one round trip,
        # sent by Database, and asyncpg and SQLAlchemy statements share the transaction.
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_wait_seconds,
        connect_args={"server_settings": _SERVER_SETTINGS, "timeout": _CONNECT_TIMEOUT_SECONDS},
    )


def _begin_statement(scope: Scope, mode: str = "") -> str:
    # Literal SET LOCAL: set_config() is not propagated by a distributed database.
    tenant = scope.tenant_id.replace("'", "''")
    return (
        f"BEGIN{mode}; SET LOCAL billing.tenant_id = '{tenant}'; "
        f"SET LOCAL billing.livemode = '{str(scope.livemode).lower()}'"
    )


async def _roll_back(connection: AsyncConnection, pg: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Roll back, or give the connection up: it must never go back to the pool in a transaction.

    PostgreSQL may miss that a statement was cancelled, and then would first bring it to its end.
    """
    try:
        async with asyncio.timeout(_ROLL_BACK_TIMEOUT_SECONDS):
            await pg.execute("ROLLBACK")
    except (Exception, asyncio.CancelledError):  # noqa: BLE001  the error that led here matters more
        await connection.invalidate()


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of asyncpg or SQLAlchemy."""
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        return getattr(error.orig, "sqlstate", None)
    return getattr(error, "sqlstate", None)


def violates(error: BaseException, constraint: str) -> bool:
    """Whether the error is the violation of a unique constraint or index, by its name."""
    if sqlstate_of(error) != _UNIQUE_VIOLATION:
        return False
    return constraint in str(error)


def is_lost_connection(error: BaseException) -> bool:
    """Whether the error means that PostgreSQL does not answer."""
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, sa.exc.DBAPIError) and error.__cause__ is not None:
        return is_lost_connection(error.__cause__)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    state = sqlstate_of(error)
    if state is not None:
        # 08: connection; 57P: shutdown, crash, starting up; 53300: too many connections.
        return state.startswith(("08", "57P")) or state == "53300"
    return isinstance(error, OSError | sa.exc.TimeoutError)


@asynccontextmanager
async def _unavailable_on_lost_connection() -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:
        if is_lost_connection(error):
            raise DatabaseUnavailable from error
        raise


def is_conflict(error: BaseException) -> bool:
    """Whether the error means that a new attempt of the same transaction may succeed."""
    # A migration ran: the next attempt prepares its statements anew.
    stale = isinstance(error, asyncpg.InvalidCachedStatementError)
    return stale or sqlstate_of(error) in _CONFLICTS or isinstance(error, LostRace)


def retried_on_conflict(
    use_case: Callable[P, Awaitable[R]],
) -> Callable[P, Awaitable[R]]:
    """Run a use case again when its transaction lost a deadlock or a race, a few times at most.

    Raises ConflictsPersist when that did not help.
    """

    @functools.wraps(use_case)
    async def retried(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                return await use_case(*args, **kwargs)
            except Exception as error:
                if not is_conflict(error):
                    raise
                if attempt == _MAX_ATTEMPTS:
                    raise ConflictsPersist from error
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable: the last attempt returns or raises")

    return retried


class TransactionAborted(Exception):
    """The block went on after a failed statement: PostgreSQL rolled back where we said COMMIT."""


class LostRace(Exception):
    """Another transaction wrote what this one was about to write; a new attempt will see it."""
