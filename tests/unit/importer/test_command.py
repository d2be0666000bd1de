"""``billing usage import``: options, output and exit codes."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from billing.cli import app
from billing.importer import command
from billing.importer.options import ImportOptions
from billing.v1 import usage_pb2
from tests.factories.played_service import (
    CONFLICT,
    DUPLICATE,
    REJECTED,
    PlayedService,
    Refusal,
    accept_all,
    answer_of,
    played_service,
)
from tests.factories.usage_import import SUBSCRIPTION, write_trace

TRACE_OPTIONS = [
    "--tenant=acme",
    "--map=event_timestamp=TIMESTAMP",
    f"--set=subscription_id={SUBSCRIPTION}",
    "--meter=input_tokens=ContextTokens",
    "--meter=output_tokens=GeneratedTokens",
    "--time-zone=UTC",
]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedService]:
    with played_service() as played:
        channel = played.channel
        monkeypatch.setattr(command, "open_channel", lambda address, **tls: channel)
        monkeypatch.setenv("BILLING_TOKEN", "t-1")
        yield played


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    write_trace(path, 20)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["usage", "import", *arguments])


def test_all_taken_is_0(service: PlayedService, file: Path) -> None:
    result = run(str(file), *TRACE_OPTIONS)
    assert result.exit_code == 0, result.output
    rows = dict(
        line.rsplit(maxsplit=1)
        for line in result.stdout.splitlines()
        if line.strip()[-1:].isdigit()
    )
    counts = {name.strip(): count for name, count in rows.items()}
    assert counts["lines read"] == "20"
    assert counts["events sent"] == counts["accepted"] == "40"
    assert counts["duplicate"] == counts["conflict"] == counts["rejected"] == "0"
    assert result.stderr == ""  # no terminal, no bar


def test_duplicates_are_0_too(service: PlayedService, file: Path) -> None:
    service.ingest = lambda request: answer_of(
        request, lambda event: usage_pb2.UsageEventResult(outcome=DUPLICATE)
    )
    assert run(str(file), *TRACE_OPTIONS, "--quiet").exit_code == 0


@pytest.mark.parametrize("outcome", [CONFLICT, REJECTED])
def test_conflicts_and_rejections_are_2_and_the_first_are_shown(
    service: PlayedService, file: Path, outcome: usage_pb2.UsageEventOutcome.ValueType
) -> None:
    service.ingest = lambda request: answer_of(
        request,
        lambda event: usage_pb2.UsageEventResult(
            outcome=outcome,
            reason="WHY",
            message="[so] is it",
        ),
    )
    result = run(str(file), *TRACE_OPTIONS)
    assert result.exit_code == 2
    assert "line 2 (input_tokens): WHY: [so] is it" in result.stdout
    assert result.stdout.count("WHY: ") == 5
    assert Path(f"{file}.rejected.jsonl").read_text().count("\n") == 40


def test_the_report_may_be_elsewhere(service: PlayedService, file: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert run(str(file), *TRACE_OPTIONS, "--rejected", str(report)).exit_code == 0
    assert report.read_text() == ""


def test_standard_input_leaves_nothing_beside_it(
    service: PlayedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ImportOptions] = []

    def import_usage(options: ImportOptions, *arguments: object, **more: object) -> None:
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "import_usage", import_usage)
    run("-", *TRACE_OPTIONS)
    run("-", *TRACE_OPTIONS, "--checkpoint=c", "--rejected=r")
    places = [(options.checkpoint, options.rejected) for options in seen]
    assert places == [(None, None), (Path("c"), Path("r"))]


def test_a_stopped_import_is_1_and_goes_on(service: PlayedService, file: Path) -> None:
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "billing.usage:write is missing")
    service.ingest = lambda request: refusal if len(service.requests) > 1 else accept_all(request)
    options = [*TRACE_OPTIONS, "--batch-size=10"]
    result = run(str(file), *options)
    assert result.exit_code == 1
    assert "error: the token does not allow this" in result.stderr
    assert "All up to line 6 is acknowledged" in result.stderr
    checkpoint = Path(f"{file}.checkpoint")
    assert checkpoint.exists()

    service.ingest = accept_all
    result = run(str(file), *options)
    assert result.exit_code == 0, result.output
    assert "going on after line 6" in result.stderr
    assert not checkpoint.exists()


def test_without_a_checkpoint_there_is_none(service: PlayedService, file: Path) -> None:
    refusal = Refusal(grpc.StatusCode.INTERNAL)
    service.ingest = lambda request: refusal if len(service.requests) > 1 else accept_all(request)
    result = run(str(file), *TRACE_OPTIONS, "--batch-size=10", "--no-checkpoint")
    assert result.exit_code == 1
    assert "importing again counts nothing twice" in result.stderr
    assert not Path(f"{file}.checkpoint").exists()


def test_ctrl_c_is_1(service: PlayedService, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "import_usage", interrupted)
    result = run(str(file), *TRACE_OPTIONS)
    assert result.exit_code == 1
    assert "the same command goes on" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch-size=0"],
        ["--batch-size=5001"],
        ["--concurrency=17"],
        ["--time-format=unix"],
        ["--unknown"],
        ["--map=tokens=ContextTokens"],
        ["--meter=input_tokens"],
        ["--delimiter=ab"],
        ["--time-zone=Mars"],
        ["--address=nowhere"],
        ["--token-file=/none"],
    ],
)
def test_wrong_usage_is_1_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, file: Path, arguments: list[str]
) -> None:
    monkeypatch.setenv("BILLING_TOKEN", "t-1")
    usual = [o for o in TRACE_OPTIONS if o.split("=")[0] != arguments[0].split("=")[0]]
    with played_service() as played:
        channel = played.channel
        if not arguments[0].startswith("--address"):
            monkeypatch.setattr(command, "open_channel", lambda address, **tls: channel)
        result = run(str(file), *usual, *arguments)
        assert result.exit_code == 1
        assert "rror" in result.stderr
        assert played.requests == []


def test_a_missing_tenant_is_1(file: Path) -> None:
    assert run(str(file)).exit_code == 1


def test_the_help_tells_the_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "Exit code: 0 if all events were accepted" in " ".join(result.stdout.split())
