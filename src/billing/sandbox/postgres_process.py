"""Runs a PostgreSQL program as a child that does not outlive this process."""

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from billing.sandbox.postgres_errors import ProcessNotStopped, UnprivilegedUserMissing

UNPRIVILEGED_USER: Final = "nobody"
# Fast shutdown; then exit without a checkpoint, to be recovered from; then the kernel's way.
STOP_SIGNALS: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
LOG_LIMIT_BYTES: Final = 8 * 1024 * 1024
LOG_TAIL_LINES: Final = 20
LOG_TAIL_BYTES: Final = 16 * 1024

# Turns itself into the program. A `preexec_fn` would run Python in a fork of a process with
# threads, which may deadlock. The order matters: the interpreter may lie where only root can read,
# so imports come first; a change of user clears the death signal, so that is asked for afterwards;
# the parent may have died before it was, so that is looked at last. The interpreter may need our
# environment, the program must not have it: PGDATA and the like would change what it does.
EXEC_WITH_PARENT: Final = """
import ctypes, os, signal, sys
parent_pid, uid, gid = map(int, sys.argv[1:4])
libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
os.umask(0o077)
PR_SET_PDEATHSIG = 1
if libc and libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
if os.getppid() != parent_pid:
    sys.exit("the parent has died")
os.execve(sys.argv[4], sys.argv[4:], {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"})
"""


@dataclass(frozen=True)
class ServerUser:
    """Who runs the server: `nobody` in place of root, else whoever we are."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of_this_process(cls) -> "ServerUser":
        if os.geteuid() != 0:
            return cls(str(os.geteuid()), os.geteuid(), os.getegid())
        try:
            entry = pwd.getpwnam(UNPRIVILEGED_USER)
        except KeyError as missing:
            raise UnprivilegedUserMissing(UNPRIVILEGED_USER) from missing
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def is_another(self) -> bool:
        return self.uid != os.geteuid()

    def may(self, wanted_bits: int, path: Path) -> bool:
        """`wanted_bits` of os.R_OK, os.W_OK, os.X_OK. By mode alone: access lists are not read."""
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return status.st_mode >> shift & wanted_bits == wanted_bits

    def blocking_dir(self, path: Path) -> Path | None:
        """The highest parent directory of `path` that this user cannot enter."""
        parents = (directory for directory in reversed(path.parents) if directory.exists())
        return next((directory for directory in parents if not self.may(os.X_OK, directory)), None)


class ServerLog:
    """The file that takes everything the programs print."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start_offset = 0

    def begin(self) -> None:
        """Start a new run: its predecessors are kept up to LOG_LIMIT_BYTES, and once that again."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > LOG_LIMIT_BYTES:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        with self.open() as file:
            self._start_offset = file.seek(0, os.SEEK_END)

    def open(self) -> FileIO:
        """The file to append to; the caller closes it."""
        return open(self._path, "ab", buffering=0, opener=_open_private)

    def tail(self) -> str:
        """The last lines of this run."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._start_offset, size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


@dataclass(frozen=True)
class ChildProcess:
    """A running program; `exit_code` is set when it has ended (negative: the signal)."""

    process: "subprocess.Popen[bytes]"
    exit_code: "Future[int]"

    async def exits_within(self, seconds: float) -> bool:
        waiter = asyncio.wrap_future(self.exit_code)
        try:
            await asyncio.wait({waiter}, timeout=seconds)
        finally:
            waiter.cancel()  # or it would call into this loop, closed by then perhaps, at the end
        return self.exit_code.done()

    async def stop(self) -> None:
        for number, seconds in STOP_SIGNALS:
            if self.exit_code.done():
                return
            self.process.send_signal(number)
            if await self.exits_within(seconds):
                return
        raise ProcessNotStopped(self.process.pid)


def spawn(command: Sequence[str], *, user: ServerUser, log: ServerLog) -> ChildProcess:
    """Start `command` (an absolute path and arguments) as `user`; returns as soon as it is forked.

    The thread that forks lives as long as the child, because the kernel sends the death signal when
    that *thread* ends: the caller's may belong to an event loop that is closed long before.
    """
    identity = (str(os.getpid()), str(user.uid), str(user.gid))
    started: Future[subprocess.Popen[bytes]] = Future()
    exit_code: Future[int] = Future()
    exit_code.set_running_or_notify_cancel()  # so that nobody who waits for it can cancel it

    def fork_and_wait() -> None:
        try:
            with log.open() as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", EXEC_WITH_PARENT, *identity, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is for us: we stop the server when done
                )
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            started.set_exception(error)
            return
        started.set_result(process)
        exit_code.set_result(process.wait())

    threading.Thread(
        target=fork_and_wait, name=f"wait-{Path(command[0]).name}", daemon=True
    ).start()
    # Blocks the loop for the millisecond of a fork, as asyncio's own subprocesses do; an await here
    # could be cancelled, and would leave a child that nobody holds.
    return ChildProcess(started.result(), exit_code)
