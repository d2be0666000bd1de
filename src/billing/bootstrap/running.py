"""Settings in, a running service out."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from billing.api.authentication import Authenticator, JwtAuthenticator, NoTokenIssuer
from billing.api.client_access import ClientAccessFile
from billing.api.registrations import registrations
from billing.api.server import ApiServer
from billing.api.signing_keys import KeyFile, KeySource, KeyUrl
from billing.api.transport_security import read_authorities, read_certificate_and_key
from billing.bootstrap.stores import Stores
from billing.bootstrap.wiring import (
    wire_delivery,
    wire_execution,
    wire_ledger_audit,
    wire_use_cases,
)
from billing.clients.invoicing import InvoicingClient, InvoicingClientSettings, InvoicingTls
from billing.config import Settings
from billing.observability.backlog import BacklogWatch
from billing.observability.metrics import Metrics
from billing.sandbox.development_key import load_or_create_key
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer, default_data_dir
from billing.services.billing_execution import BillingExecution
from billing.services.ports import Clock
from billing.services.run_rescue import RunRescue
from billing.store.database import Database
from billing.store.migrations import migrate, require_current_schema
from billing.workers.bill_batches import BillBatchWorker
from billing.workers.deliver_documents import DeliverDocumentsWorker
from billing.workers.rescue_runs import RescueRunsWorker

_WORKER_CONCURRENCY = 2


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
        if settings.otlp_endpoint is not None:
            await stack.enter_async_context(_exported_spans(settings.otlp_endpoint))
        url = await stack.enter_async_context(database_url(settings))
        database = Database(url, pool_size=settings.pool_size, metering=metrics)
        metrics.watch_pool(database.pool_use)
        stack.push_async_callback(database.close)
        invoicing = _invoicing_client(settings, metrics)
        stack.push_async_callback(invoicing.close)
        stores = Stores()
        execution = wire_execution(settings, database, stores, invoicing, metrics, clock)
        delivery = wire_delivery(database, stores, invoicing, clock)
        if worker:
            await stack.enter_async_context(_running_worker(settings, database, execution, metrics))
            rescue = RunRescue(database, stores.tenants, stores.runs, stores.queue, clock)
            await stack.enter_async_context(_repeated(RescueRunsWorker(rescue).run()))
            await stack.enter_async_context(_repeated(DeliverDocumentsWorker(delivery).run()))
            backlog = BacklogWatch(
                database,
                stores.queue,
                stores.tenants,
                stores.periods,
                stores.recalculations,
                metrics,
            )
            await stack.enter_async_context(_repeated(backlog.run()))
        if settings.metrics_address:
            stack.enter_context(_metrics_endpoint(metrics, settings.metrics_address))
        address = None
        if api:
            audit = wire_ledger_audit(settings, database, stores, invoicing, metrics, clock)
            use_cases = wire_use_cases(
                settings, database, stores, execution, delivery, audit, metrics, clock
            )
            server = ApiServer(
                settings,
                registrations(use_cases),
                authenticator=_authenticator(settings),
                client_access=_client_access(settings),
                metrics=metrics,
                database_ping=database.ping,
            )
            stack.push_async_callback(server.stop, settings.drain_seconds)
            await server.start()
            address = server.address
        yield RunningService(address, metrics, database, data_directory(settings))


@asynccontextmanager
async def _running_worker(
    settings: Settings, database: Database, execution: BillingExecution, metrics: Metrics
) -> AsyncIterator[None]:
    worker = BillBatchWorker(
        database,
        execution,
        metrics,
        concurrency=_WORKER_CONCURRENCY,
        heartbeat_timeout_seconds=settings.worker_heartbeat_timeout_seconds,
    )
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


@asynccontextmanager
async def _repeated(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let endless work go on until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _exported_spans(endpoint: str) -> AbstractAsyncContextManager[None]:
    # Here, because importing it takes a tenth of a second and 4 MB.
    from billing.observability.span_export import exported_spans  # noqa: PLC0415

    return exported_spans(endpoint)


@contextmanager
def _metrics_endpoint(metrics: Metrics, address: str) -> Iterator[None]:
    endpoint = metrics.serve(address)
    try:
        yield
    finally:
        endpoint.close()


def _invoicing_client(settings: Settings, metrics: Metrics) -> InvoicingClient:
    return InvoicingClient(
        settings.invoicing_address,
        settings=InvoicingClientSettings(
            deadline_seconds=settings.invoicing_deadline_seconds,
            max_attempts=settings.invoicing_attempts,
            tls=_invoicing_tls(settings),
        ),
        metering=metrics,
    )


def _invoicing_tls(settings: Settings) -> InvoicingTls | None:
    roots_file = settings.invoicing_tls_root_certificates_file
    if roots_file is None:
        return None
    roots = read_authorities(roots_file, "invoicing_tls_root_certificates_file")
    certificate_file = settings.invoicing_tls_certificate_file
    key_file = settings.invoicing_tls_private_key_file
    if certificate_file is None or key_file is None:
        return InvoicingTls(root_certificates=roots)
    certificate, key = read_certificate_and_key(
        certificate_file,
        key_file,
        certificate_field="invoicing_tls_certificate_file",
        key_field="invoicing_tls_private_key_file",
    )
    return InvoicingTls(root_certificates=roots, certificate_chain=certificate, private_key=key)


def _client_access(settings: Settings) -> ClientAccessFile | None:
    path = settings.client_access_file
    return None if path is None else ClientAccessFile(path)


def _authenticator(settings: Settings) -> Authenticator:
    if not (settings.has_token_issuer or settings.uses_development_key):
        return NoTokenIssuer()
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
