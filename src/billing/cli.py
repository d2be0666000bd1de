"""The command line: ``billing serve``, ``worker``, ``health``, ``migrate``, ``token``, ..."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing.api.access import ContractIncomplete
from billing.api.client_access import ClientAccessUnusable
from billing.api.health import LIVENESS
from billing.api.server import ListenAddressUnavailable
from billing.api.signing_keys import SigningKeysUnusable
from billing.auditor.command import AUDIT_HELP, audit_command
from billing.bootstrap import data_directory, database_url, running_service
from billing.clients.health import health_of, reachable_address
from billing.config import SETTINGS, ConfigurationInvalid, Settings, read_settings
from billing.domain.errors import BillingError
from billing.explainer.command import explain_app
from billing.exporter.command import ledger_app
from billing.importer.command import usage_app
from billing.observability.logging import configure_logging
from billing.observability.metrics import MetricsAddressUnavailable
from billing.sandbox.demo import run_demo
from billing.sandbox.development_key import (
    DevelopmentKeyUnusable,
    load_or_create_key,
    mint_token,
)
from billing.sandbox.embedded_postgres import EmbeddedPostgresError
from billing.sandbox.invoicing_server import InvoicingServerSettings, serve_invoicing
from billing.sandbox.processes import SandboxFailed
from billing.sandbox.trace import run_trace
from billing.store.migrations import SchemaNotCurrent, migrate

DemoExportOption = Annotated[
    Path | None,
    typer.Option(
        help="Also write all of its ledger to this file, as `billing ledger export` does."
    ),
]

app = typer.Typer(
    help="Turns usage into money exactly once: usage ledger and billing runs over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(usage_app, name="usage")
app.add_typer(ledger_app, name="ledger")
app.command("audit", help=AUDIT_HELP)(audit_command)
app.add_typer(explain_app, name="explain")
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

# What a person can mend: told in one line, without a traceback.
_EXPECTED = (
    BillingError,
    ClientAccessUnusable,
    ConfigurationInvalid,
    ContractIncomplete,
    DevelopmentKeyUnusable,
    EmbeddedPostgresError,
    ListenAddressUnavailable,
    MetricsAddressUnavailable,
    SandboxFailed,
    SchemaNotCurrent,
    SigningKeysUnusable,
    OSError,
    ValueError,
)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except _EXPECTED as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    _err.print(f"[bold red]error:[/] {escape(message)}")
    raise SystemExit(1)


def _run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(work)


async def _until_signal() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _settings() -> Settings:
    settings = read_settings(os.environ)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    return settings


@app.command()
def serve() -> None:
    """Serve the API and, unless BILLING_RUN_WORKER=false, work on billing runs."""
    settings = _settings()
    settings.require_servable()
    _run(_serve(settings, api=True, worker=settings.run_worker))


@app.command()
def worker() -> None:
    """Work on billing runs, without the API."""
    _run(_serve(_settings(), api=False, worker=True))


def _spare_garbage_collector() -> None:
    """Collect rarely: a call of thousands of events allocates much and leaves no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


async def _serve(settings: Settings, *, api: bool, worker: bool) -> None:
    _spare_garbage_collector()
    stopped = asyncio.create_task(_until_signal())
    async with running_service(settings, api=api, worker=worker) as service:
        if service.address is not None:
            _out.print(f"billing service listens on [bold]{service.address}[/]")
        if settings.database_url is None:
            _out.print(f"embedded PostgreSQL in {service.data_dir}; tokens: billing token")
        if worker and not api:
            _out.print("billing worker waits for billing runs")
        await stopped
        _out.print("draining")
    _out.print("stopped")


