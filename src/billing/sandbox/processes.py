"""The service and the reference invoicing service as processes of their own, on loopback."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from billing.sandbox.development_key import load_or_create_key, mint_token

CHANNEL_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_TOKEN_SECONDS: Final = 3600


class SandboxFailed(Exception):
    """A part of the sandbox did not do what it must."""


@dataclass(frozen=True, slots=True)
class SandboxServices:
    """What runs, where it listens, and a token with all rights in one tenant."""

    api_address: str
    invoicing_address: str
    token: str
    processes: Sequence[asyncio.subprocess.Process]

    async def stop(self) -> None:
        """End the service before the invoicing service that it may still be calling."""
        await _stop(self.processes)


async def start_services(
    directory: Path, *, tenant_id: str, refused_customer_ids: Sequence[str] = ()
) -> SandboxServices:
    """Return when both answer; all they keep is in the directory. Raises SandboxFailed."""
    api, invoicing = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BILLING_")},
        "BILLING_DATA_DIR": str(directory),
        "BILLING_LISTEN_ADDRESS": api,
        "BILLING_INVOICING_ADDRESS": invoicing,
        "BILLING_METRICS_ADDRESS": "",
        "BILLING_LOG_LEVEL": "warning",
    }
    token = mint_token(
        load_or_create_key(directory),
        subject="sandbox",
        tenants=[tenant_id],
        livemode=True,
        capabilities="*",
        ttl_seconds=_TOKEN_SECONDS,
    )
    refusals = [f"--refuse-customer={customer_id}" for customer_id in refused_customer_ids]
    processes = [
        await _spawn(["invoicing-server", "--listen", invoicing, *refusals], environment),
        await _spawn(["serve"], environment),
    ]
    try:
        await asyncio.gather(*(_until_serving(a, processes) for a in (api, invoicing)))
    except BaseException:
        await _stop(processes)
        raise
    return SandboxServices(api, invoicing, token, processes)


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


async def _until_serving(address: str, processes: Sequence[asyncio.subprocess.Process]) -> None:
    """Return when the health service says SERVING; raises SandboxFailed if a process ends first."""
    deadline = time.monotonic() + _START_SECONDS
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            ended = [process for process in processes if process.returncode is not None]
            if ended or time.monotonic() > deadline:
                raise SandboxFailed(f"nothing serves at {address}; the lines above tell why")
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return


async def _stop(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in reversed(processes):
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the current task as Ctrl-C does: with everything stopped."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's unprivileged user can enter, should we be root."""
    directory = Path(tempfile.mkdtemp(prefix="billing-sandbox-"))
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
