"""A PostgreSQL server that lives and dies with this process, from the binaries of a wheel.

The wheel's own launcher adds system users, changes the modes of parent directories and fails after
a `kill -9`, so its binaries are all that is used of it. `postgres_directory` describes the files.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

import asyncpg

from billing.sandbox import postgres_directory
from billing.sandbox.postgres_directory import default_data_dir
from billing.sandbox.postgres_errors import (
    BinariesMissing,
    DataDirectoryInUse,
    DataDirectoryNotEmpty,
    DataDirectoryNotReachable,
    DirectoryNotTrusted,
    EmbeddedPostgresError,
    PostgresNotStarted,
    ProcessNotStopped,
    SettingReserved,
    UnprivilegedUserMissing,
)
from billing.sandbox.postgres_process import ChildProcess, ServerLog, ServerUser, spawn

__all__ = [
    "BinariesMissing",
    "DataDirectoryInUse",
    "DataDirectoryNotEmpty",
    "DataDirectoryNotReachable",
    "DirectoryNotTrusted",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "EmbeddedPostgresServer",
    "PostgresNotStarted",
    "ProcessNotStopped",
    "SettingReserved",
    "UnprivilegedUserMissing",
    "default_data_dir",
]

DEFAULT_SETTINGS: Final = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A crash of the machine may then lose or tear anything; the crash of a process still loses nothing
# but the commits of its last moments.
NOT_DURABLE_SETTINGS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
PORT: Final = 5432  # only names the socket's file: there is no TCP listener
RESERVED_SETTINGS: Final = ("listen_addresses", "port", "unix_socket_directories")

INITDB_DEADLINE_SECONDS: Final = 120.0
START_DEADLINE_SECONDS: Final = 120.0  # room for the recovery of a full `max_wal_size`
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A running server."""

    data_dir: Path
    socket_dir: Path
    pid: int

    def url(self, *, user: str = "postgres", database: str = "postgres") -> str:
        """A DSN for asyncpg; for SQLAlchemy replace the scheme by `postgresql+asyncpg`."""
        host = quote(str(self.socket_dir), safe="")
        path = f"{quote(user, safe='')}@/{quote(database, safe='')}"
        # The port is named because asyncpg would take another one from PGPORT.
        return f"postgresql://{path}?host={host}&port={PORT}"


class EmbeddedPostgresServer:
    """Starts and stops one server; `async with` yields the running `EmbeddedPostgres`.

    It may be started in one event loop and stopped in another. Without a `stop` the server shuts
    down when this process ends, however it ends (on Linux).
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, durable: bool = True
    ) -> None:
        """`settings` are server settings by name. `durable=False` is for data nobody will miss."""
        for name in settings or {}:
            if name in RESERVED_SETTINGS:
                raise SettingReserved(name)
        self._data_dir = data_dir.expanduser().resolve()
        self._durable = durable
        self._settings = {
            **DEFAULT_SETTINGS,
            **({} if durable else NOT_DURABLE_SETTINGS),
            **(settings or {}),
        }
        self._user = ServerUser.of_this_process()
        self._log = ServerLog(self._data_dir / "server.log")
        self._lock: int | None = None
        self._child: ChildProcess | None = None
        self._socket_dir: Path | None = None

    async def __aenter__(self) -> EmbeddedPostgres:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> EmbeddedPostgres:
        """Returns when the server accepts connections; a failed start leaves nothing running."""
        postgres_directory.prepare_data_dir(self._data_dir, self._user)
        self._lock = postgres_directory.claim(self._data_dir)
        try:
            return await self._start_claimed()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends all sessions, writes a checkpoint and waits for the end; may be called again."""
        if self._child is not None:
            await self._child.stop()
            self._child = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _start_claimed(self) -> EmbeddedPostgres:
        cluster = self._data_dir / "cluster"
        await asyncio.to_thread(postgres_directory.remove_partial_clusters, self._data_dir)
        binaries = await asyncio.to_thread(
            postgres_directory.reachable_binaries, self._data_dir, self._user
        )
        self._log.begin()
        if cluster.exists():
            postgres_directory.require_owner(cluster, self._user.uid)
            await postgres_directory.wait_for_previous_server(cluster)
            postgres_directory.disown_pid_file(cluster)
        else:
            await self._make_cluster(binaries, cluster)
        self._socket_dir = postgres_directory.make_socket_dir(self._data_dir, self._user)
        return await self._launch(binaries, cluster, self._socket_dir)

    async def _make_cluster(self, binaries: Path, cluster: Path) -> None:
        """`initdb` beside the final place, so that a half-made cluster is never taken for one."""
        partial = postgres_directory.make_temporary_dir(
            self._data_dir, user=self._user, prefix=postgres_directory.PARTIAL_PREFIX
        )
        # The builtin locale sorts by code point everywhere; a libc one may change with the system.
        locale = (
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        access = ("--username=postgres", "--auth-local=trust", "--auth-host=reject")
        sync = () if self._durable else ("--no-sync",)
        self._child = spawn(
            [
                str(binaries / "initdb"),
                f"--pgdata={partial}",
                "--no-instructions",
                *locale,
                *access,
                *sync,
            ],
            user=self._user,
            log=self._log,
        )
        if not await self._child.exits_within(INITDB_DEADLINE_SECONDS):
            raise self._not_started(f"initdb took over {INITDB_DEADLINE_SECONDS:.0f} s")
        if (code := self._child.exit_code.result()) != 0:
            raise self._not_started(f"initdb exited with {code}")
        partial.rename(cluster)
        if self._durable:
            await asyncio.to_thread(postgres_directory.sync_dir, self._data_dir)

    async def _launch(self, binaries: Path, cluster: Path, socket_dir: Path) -> EmbeddedPostgres:
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(socket_dir),
        }
        options = [
            option for name, value in settings.items() for option in ("-c", f"{name}={value}")
        ]
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            self._child = spawn(
                [str(binaries / "postgres"), "-D", str(cluster), *options],
                user=self._user,
                log=self._log,
            )
            running = EmbeddedPostgres(self._data_dir, socket_dir, self._child.process.pid)
            if await self._accepts_connections(running, self._child, deadline):
                return running
            # Sessions of a server that was killed notice it only when they next wait for something.
            if "pre-existing shared memory block" not in self._log.tail():
                raise self._not_started(f"postgres exited with {self._child.exit_code.result()}")
            await asyncio.sleep(POLL_SECONDS)
        raise self._not_started(f"no connection in {START_DEADLINE_SECONDS:.0f} s")

    async def _accepts_connections(
        self, running: EmbeddedPostgres, child: ChildProcess, deadline: float
    ) -> bool:
        """False if the server exits; raises PostgresNotStarted at the deadline."""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
                connection = await asyncpg.connect(running.url(), timeout=5)
                await connection.close()
                return True
            if await child.exits_within(POLL_SECONDS):
                return False
        raise self._not_started(f"no connection in {START_DEADLINE_SECONDS:.0f} s")

    def _not_started(self, reason: str) -> PostgresNotStarted:
        return PostgresNotStarted(reason, log_tail=self._log.tail())