@app.command()
def health(
    address: Annotated[
        str | None,
        typer.Option(help="host:port or unix:/path; BILLING_LISTEN_ADDRESS if not given."),
    ] = None,
    service: Annotated[
        str,
        typer.Option(
            help="A gRPC service; all together if not given. "
            f"{LIVENESS}: the process answers, whether or not the database does."
        ),
    ] = "",
    timeout_seconds: Annotated[float, typer.Option(min=0.1, max=60)] = 3.0,
) -> None:
    """Ask a server whether it serves: exit code 0 if so, else 1. For a container's health check.

    With BILLING_TLS_CERTIFICATE_FILE the server must prove itself with that certificate.
    """
    settings = _settings()
    status = asyncio.run(
        health_of(
            address or reachable_address(settings.listen_address),
            service=service,
            certificate_file=settings.tls_certificate_file,
            timeout_seconds=timeout_seconds,
        )
    )
    _out.print(status)
    if status != "SERVING":
        raise SystemExit(1)


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database to this version's schema, as the role of BILLING_DATABASE_URL."""
    settings = _settings()
    _run(_migrate(settings))


async def _migrate(settings: Settings) -> None:
    if settings.database_url is not None:
        revision = await migrate(settings.database_url)
    else:
        async with database_url(settings):  # the embedded default migrates at its start
            revision = "the current one"
    _out.print(f"database schema: revision {revision}")


@app.command()
def token(
    tenant: Annotated[
        list[str], typer.Option(help="A tenant that the token is for; repeat it, or '*' for all.")
    ],
    capability: Annotated[
        list[str] | None,
        typer.Option(help="A capability, for example billing.run:execute; all if none is given."),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="For test data instead of live.")] = False,
    subject: Annotated[str, typer.Option(help="Who calls.")] = "developer",
    hours: Annotated[int, typer.Option(min=1, max=24 * 365)] = 12,
) -> None:
    """Mint a development token; only the embedded default accepts it."""
    settings = _settings()
    if not settings.uses_development_key:
        _fail(
            "development tokens are only for the embedded default: "
            "with your own keys or database, get tokens from their issuer"
        )
    minted = mint_token(
        load_or_create_key(data_directory(settings)),
        subject=subject,
        tenants="*" if "*" in tenant else tenant,
        livemode=not test,
        capabilities=capability or "*",
        ttl_seconds=hours * 3600,
    )
    typer.echo(minted)


@app.command("config")
def config_command() -> None:
    """Show every setting, its value here, and what it means."""
    settings = read_settings(os.environ)
    table = Table("variable", "value", "default", "meaning", title="Settings")
    for setting in SETTINGS:
        value = getattr(settings, setting.field_name)
        shown = "(set)" if setting.is_secret and value is not None else str(value)
        table.add_row(
            setting.variable,
            "" if value is None else shown,
            setting.default,
            setting.meaning,
        )
    Console().print(table)


@app.command("invoicing-server")
def invoicing_server(
    listen: Annotated[str, typer.Option(help="Loopback address, or unix:/path.")] = (
        "127.0.0.1:50052"
    ),
    data_file: Annotated[
        Path | None, typer.Option(help="Keep invoices here (JSON lines) over restarts.")
    ] = None,
    error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of calls that fail before doing anything.")
    ] = 0.0,
    drop_reply_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of calls that do their work, then fail.")
    ] = 0.0,
    delay_ms: Annotated[int, typer.Option(min=0, help="Time that every call takes.")] = 0,
    refuse_customer: Annotated[
        list[str] | None, typer.Option(help="A customer who cannot be invoiced; repeat it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the faults repeat.")] = None,
) -> None:
    """Run the reference invoicing service: for development, never for money."""
    server_settings = InvoicingServerSettings(
        listen_address=listen,
        data_file=data_file,
        error_rate=error_rate,
        drop_reply_rate=drop_reply_rate,
        delay_ms=delay_ms,
        refused_customer_ids=frozenset(refuse_customer or ()),
        seed=seed,
    )
    announce: Callable[[str], None] = lambda address: _out.print(  # noqa: E731
        f"reference invoicing service listens on [bold]{address}[/]"
    )
    _run(serve_invoicing(server_settings, started=announce))


@app.command()
def demo(export: DemoExportOption = None) -> None:
    """Watch the main job: a month of usage becomes a ledger, invoices, refund, credit note."""
    _run(run_demo(Console(), export=export))


@app.command(hidden=True)
def trace(file: Path) -> None:
    """Import a file shaped as the Azure LLM trace, bill it once, and compare."""
    _run(run_trace(Console(), file))


if __name__ == "__main__":
    main()
