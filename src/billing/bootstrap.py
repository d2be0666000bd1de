"""The only place where objects are wired: settings in, a running service out."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from billing.api.authentication import JwtAuthenticator
from billing.api.registrations import UseCases, registrations
from billing.api.server import ApiServer
from billing.api.signing_keys import KeyFile, KeySource, KeyUrl
from billing.clients.invoicing import InvoicingClient, InvoicingClientSettings
from billing.config import Settings
from billing.observability.metrics import Metrics
from billing.sandbox.development_key import load_or_create_key
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer, default_data_dir
from billing.services.billing_execution import BillingExecution
from billing.services.billing_posting import BillingPosting
from billing.services.billing_runs import BillingRunService
from billing.services.catalog import CatalogService
from billing.services.idempotency import Idempotency
from billing.services.ledger import LedgerService
from billing.services.open_periods import PeriodReader
from billing.services.ports import Clock, Invoicing, Metering
from billing.services.subscriptions import SubscriptionService
from billing.services.usage import UsageService
from billing.store.billing_periods import BillingPeriodStore
from billing.store.billing_runs import BillingRunStore
from billing.store.catalog import CatalogStore
from billing.store.database import Database
from billing.store.idempotent_requests import IdempotentRequestStore
from billing.store.ledger import LedgerStore
from billing.store.migrations import migrate, require_current_schema
from billing.store.subscriptions import SubscriptionStore
from billing.store.tenants import TenantStore
from billing.store.usage import UsageStore
from billing.store.work_queue import WorkQueue
from billing.workers.bill_batches import BillBatchWorker

_WORKER_CONCURRENCY = 2
_HEARTBEAT_TIMEOUT_SECONDS = 30.0


def system_clock() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service at work; ``address`` is where gRPC is served, None without the API."""

    address: str | None
    metrics: Metrics
    database: Database
    data_dir: Path


def data_directory(settings: Settings) -> Path:
    """Where the embedded default keeps its database and its token key."""
    return settings.data_dir or default_data_dir().parent


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of a database with the current schema; starts the embedded one if none is set.

    Raises SchemaNotCurrent for a configured database that was not migrated.
    """
    if settings.database_url is not None:
        await require_current_schema(settings.database_url)
        yield settings.database_url
        return
    async with EmbeddedPostgresServer(data_directory(settings) / "postgres") as postgres:
        await migrate(postgres.url())
        yield postgres.url()


class Stores:
    """One of each store: they keep nothing but copies of what never changes."""

    def __init__(self) -> None:
        self.tenants = TenantStore()
        self.catalog = CatalogStore()
        self.subscriptions = SubscriptionStore()
        self.periods = BillingPeriodStore()
        self.usage = UsageStore()
        self.runs = BillingRunStore()
        self.ledger = LedgerStore()
        self.queue = WorkQueue()
        self.idempotency = Idempotency(IdempotentRequestStore())
        self.period_reader = PeriodReader(self.periods, self.catalog, self.usage)


def wire_execution(
    settings: Settings,
    database: Database,
    stores: Stores,
    invoicing: Invoicing,
    metering: Metering,
    clock: Clock,
) -> BillingExecution:
    """Wire what brings billing runs to their end."""
    posting = BillingPosting(
        stores.runs,
        stores.subscriptions,
        stores.periods,
        stores.period_reader,
        stores.ledger,
        clock,
    )
    return BillingExecution(
        database,
        stores.runs,
        stores.subscriptions,
        stores.periods,
        posting,
        invoicing,
        metering,
        clock,
        invoicing_concurrency=settings.invoicing_concurrency,
    )


def wire_use_cases(
    settings: Settings,
    database: Database,
    stores: Stores,
    execution: BillingExecution,
    metering: Metering,
    clock: Clock,
) -> UseCases:
    """Wire the services that the API serves."""
    billing_runs = BillingRunService(
        database,
        stores.runs,
        stores.subscriptions,
        stores.periods,
        stores.queue,
        execution,
        stores.idempotency,
        clock,
        batch_size=settings.batch_size,
    )
    return UseCases(
        catalog=CatalogService(
            database, stores.catalog, stores.ledger, stores.tenants, stores.idempotency, clock
        ),
        subscriptions=SubscriptionService(
            database,
            stores.subscriptions,
            stores.periods,
            stores.period_reader,
            stores.catalog,
            stores.ledger,
            billing_runs,
            execution,
            stores.idempotency,
            clock,
        ),
        usage=UsageService(
            database,
            stores.subscriptions,
            stores.periods,
            stores.period_reader,
            stores.usage,
            stores.ledger,
            metering,
            clock,
        ),
        billing_runs=billing_runs,
        ledger=LedgerService(database, stores.ledger, stores.subscriptions, clock),
    )


@asynccontextmanager
async def running_service(
    settings: Settings,
    *,
    api: bool,
    worker: bool,
    clock: Clock = system_clock,
) -> AsyncIterator[RunningService]:
    """Run the service until the block ends, then drain it: calls first, then the worker's jobs."""
    if api:
        settings.require_servable()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings))
        database = Database(url, pool_size=settings.pool_size)
        stack.push_async_callback(database.close)
        invoicing = _invoicing_client(settings)
        stack.push_async_callback(invoicing.close)
        stores = Stores()
        execution = wire_execution(settings, database, stores, invoicing, metrics, clock)
        if worker:
            await stack.enter_async_context(_running_worker(database, execution))
        if settings.metrics_address:
            stack.enter_context(_metrics_endpoint(metrics, settings.metrics_address))
        address = None
        if api:
            use_cases = wire_use_cases(settings, database, stores, execution, metrics, clock)
            server = ApiServer(
                settings,
                registrations(use_cases),
                authenticator=_authenticator(settings),
                metrics=metrics,
                database_ping=database.ping,
            )
            stack.push_async_callback(server.stop, settings.drain_seconds)
            await server.start()
            address = server.address
        yield RunningService(address, metrics, database, data_directory(settings))


@asynccontextmanager
async def _running_worker(database: Database, execution: BillingExecution) -> AsyncIterator[None]:
    worker = BillBatchWorker(
        database,
        execution,
        concurrency=_WORKER_CONCURRENCY,
        heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS,
    )
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


@contextmanager
def _metrics_endpoint(metrics: Metrics, address: str) -> Iterator[None]:
    endpoint = metrics.serve(address)
    try:
        yield
    finally:
        endpoint.close()


def _invoicing_client(settings: Settings) -> InvoicingClient:
    return InvoicingClient(
        settings.invoicing_address,
        settings=InvoicingClientSettings(
            deadline_seconds=settings.invoicing_deadline_seconds,
            max_attempts=settings.invoicing_attempts,
        ),
    )


def _authenticator(settings: Settings) -> JwtAuthenticator:
    return JwtAuthenticator(
        _key_source(settings), issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )


def _key_source(settings: Settings) -> KeySource:
    if settings.uses_development_key:
        return KeyFile(load_or_create_key(data_directory(settings)).jwks_file)
    if settings.jwks_file is not None:
        return KeyFile(settings.jwks_file)
    assert settings.jwks_url is not None, "the settings require a source of keys"
    return KeyUrl(settings.jwks_url)
