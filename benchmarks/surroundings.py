"""What every figure needs: a durable PostgreSQL, and the two servers as processes of their own."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from billing.sandbox.development_key import load_or_create_key
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer
from billing.store.migrations import migrate
from tests.factories.client import BillingClient

_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True)
class Surroundings:
    """A running service, and what measures it."""

    client: BillingClient
    database_url: str
    invoicing_address: str
    service_pid: int

    def peak_memory_mib(self) -> float:
        """The most memory that the service's process has held so far."""
        status = Path(f"/proc/{self.service_pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def cpu_seconds(self) -> float:
        """The CPU time that the service's process has taken so far."""
        fields = Path(f"/proc/{self.service_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(name: str, *, ours: float, floor: float, unit: str) -> None:
    """Print a figure; a ratio above 1 is better than the floor, whatever the unit."""
    better = floor / ours if unit.endswith("s") and "/" not in unit else ours / floor
    line = f"figure: {name} ours={ours:.4g} floor={floor:.4g} ratio={better:.2f} unit={unit}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print what belongs to a figure and has no floor."""
    sys.stdout.write(f"note: {text}\n")
    sys.stdout.flush()


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's unprivileged user can enter, should we be root."""
    directory = Path(tempfile.mkdtemp(prefix="billing-bench-", dir=os.environ.get("BENCH_DIR")))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def surroundings() -> AsyncIterator[Surroundings]:
    """Run everything; the database commits durably, as in production."""
    with temporary_directory() as directory:
        key = load_or_create_key(directory)
        async with EmbeddedPostgresServer(directory / "postgres") as postgres:
            await migrate(postgres.url())
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith("BILLING_")},
                "BILLING_DATABASE_URL": postgres.url(),
                "BILLING_JWKS_FILE": str(key.jwks_file),
                "BILLING_LISTEN_ADDRESS": f"unix:{directory}/billing.sock",
                "BILLING_INVOICING_ADDRESS": f"unix:{directory}/invoicing.sock",
                "BILLING_METRICS_ADDRESS": "",
                "BILLING_LOG_LEVEL": "warning",
                "PYTHONUNBUFFERED": "1",
            }
            invoicing_address = environment["BILLING_INVOICING_ADDRESS"]
            invoicing = ["invoicing-server", "--listen", invoicing_address]
            async with (
                _process(invoicing, environment),
                _process(["serve"], environment) as service_pid,
                grpc.aio.insecure_channel(
                    environment["BILLING_LISTEN_ADDRESS"], options=_CHANNEL_OPTIONS
                ) as channel,
            ):
                yield Surroundings(
                    BillingClient(channel, key), postgres.url(), invoicing_address, service_pid
                )


@asynccontextmanager
async def _process(arguments: list[str], environment: dict[str, str]) -> AsyncIterator[int]:
    """Run a `billing` command from its first line of output to SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "billing.cli",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert b"listens on" in line, line
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
