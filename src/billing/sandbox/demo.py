"""``billing demo``: the main job for real, on loopback, with its own processes and database."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from dateutil.relativedelta import relativedelta
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from billing.sandbox.demo_client import DemoClient
from billing.sandbox.demo_report import DemoReport
from billing.sandbox.development_key import load_or_create_key, mint_token
from billing.sandbox.sample_data import (
    UNBILLABLE_CUSTOMER,
    sample_events,
    sample_plan_choices,
)

TENANT: Final = "acme"
PAUSED: Final = range(20, 25)
CANCELLED: Final = range(60, 64)
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_CHANNEL_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)


class DemoFailed(Exception):
    """A part of the demonstration did not do what it must."""


async def run_demo(console: Console) -> None:
    """Run the demonstration and print it; raises DemoFailed. Leaves nothing behind."""
    report = DemoReport(console)
    report.begin()
    with _interruptible(), _temporary_directory() as directory:
        try:
            async with _everything_running(directory, report) as client:
                await _demonstrate(client, report)
        except grpc.aio.AioRpcError as error:
            raise DemoFailed(f"{error.code().name}: {error.details()}") from error
    report.end()


async def _demonstrate(client: DemoClient, report: DemoReport) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    start = now - relativedelta(months=1) - timedelta(hours=6)
    choices = sample_plan_choices()
    with report.step("Catalog: meters and plans"):
        await client.create_catalog()
    with report.step(f"Subscriptions: {len(choices)}, started a month ago"):
        subscriptions = await client.create_subscriptions(choices, started_at=start)
    with report.step("Usage: 50,000 events, rated into the ledger as they arrive"):
        month_end = start + relativedelta(months=1)
        events = list(sample_events(choices, start=start, end=month_end))
        report.usage(await client.ingest(events, subscriptions))
    with report.step("Some are paused, some cancelled at once (cut, billed, invoiced)"):
        await client.pause([subscriptions[number] for number in PAUSED])
        await client.cancel([subscriptions[number] for number in CANCELLED])
    with report.step("Billing run"):
        run = await client.run_billing("demo-run-1")
    results = await client.list_results(run.id)
    report.run(run, results, title="The billing run")
    example = next(result for result in results if result.subscription_id == subscriptions[1])
    report.invoice(await client.get_invoice(example.invoice_id))
    report.ledger(
        await client.list_entries(example.subscription_id),
        await client.get_balance(example.subscription_id),
    )
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


@asynccontextmanager
async def _everything_running(directory: Path, report: DemoReport) -> AsyncIterator[DemoClient]:
    api, invoicing = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BILLING_")},
        "BILLING_DATA_DIR": str(directory),
        "BILLING_LISTEN_ADDRESS": api,
        "BILLING_INVOICING_ADDRESS": invoicing,
        "BILLING_METRICS_ADDRESS": "",
        "BILLING_LOG_LEVEL": "warning",
    }
    with report.step("Start: PostgreSQL, billing service, invoicing service"):
        key = load_or_create_key(directory)
        refusal = ["--refuse-customer", UNBILLABLE_CUSTOMER]
        processes = [
            await _spawn(["invoicing-server", "--listen", invoicing, *refusal], environment),
            await _spawn(["serve"], environment),
        ]
        try:
            await asyncio.gather(*(_until_serving(a, processes) for a in (api, invoicing)))
        except BaseException:
            await _stop(processes)
            raise
    token = mint_token(
        key,
        subject="demo",
        tenants=[TENANT],
        livemode=True,
        capabilities="*",
        ttl_seconds=3600,
    )
    try:
        async with (
            grpc.aio.insecure_channel(api, options=_CHANNEL_OPTIONS) as api_channel,
            grpc.aio.insecure_channel(invoicing, options=_CHANNEL_OPTIONS) as invoicing_channel,
        ):
            yield DemoClient(TENANT, token, api_channel, invoicing_channel)
    finally:
        with report.step("Stop everything"):
            await _stop(processes)


async def _spawn(arguments: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "billing.cli",
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )


async def _until_serving(address: str, processes: list[asyncio.subprocess.Process]) -> None:
    """Return when the health service says SERVING; raises DemoFailed if a process ends first."""
    deadline = time.monotonic() + _START_SECONDS
    async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            ended = [process for process in processes if process.returncode is not None]
            if ended or time.monotonic() > deadline:
                raise DemoFailed(f"nothing serves at {address}; the lines above tell why")
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return


async def _stop(processes: list[asyncio.subprocess.Process]) -> None:
    """End the service before the invoicing service that it may still be calling."""
    for process in reversed(processes):
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the demonstration as Ctrl-C does: with everything stopped."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextmanager
def _temporary_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's unprivileged user can enter, should we be root."""
    directory = Path(tempfile.mkdtemp(prefix="billing-demo-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
