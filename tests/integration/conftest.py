"""A ledger that the service made, and ways into the database past the service."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest

from billing.domain.scope import Scope
from billing.sandbox.development_key import DevelopmentKey
from billing.store.database import Database
from tests.factories.client import BillingClient, new_tenant
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    application_transaction,
    make_ledger_book,
    owner_transaction,
)
from tests.factories.transactions import database_with


@pytest.fixture(scope="session")
async def book(
    channel: grpc.aio.Channel,
    signing_key: DevelopmentKey,
    session_clock: FakeClock,
    database_url: str,
) -> LedgerBook:
    """A tenant's ledger that nobody changes: tests look at it in transactions of no effect."""
    session_clock.set(START)
    return await make_ledger_book(BillingClient(channel, signing_key), database_url)


@pytest.fixture
async def app(book: LedgerBook, database_url: str) -> AsyncIterator[Connection]:
    """The application role in the book's scope; rolled back."""
    async with application_transaction(database_url, book.scope) as connection:
        yield connection


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Connection]:
    """A superuser, to whom neither grants nor row security apply; rolled back."""
    async with owner_transaction(database_url) as connection:
        yield connection


@pytest.fixture
def scope() -> Scope:
    """A scope without any data."""
    return Scope(new_tenant(), livemode=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection: whatever a transaction leaves behind, the next one meets."""
    async with database_with(database_url, pool_size=1, pool_wait_seconds=0.05) as database:
        yield database
