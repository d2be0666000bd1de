"""``billing ledger export`` against the service: one whole file, or none and the reason why."""
# ruff: noqa: ASYNC240  the files here are small, and nothing else waits for them

import asyncio
import csv
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from billing.bootstrap import RunningService
from billing.caller.calls import CallPolicy
from billing.caller.errors import CallFailed
from billing.domain.errors import DatabaseUnavailable
from billing.exporter.options import ExportOptions
from billing.exporter.run import ExportSummary, export_ledger
from tests.factories.api_server import KEY, NO_PROXY, ApiUnderTest
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.journal import read_journal
from tests.factories.ledger_story import LedgerStory, tell_story

_POLICY = CallPolicy(
    first_pause_seconds=0.01,
    longest_pause_seconds=0.02,
    patience_seconds=30,
    first_patience_seconds=30,
)


class Ended(NamedTuple):
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str


async def run(service: RunningService, client: BillingClient, *arguments: str) -> Ended:
    assert service.address is not None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing.cli", "ledger", "export", "--address", service.address),
        *arguments,
        env={**os.environ, "BILLING_TOKEN": client.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


@pytest.fixture
async def story(client: BillingClient, clock: FakeClock) -> LedgerStory:
    return await tell_story(client, clock)


async def test_a_journal_comes_to_standard_output(
    service: RunningService, story: LedgerStory
) -> None:
    ended = await run(service, story.client, f"--tenant={story.client.tenant_id}")
    assert (ended.exit_code, ended.stderr) == (0, "")  # no terminal, no progress
    journal = read_journal(ended.stdout)
    assert len(journal.transactions) > 10
    assert all(sum(p[1] for p in t.postings) == 0 for t in journal.transactions)


async def test_files_of_each_format_tell_the_same(
    service: RunningService, story: LedgerStory, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("l.csv", "l.jsonl", "l.journal")]
    for file in files:
        ended = await run(
            service,
            story.client,
            *("--tenant", story.client.tenant_id, "--subscription", story.subscription_id),
            *("--from", "2026-03-01", "--until", "2026-04-01T00:00:00Z", "--output", str(file)),
        )
        assert (ended.exit_code, ended.stdout) == (0, "")
        assert ended.stderr.endswith(f" s: {file}\n")
    with files[0].open(newline="") as stream:
        rows = [row["id"] for row in csv.DictReader(stream)]
    lines = [json.loads(line)["id"] for line in files[1].read_text().splitlines()]
    journal = read_journal(files[2].read_text())
    posted = [p[3]["entry_id"] for t in journal.transactions for p in t.postings]
    assert rows == lines == posted[::2]
    assert rows
    assert {t.date[:7] for t in journal.transactions} == {"2026-03"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--tenant", "umbrella"], "the token does not allow this (PERMISSION_DENIED"),
        (["--subscription", "acme"], "ExportLedger failed (INVALID_ARGUMENT: subscription_id"),
        (["--subscription", "sub_01h455vb4pex5vsknk084sn02q"], "NOT_FOUND: subscription sub_"),
        (["--from", "2026-04-01", "--until", "2026-03-01"], "lies after --until"),
        (["--from", "yesterday"], "--from yesterday: expected is a date"),
        (["--format", "xml"], "xml"),
        (["--include-pending"], "a journal has posted entries alone"),
        (["--output", "/nowhere/ledger.csv"], "--output /nowhere/ledger.csv: No such file"),
        (["--token-file", "/none"], "--token-file /none: No such file"),
        (["--address", "127.0.0.1:1"], "the service does not answer (UNAVAILABLE"),
    ],
)
async def test_what_cannot_be_exported_is_told_in_a_line_and_exits_with_1(
    service: RunningService, client: BillingClient, arguments: list[str], text: str
) -> None:
    ended = await run(service, client, "--tenant", client.tenant_id, *arguments)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ApiUnderTest]:
    """A server whose export fails or waits as a test says."""
    (tmp_path / "api").mkdir()
    canned = ApiUnderTest(tmp_path / "api")
    async with canned.running():
        yield canned


class Remembered:
    """An observer that remembers, and mends the server when it hears of a failure."""

    def __init__(self, api: ApiUnderTest, *, mends: bool = True) -> None:
        self.notices: list[str] = []
        self.entry_counts: list[int] = []
        self._api = api
        self._mends = mends

    def progressed(self, *, entry_count: int, byte_count: int) -> None:
        self.entry_counts.append(entry_count)

    def noticed(self, text: str) -> None:
        self.notices.append(text)
        if self._mends:
            self._api.ledger.failure = None


def export_in_thread(
    api: ApiUnderTest, observer: Remembered, output: Path, **policy: Any
) -> asyncio.Task[ExportSummary]:
    def work() -> ExportSummary:
        with grpc.insecure_channel(api.server.address, options=NO_PROXY) as channel:
            return export_ledger(
                ExportOptions(tenant_id="acme", output=output),
                channel,
                read_token=KEY.token,
                observer=observer,
                policy=CallPolicy(**policy) if policy else _POLICY,
            )

    return asyncio.create_task(asyncio.to_thread(work))


async def test_after_a_failure_in_the_middle_all_of_it_comes_again(
    api: ApiUnderTest, tmp_path: Path
) -> None:
    api.ledger.failure = DatabaseUnavailable()
    observer = Remembered(api)
    output = tmp_path / "out.journal"
    summary = await export_in_thread(api, observer, output)
    assert observer.entry_counts == [1, 2, 1, 2, 3]
    assert (summary.entry_count, summary.byte_count) == (3, 15)
    assert output.read_bytes() == b"part\n" * 3
    [notice] = observer.notices
    assert "the service does not answer (UNAVAILABLE" in notice
    assert "trying again" in notice


async def test_a_service_that_stays_away_leaves_no_file(api: ApiUnderTest, tmp_path: Path) -> None:
    api.ledger.failure = DatabaseUnavailable()
    observer = Remembered(api, mends=False)
    output = tmp_path / "out.journal"
    output.write_text("old")
    export = export_in_thread(api, observer, output, first_pause_seconds=0.01, patience_seconds=0.2)
    with pytest.raises(CallFailed, match="does not answer"):
        await export
    assert len(observer.notices) > 1
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api", "out.journal"]


async def test_a_failure_that_does_not_pass_is_not_tried_again(
    api: ApiUnderTest, tmp_path: Path
) -> None:
    api.ledger.failure = ValueError()
    observer = Remembered(api)
    with pytest.raises(CallFailed, match=r"ExportLedger failed \(INTERNAL"):
        await export_in_thread(api, observer, tmp_path / "out.journal")
    assert observer.notices == []
    assert [path.name for path in tmp_path.iterdir()] == ["api"]


async def test_ctrl_c_leaves_no_file(api: ApiUnderTest, tmp_path: Path) -> None:
    api.ledger.waits = True
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing.cli", "ledger", "export", "--tenant", "acme"),
        *("--address", api.server.address, "--output", str(tmp_path / "out.journal")),
        env={**os.environ, "BILLING_TOKEN": KEY.token()},
        stderr=asyncio.subprocess.PIPE,
    )
    await asyncio.wait_for(api.ledger.began.wait(), timeout=60)
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr.decode()) == (1, "stopped: nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["api"]
    await asyncio.wait_for(api.ledger.was_cancelled.wait(), timeout=30)
