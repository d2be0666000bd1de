"""An import that was stopped goes on: same keys, complete report, and never with another file."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.importer.errors import CheckpointMismatched, ImportStopped
from tests.factories.played_service import PlayedService, played_service
from tests.factories.usage_import import (
    METER_IDS,
    Interrupted,
    RememberingObserver,
    import_options,
    stop_after,
    trace_mapping,
    write_trace,
)


@pytest.fixture
def service() -> Iterator[PlayedService]:
    with played_service() as played:
        yield played


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    write_trace(path, 100)
    return path


@pytest.mark.parametrize("stopped_after", [1, 31, 61, 100])
@pytest.mark.parametrize("with_key", [False, True])
def test_an_interrupted_import_goes_on_with_the_same_keys(
    service: PlayedService, file: Path, stopped_after: int, with_key: bool
) -> None:
    mapping = trace_mapping(key_column="TIMESTAMP" if with_key else None)
    whole = import_options(file, mapping=mapping, batch_size=20, checkpoint=None)
    service.import_file(whole)
    expected = service.keys
    service.requests.clear()

    options = import_options(file, mapping=mapping, batch_size=20)
    with pytest.raises(Interrupted):
        service.import_file(options, observer=RememberingObserver(stop_after(stopped_after)))
    summary = service.import_file(options)
    assert sorted(set(service.keys)) == sorted(set(expected))
    assert summary.counts.accepted == 200
    # At most the window that was on its way came twice.
    assert len(service.events) <= 200 + 20


def test_a_checkpoint_of_other_options_or_meters_is_refused(
    service: PlayedService, file: Path
) -> None:
    options = import_options(file, batch_size=20)
    with pytest.raises(Interrupted):
        service.import_file(options, observer=RememberingObserver(stop_after(1)))
    service.requests.clear()
    with pytest.raises(CheckpointMismatched, match="other options"):
        service.import_file(import_options(file, mapping=trace_mapping(time_zone="Asia/Tokyo")))
    other_tenant = {code: meter_id[:-2] + "cc" for code, meter_id in METER_IDS.items()}
    service.meter_pages = [other_tenant]
    with pytest.raises(CheckpointMismatched, match="other options"):
        service.import_file(options)
    assert service.requests == []


@pytest.mark.parametrize("change", ["edited", "shorter", "other"])
def test_a_checkpoint_of_lines_that_changed_is_refused(
    service: PlayedService, file: Path, change: str
) -> None:
    options = import_options(file, batch_size=20)
    with pytest.raises(Interrupted):
        service.import_file(options, observer=RememberingObserver(stop_after(10)))
    service.requests.clear()
    lines = file.read_bytes().splitlines(keepends=True)
    if change == "edited":
        lines[5] = lines[4]
    elif change == "shorter":
        lines = lines[:8]
    else:
        lines = [lines[0], *reversed(lines[1:])]
    file.write_bytes(b"".join(lines))
    with pytest.raises(CheckpointMismatched, match="has changed since"):
        service.import_file(options)
    assert service.requests == []


def test_a_file_that_grew_goes_on(service: PlayedService, file: Path) -> None:
    options = import_options(file, batch_size=20)
    with pytest.raises(Interrupted):
        service.import_file(options, observer=RememberingObserver(stop_after(10)))
    with file.open("ab") as stream:
        stream.write(b"2023-11-16 20:00:00.0000000,1,2\r\n")
    assert service.import_file(options).counts.lines == 101


def test_the_report_is_complete_after_a_resume(service: PlayedService, file: Path) -> None:
    lines = file.read_text().splitlines()
    for number in (2, 12, 42, 72):
        lines[number] = "yesterday,1,2"
    file.write_text("\n".join(lines))
    options = import_options(file, batch_size=20)
    with pytest.raises(Interrupted):
        service.import_file(options, observer=RememberingObserver(stop_after(30)))
    summary = service.import_file(options)
    report = Path(f"{file}.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in report] == [3, 13, 43, 73]
    assert summary.counts.rejected["TIME_INVALID"] == 4


def test_an_input_that_breaks_keeps_what_was_on_its_way(service: PlayedService, file: Path) -> None:
    compressed = file.with_suffix(".csv.gz")
    write_trace(file, 5_000)
    content = gzip.compress(file.read_bytes())
    compressed.write_bytes(content[: len(content) * 2 // 3])
    options = import_options(compressed, batch_size=500)
    with pytest.raises(
        ImportStopped, match=r"cannot be read after line \d+: .*All up to line \d+ is"
    ):
        service.import_file(options)
    sent_before = len(service.events)
    assert sent_before > 1_000

    compressed.write_bytes(content)
    assert service.import_file(options).counts.accepted == 10_000
    assert len(service.events) == 10_000
    assert len(set(service.keys)) == 10_000
