"""``billing trace``: a file of real requests becomes an invoice, checked against the file itself.

The file has the columns of the Azure LLM inference trace 2023: TIMESTAMP, ContextTokens and
GeneratedTokens. What must come out is computed here from the file alone, not by the service.
"""

import asyncio
import csv
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from dateutil.relativedelta import relativedelta
from rich import box
from rich.console import Console
from rich.table import Table

from billing.caller.calls import CallPolicy
from billing.importer.errors import ImportFailed
from billing.importer.options import ImportOptions, MappingOptions
from billing.importer.progress import TerminalObserver, print_summary
from billing.importer.run import ImportSummary, import_usage
from billing.sandbox.demo_client import DemoClient
from billing.sandbox.demo_report import DemoReport
from billing.sandbox.processes import (
    CHANNEL_OPTIONS,
    SandboxFailed,
    SandboxServices,
    interruptible,
    start_services,
    temporary_directory,
)
from billing.sandbox.sample_data import SampleComponent, SamplePlan
from billing.v1 import ledger_pb2
from invoicing.v1 import invoicing_pb2

TENANT: Final = "trace"
METER_NAMES: Final = {"input_tokens": "Input tokens", "output_tokens": "Output tokens"}
COLUMNS: Final = {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}
TIME_COLUMN: Final = "TIMESTAMP"
PLAN: Final = SamplePlan(
    "Inference",
    "USD",
    2_000,
    (
        SampleComponent("input_tokens", "0.00005", "1000000"),
        SampleComponent("output_tokens", "0.00015", "0"),
    ),
    weight=1,
)
_IMPORT_POLICY: Final = CallPolicy(patience_seconds=5.0)  # the service runs right here


class TraceFailed(SandboxFailed):
    """The trace cannot be used, or did not become the invoice that it must."""


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """What the file says: sums by meter, and the month that all of it lies in."""

    row_count: int
    units: dict[str, Decimal]
    month_start: datetime

    @property
    def charges_minor(self) -> dict[str, int]:
        """What each meter's units cost: price times units over the included, halves up."""
        charges = {}
        for component in PLAN.components:
            billable = max(
                self.units[component.meter_code] - Decimal(component.included_units), Decimal(0)
            )
            charge = (billable * Decimal(component.unit_price)).quantize(Decimal(1), ROUND_HALF_UP)
            charges[component.meter_code] = int(charge)
        return charges


@dataclass(frozen=True, slots=True)
class Check:
    """A figure as the file demands it, and as the service has it."""

    name: str
    expected: int
    found: int


def read_facts(path: Path) -> TraceFacts:
    """Add up the file; raises TraceFailed, and OSError."""
    units = dict.fromkeys(COLUMNS, Decimal(0))
    moments: set[datetime] = set()
    row_count = 0
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            for row in csv.DictReader(stream):
                row_count += 1
                for code, column in COLUMNS.items():
                    units[code] += Decimal(row[column])
                moments.add(_month_of(row[TIME_COLUMN]))
        except (KeyError, TypeError, ValueError, ArithmeticError, csv.Error) as error:
            raise TraceFailed(
                f"{path}, row {row_count}: expected are the columns {TIME_COLUMN}, "
                f"{', '.join(COLUMNS.values())} ({error!r})"
            ) from error
    if len(moments) != 1:
        raise TraceFailed(f"{path}: the rows lie in {len(moments)} months; one month can be billed")
    return TraceFacts(row_count, units, moments.pop())


