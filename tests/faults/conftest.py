"""A deployment of each test's own: a database, an invoicing service, and no process yet."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.store.migrations import migrate
from tests.conftest import create_database, drop_database
from tests.factories.invoicing import invoicing_server
from tests.factories.service_process import Deployment


@pytest.fixture
async def own_invoicing() -> AsyncIterator[ReferenceInvoicingServer]:
    """An invoicing service that no other test calls."""
    async with invoicing_server() as server:
        yield server


@pytest.fixture
async def deployment(
    postgres_url: str, signing_key: DevelopmentKey, own_invoicing: ReferenceInvoicingServer
) -> AsyncIterator[Deployment]:
    """A migrated database and an invoicing service."""
    url = await create_database(postgres_url)
    await migrate(url)
    yield Deployment(url, signing_key, own_invoicing)
    await drop_database(postgres_url, url)


@pytest.fixture
async def owner(
    deployment: Deployment,
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """The database owner's connection, past the service."""
    connection = await asyncpg.connect(deployment.database_url)
    yield connection
    await connection.close()
