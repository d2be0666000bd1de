"""The service as processes of their own, to be stopped, frozen and killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import grpc.aio

from billing.bootstrap import running_service
from billing.config import Settings
from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.client import BillingClient

_DEADLINE_SECONDS = 60.0
_NO_PROXY = [("grpc.enable_http_proxy", 0)]


class ServiceProcess:
    """One ``billing serve`` or ``billing worker``."""

    def __init__(self, process: asyncio.subprocess.Process, announcement: str) -> None:
        self._process = process
        self._announcement = announcement

    @property
    def address(self) -> str:
        """Where it serves."""
        return self._announcement.rpartition(" ")[2]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as a crash does, and wait for its end."""
        self._process.kill()
        await self._ended()

    async def terminate(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._process.terminate()
        return await self.exit_code()

    async def exit_code(self) -> int:
        """Wait for its end, and return its exit code."""
        await self._ended()
        assert self._process.returncode is not None
        return self._process.returncode

    async def until_draining(self) -> None:
        """Return when it has said that it is stopping."""
        assert self._process.stdout is not None
        async with asyncio.timeout(_DEADLINE_SECONDS):
            assert await self._process.stdout.readline() == b"draining\n"

    async def end(self) -> None:
        """Make sure that nothing is left of it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._ended()

    async def _ended(self) -> None:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await self._process.communicate()


@dataclass(frozen=True)
class Deployment:
    """A database and an invoicing service, and whatever processes a test starts upon them."""

    database_url: str
    key: DevelopmentKey
    invoicing: ReferenceInvoicingServer

    @asynccontextmanager
    async def running(
        self, settings: Mapping[str, object] = MappingProxyType({}), *, command: str = "serve"
    ) -> AsyncIterator[ServiceProcess]:
        """Start a process with settings by field name; nothing is left of it after the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "billing.cli",
            command,
            env=self._environment(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_DEADLINE_SECONDS):
            announcement = (await process.stdout.readline()).decode().strip()
        started = ServiceProcess(process, announcement)
        try:
            assert announcement, "the process ended at its start; its log is among the captured"
            yield started
        finally:
            await started.end()

    @asynccontextmanager
    async def running_here(
        self,
        settings: Mapping[str, Any] = MappingProxyType({}),
        *,
        worker: bool = True,
        like: BillingClient | None = None,
    ) -> AsyncIterator[BillingClient]:
        """Run the service in this process, which starts faster, and call it."""
        configured = Settings(**{**self._settings, "metrics_address": None, **settings})
        async with running_service(configured, api=True, worker=worker) as service:
            assert service.address is not None
            async with self.client(service.address, like) as client:
                yield client

    @asynccontextmanager
    async def client(
        self, address: str, like: BillingClient | None = None
    ) -> AsyncIterator[BillingClient]:
        """Call a service, for a new tenant or for that of an earlier caller."""
        async with grpc.aio.insecure_channel(address, options=_NO_PROXY) as channel:
            if like is None:
                yield BillingClient(channel, self.key)
            else:
                yield replace(like, channel=channel)

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "database_url": self.database_url,
            "jwks_file": self.key.jwks_file,
            "listen_address": "127.0.0.1:0",
            "invoicing_address": self.invoicing.address,
            "metrics_address": "",
            "log_level": "warning",
        }

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("BILLING_")
        }
        configured = {**self._settings, **settings}
        return inherited | {f"BILLING_{name.upper()}": str(v) for name, v in configured.items()}
