"""``billing demo``: the main job for real, on loopback, with its own processes and database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from dateutil.relativedelta import relativedelta
from rich.console import Console

from billing.caller.errors import CallerFailed
from billing.exporter.options import ExportOptions, format_of
from billing.exporter.progress import TerminalObserver
from billing.exporter.run import export_ledger
from billing.sandbox.demo_client import DemoClient
from billing.sandbox.demo_correction import CorrectionStory
from billing.sandbox.demo_credits import CreditCustomer, CreditStory
from billing.sandbox.demo_report import DemoReport
from billing.sandbox.processes import (
    CHANNEL_OPTIONS,
    SandboxFailed,
    SandboxServices,
    interruptible,
    start_services,
    temporary_directory,
)
from billing.sandbox.sample_data import (
    METERS,
    PLANS,
    UNBILLABLE_CUSTOMER,
    SamplePlan,
    sample_events,
    sample_plan_choices,
)

TENANT: Final = "acme"
EXAMPLE: Final = 1
"""The subscription that is followed through; its credits pay usage as it arrives."""
PAUSED: Final = range(20, 25)
CANCELLED: Final = range(60, 64)


class DemoFailed(SandboxFailed):
    """The demonstration did not come out as it must."""


async def run_demo(console: Console, *, export: Path | None = None) -> None:
    """Run the demonstration and print it; raises SandboxFailed.

    Leaves nothing behind but the ledger in the file ``export``, if one is named.
    """
    report = DemoReport(console)
    report.begin()
    with interruptible(), temporary_directory() as directory:
        try:
            async with _everything_running(directory, report) as (services, client):
                await _demonstrate(client, report)
                if export is not None:
                    with report.step(f"All of the ledger goes to {export}"):
                        await asyncio.to_thread(_export, services, export)
        except CallerFailed as error:
            raise DemoFailed(str(error)) from error
        except grpc.aio.AioRpcError as error:
            raise DemoFailed(f"{error.code().name}: {error.details()}") from error
    report.end()


async def _demonstrate(client: DemoClient, report: DemoReport) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    start = now - relativedelta(months=1) - timedelta(hours=6)
    choices = sample_plan_choices()
    with report.step("Catalog: meters and plans"):
        await client.create_catalog({meter.code: meter.name for meter in METERS}, PLANS)
    with report.step(f"Subscriptions: {len(choices)}, started a month ago"):
        subscriptions = await client.create_subscriptions(
            choices, started_at=start, realtime=[EXAMPLE]
        )
    customer = CreditCustomer(subscriptions[EXAMPLE], choices[EXAMPLE])
    story = CreditStory(client, report, customer)
    wrong = _number_of_wrong(choices)
    correction = CorrectionStory(
        client,
        report,
        number=wrong,
        subscription_id=subscriptions[wrong],
        plan=choices[wrong],
    )
    with report.step("A promotion for one of them, in effect since the start"):
        await story.promote(effective_at=start)
    with report.step("Usage: 50,000 events, rated into the ledger as they arrive"):
        month_end = start + relativedelta(months=1)
        events = list(sample_events(choices, start=start, end=month_end))
        events.append(correction.mistake(start + timedelta(days=20)))
        report.usage(await client.ingest(events, subscriptions))
    with report.step("Some are paused, some cancelled at once (cut, billed, invoiced)"):
        await client.pause([subscriptions[number] for number in PAUSED])
        await client.cancel([subscriptions[number] for number in CANCELLED])
    with report.step("Billing run"):
        run = await client.run_billing("demo-run-1")
    results = await client.list_results(run.id)
    report.run(run, results, title="The billing run")
    example = next(r for r in results if r.subscription_id == customer.subscription_id)
    invoice = await client.get_invoice(example.invoice_id)
    report.invoice(invoice)
    report.ledger(
        await client.list_entries(example.subscription_id),
        await client.get_balance(example.subscription_id),
    )
    await story.tell(example, invoice)
    before = await client.get_trial_balance()
    report.trial_balance(before)
    with report.step("Billing run again, as another request"):
        again = await client.run_billing("demo-run-2")
    results_again = await client.list_results(again.id)
    report.run(again, results_again, title="The billing run again")
    invoiced = {result.billing_period_id for result in results if result.invoice_id}
    if not invoiced.isdisjoint(result.billing_period_id for result in results_again):
        raise DemoFailed("the second billing run took a period that has its invoice")
    after = await client.get_trial_balance()
    if before.difference_amount or after != before:
        raise DemoFailed("the second billing run changed the ledger")
    report.unchanged(len(invoiced))
    mistaken = next(r for r in results if r.subscription_id == subscriptions[wrong])
    await correction.tell(mistaken, events)


def _export(services: SandboxServices, path: Path) -> None:
    """Write the ledger of the tenant to a file."""
    options = ExportOptions(tenant_id=TENANT, format=format_of(path, None), output=path)
    with (
        grpc.insecure_channel(services.api_address) as channel,
        TerminalObserver(Console(stderr=True), quiet=True) as observer,
    ):
        export_ledger(options, channel, read_token=lambda: services.token, observer=observer)


def _number_of_wrong(choices: Sequence[SamplePlan]) -> int:
    """Return the subscription whose usage has a mistake: a large plan's, not followed before."""
    taken = {EXAMPLE, *PAUSED, *CANCELLED}
    return next(
        number
        for number, plan in enumerate(choices)
        if number not in taken and len(plan.components) > 1
    )


@asynccontextmanager
async def _everything_running(
    directory: Path, report: DemoReport
) -> AsyncIterator[tuple[SandboxServices, DemoClient]]:
    with report.step("Start: PostgreSQL, billing service, invoicing service"):
        services = await start_services(
            directory, tenant_id=TENANT, refused_customer_ids=[UNBILLABLE_CUSTOMER]
        )
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
