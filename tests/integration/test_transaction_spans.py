"""What is told of transactions: their spans, and what is counted once they have committed."""

import asyncio
from collections import Counter

import asyncpg
import pytest
import sqlalchemy as sa
from opentelemetry import trace

from billing.domain.errors import FieldInvalid
from billing.domain.ledger import LedgerEntryType
from billing.domain.scope import Scope
from billing.store.database import Database
from tests.factories.spans import recording
from tests.factories.transactions import count_plans, database_with

TRACER = trace.get_tracer(__name__)


class CountedEntries:
    """Notes what is counted."""

    def __init__(self) -> None:
        self.counts: Counter[LedgerEntryType] = Counter()

    def record_ledger_entries(self, entry_type: LedgerEntryType, *, count: int) -> None:
        self.counts[entry_type] += count


async def test_statements_of_both_libraries_are_told_and_their_values_are_not(
    database: Database, scope: Scope
) -> None:
    with recording() as spans, TRACER.start_as_current_span("call"):
        async with database.transaction(scope) as tx:
            await tx.pg.fetchval("-- a secret of ours\nSELECT  $1::text", "hush")
            await tx.sa.execute(sa.select(sa.literal("hush", sa.Text)))
    names = [event.name for event in spans.one("transaction").events]
    assert names == ["BEGIN", "SELECT $1::text", "SELECT $1::VARCHAR AS anon_1", "COMMIT"]


async def test_a_connection_that_goes_back_to_the_pool_is_not_watched(
    database: Database, scope: Scope
) -> None:
    with recording() as spans, TRACER.start_as_current_span("call"):
        for _ in range(2):
            async with database.transaction(scope) as tx:
                await tx.pg.execute("SELECT 1")
    first, second = spans.named("transaction")
    assert len(first.events) == len(second.events) == 3
    with recording() as spans:
        async with database.transaction(scope) as tx:
            await tx.pg.execute("SELECT 1")
            assert not tx.pg._query_loggers  # type: ignore[attr-defined]
    assert not spans.spans


async def test_the_transaction_is_not_the_current_span(database: Database, scope: Scope) -> None:
    with recording() as spans, TRACER.start_as_current_span("call") as call:
        async with database.transaction(scope):
            assert trace.get_current_span() is call
    assert spans.one("transaction") in spans.children(spans.one("call"))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1 / 0", asyncpg.DivisionByZeroError),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Exception),
    ],
    ids=["statement fails", "connection is lost"],
)
async def test_a_failure_of_the_database_is_an_error(
    database: Database, scope: Scope, statement: str, expected: type[Exception]
) -> None:
    with recording() as spans, TRACER.start_as_current_span("call"), pytest.raises(expected):
        async with database.transaction(scope) as tx:
            await tx.pg.execute(statement)
    span = spans.one("transaction")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["billing.transaction.committed"] is False


async def post(database: Database, scope: Scope, told: list[str], *, fails: bool) -> None:
    """Post three entries, as far as metering is concerned."""
    async with database.transaction(scope) as tx:
        tx.posted[LedgerEntryType.USAGE_COST] += 3
        tx.after_commit.append(lambda: told.append("committed"))
        assert not told
        if fails:
            raise FieldInvalid("egg", "is raw")


async def test_what_waits_for_the_commit_is_told_after_it_and_never_of_a_rollback(
    database_url: str, scope: Scope
) -> None:
    metering = CountedEntries()
    told: list[str] = []
    async with database_with(database_url, pool_size=1, metering=metering) as database:
        with pytest.raises(FieldInvalid):
            await post(database, scope, told, fails=True)
        assert not metering.counts
        await post(database, scope, told, fails=False)
    assert told == ["committed"]
    assert metering.counts == {LedgerEntryType.USAGE_COST: 3}


async def test_the_pool_tells_who_works_and_who_waits(database_url: str, scope: Scope) -> None:
    async with database_with(database_url, pool_size=1) as database:
        assert database.pool_use() == (1, 0, 0)
        async with database.transaction(scope):
            assert database.pool_use() == (1, 1, 0)
            waiting = asyncio.create_task(count_plans(database, scope))
            await asyncio.sleep(0.01)
            assert database.pool_use() == (1, 1, 1)
        assert await waiting == 0
        assert database.pool_use() == (1, 0, 0)