def _month_of(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


async def run_trace(console: Console, path: Path) -> None:
    """Import, bill, compare, import again; raises SandboxFailed. Leaves nothing behind."""
    facts = read_facts(path)
    if facts.month_start + relativedelta(months=1) > datetime.now(UTC):
        raise TraceFailed(f"{path}: its month is not over, so nothing is due")
    report = DemoReport(console)
    with interruptible(), temporary_directory() as directory:
        try:
            async with _everything_running(directory, report) as (services, client):
                await _prove(console, report, path, facts, services, client)
        except grpc.aio.AioRpcError as error:
            raise TraceFailed(f"{error.code().name}: {error.details()}") from error
        except ImportFailed as error:
            raise TraceFailed(str(error)) from error
    report.end()


@asynccontextmanager
async def _everything_running(
    directory: Path, report: DemoReport
) -> AsyncIterator[tuple[SandboxServices, DemoClient]]:
    with report.step("Start: PostgreSQL, billing service, invoicing service"):
        services = await start_services(directory, tenant_id=TENANT)
    try:
        async with (
            grpc.aio.insecure_channel(services.api_address, options=CHANNEL_OPTIONS) as api,
            grpc.aio.insecure_channel(
                services.invoicing_address, options=CHANNEL_OPTIONS
            ) as invoicing,
        ):
            yield services, DemoClient(TENANT, services.token, api, invoicing)
    finally:
        with report.step("Stop everything"):
            await services.stop()


async def _prove(
    console: Console,
    report: DemoReport,
    path: Path,
    facts: TraceFacts,
    services: SandboxServices,
    client: DemoClient,
) -> None:
    with report.step(f"A new tenant, subscribed since {facts.month_start:%Y-%m-%d}"):
        await client.create_catalog(METER_NAMES, [PLAN])
        [subscription_id] = await client.create_subscriptions([PLAN], started_at=facts.month_start)
    summary = await asyncio.to_thread(_import, console, path, subscription_id, services)
    print_summary(console, summary)
    with report.step("Bill the month once"):
        result = await client.run_billing_for_subscription(subscription_id, "trace-1")
    if not result.invoice_id:
        raise TraceFailed(f"no invoice: {result.error_reason} {result.error_message}")
    invoice = await client.get_invoice(result.invoice_id)
    report.invoice(invoice)
    entries = await client.list_entries(subscription_id)
    checks = _checks(facts, summary, invoice, entries)
    again = await asyncio.to_thread(_import, console, path, subscription_id, services)
    print_summary(console, again)
    entries_after = await client.list_entries(subscription_id)
    balance = await client.get_balance(subscription_id)
    checks += [
        Check("imported again: duplicates", summary.counts.sent, again.counts.duplicate),
        Check("imported again: anything else", 0, again.counts.sent - again.counts.duplicate),
        Check("ledger entries after that", len(entries), len(entries_after)),
        Check("outstanding after that", invoice.total_amount, balance.outstanding_amount),
    ]
    _print_checks(console, checks)
    wrong = [check.name for check in checks if check.expected != check.found]
    if wrong or entries_after != entries:
        raise TraceFailed(f"not as the file demands: {', '.join(wrong) or 'the entries changed'}")


def _import(
    console: Console, path: Path, subscription_id: str, services: SandboxServices
) -> ImportSummary:
    options = ImportOptions(
        file=str(path),
        tenant_id=TENANT,
        mapping=MappingOptions(
            columns={"event_timestamp": TIME_COLUMN},
            constants={"subscription_id": subscription_id},
            meters=tuple(COLUMNS.items()),
            time_zone="UTC",
        ),
    )
    with (
        grpc.insecure_channel(services.api_address, options=CHANNEL_OPTIONS) as channel,
        TerminalObserver(console, quiet=False) as observer,
    ):
        return import_usage(
            options,
            channel,
            read_token=lambda: services.token,
            observer=observer,
            policy=_IMPORT_POLICY,
        )


def _checks(
    facts: TraceFacts,
    summary: ImportSummary,
    invoice: invoicing_pb2.Invoice,
    entries: Sequence[ledger_pb2.LedgerEntry],
) -> list[Check]:
    usage = [e for e in entries if e.entry_type == ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST]
    charges = facts.charges_minor
    total = PLAN.base_price_minor + sum(charges.values())
    event_count = facts.row_count * len(COLUMNS)
    return [
        Check("events accepted", event_count, summary.counts.accepted),
        Check("usage_cost entries", event_count, len(usage)),
        Check("usage_cost sum", -sum(charges.values()), sum(entry.amount for entry in usage)),
        Check("sum of all entries", -total, sum(entry.amount for entry in entries)),
        Check("invoice: base price", PLAN.base_price_minor, _line(invoice, "Monthly subscription")),
        *(
            Check(f"invoice: {name.lower()}", charges[code], _line(invoice, name))
            for code, name in METER_NAMES.items()
        ),
        Check("invoice: total", total, invoice.total_amount),
    ]


def _line(invoice: invoicing_pb2.Invoice, name: str) -> int:
    """Return the amount of the lines whose description begins with a name."""
    return sum(line.amount for line in invoice.line_items if line.description.startswith(name))


def _print_checks(console: Console, checks: Sequence[Check]) -> None:
    table = Table(
        title="The file against the ledger (amounts in cents)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("figure")
    table.add_column("from the file", justify="right")
    table.add_column("from the service", justify="right")
    table.add_column("")
    for check in checks:
        mark = "[green]✓[/]" if check.expected == check.found else "[bold red]differs[/]"
        table.add_row(check.name, f"{check.expected:,}", f"{check.found:,}", mark)
    console.print(table)
