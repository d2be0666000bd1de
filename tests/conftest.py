"""The real parts that tests run against: PostgreSQL, the service, the invoicing server."""

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import grpc.aio
import pytest
from sqlalchemy.engine import make_url

from billing.bootstrap import RunningService, running_service
from billing.config import Settings
from billing.sandbox.development_key import DevelopmentKey, load_or_create_key
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer
from billing.sandbox.invoicing_server import InvoicingServerSettings, ReferenceInvoicingServer
from billing.store.migrations import migrate
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock

DATABASE_VARIABLE = "BILLING_TEST_DATABASE_URL"
"""A PostgreSQL server to test against instead of the embedded one: a superuser's URL."""


@pytest.fixture(scope="session")
def shared_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's unprivileged user can enter, should we be root."""
    directory = Path(tempfile.mkdtemp(prefix="billing-tests-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres_url(shared_directory: Path) -> AsyncIterator[str]:
    """The URL of a superuser's database on a server of this test process, or the configured one."""
    configured = os.environ.get(DATABASE_VARIABLE)
    if configured:
        yield configured
        return
    async with EmbeddedPostgresServer(shared_directory / "postgres", durable=False) as postgres:
        yield postgres.url()


async def create_database(postgres_url: str) -> str:
    """Make an empty database, and return its URL."""
    name = f"billing_test_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)


async def drop_database(postgres_url: str, url: str) -> None:
    """Remove a database of ``create_database``."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a migrated database that this test process has for itself."""
    url = await create_database(postgres_url)
    await migrate(url)
    yield url
    await drop_database(postgres_url, url)


@pytest.fixture(scope="session")
def session_clock() -> FakeClock:
    """The service's clock; tests take ``clock``."""
    return FakeClock()


@pytest.fixture
def clock(session_clock: FakeClock) -> FakeClock:
    """The service's clock, set to noon of 15 March 2026."""
    session_clock.set(START)
    return session_clock


@pytest.fixture(scope="session")
async def session_invoicing() -> AsyncIterator[ReferenceInvoicingServer]:
    """The invoicing service; tests take ``invoicing``."""
    server = ReferenceInvoicingServer(InvoicingServerSettings())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def invoicing(session_invoicing: ReferenceInvoicingServer) -> Iterator[ReferenceInvoicingServer]:
    """The invoicing service, without faults at the start of the test and after it."""
    yield session_invoicing
    session_invoicing.error_rate = 0.0
    session_invoicing.drop_reply_rate = 0.0
    session_invoicing.delay_ms = 0
    session_invoicing.refused_customer_ids.clear()


@pytest.fixture(scope="session")
def signing_key(shared_directory: Path) -> DevelopmentKey:
    """The key of the tokens that the service accepts."""
    return load_or_create_key(shared_directory / "key")


@pytest.fixture(scope="session")
def service_settings(
    shared_directory: Path,
    database_url: str,
    signing_key: DevelopmentKey,
    session_invoicing: ReferenceInvoicingServer,
) -> Settings:
    """How the service under test is configured."""
    return Settings(
        database_url=database_url,
        data_dir=shared_directory,
        jwks_file=signing_key.jwks_file,
        listen_address="127.0.0.1:0",
        invoicing_address=session_invoicing.address,
        invoicing_attempts=2,
        metrics_address=None,
        drain_seconds=5.0,
    )


@pytest.fixture(scope="session")
async def service(
    service_settings: Settings, session_clock: FakeClock
) -> AsyncIterator[RunningService]:
    """The whole service: API and worker, on a fake clock."""
    async with running_service(
        service_settings, api=True, worker=True, clock=session_clock
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def channel(service: RunningService) -> AsyncIterator[grpc.aio.Channel]:
    """A real channel to the service."""
    assert service.address is not None
    async with grpc.aio.insecure_channel(
        service.address, options=[("grpc.enable_http_proxy", 0)]
    ) as opened:
        yield opened


@pytest.fixture
def client(
    channel: grpc.aio.Channel, signing_key: DevelopmentKey, clock: FakeClock
) -> BillingClient:
    """A caller of a new tenant."""
    return BillingClient(channel, signing_key)
