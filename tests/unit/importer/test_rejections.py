"""The report of rejections: complete, and right after a resume."""

import json
from pathlib import Path

import pytest

from billing.caller.errors import OptionsInvalid
from billing.importer.rejections import SHOWN, RejectionReport
from billing.importer.source import SourceLine
from billing.importer.windows import Rejection


def rejection(number: int) -> Rejection:
    return Rejection(SourceLine(number, {"a": "ü"}), "rejected", "TIME_INVALID", "it is no time")


def lines_of(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.csv.rejected.jsonl"


def test_an_entry_has_line_reason_message_and_fields(path: Path) -> None:
    conflict = Rejection(
        SourceLine(8, {"a": "1"}), "conflict", "KEY_REUSED", "differs", "tokens", "k-1", "usage_1"
    )
    unreadable = Rejection(SourceLine(9, None, None, "x,y"), "rejected", "CSV_INVALID", "bad")
    with RejectionReport(path, always=False, keep_bytes=None) as report:
        report.add([rejection(7), conflict, unreadable])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "line": 7,
            "outcome": "rejected",
            "reason": "TIME_INVALID",
            "message": "it is no time",
            "fields": {"a": "ü"},
        },
        {
            "line": 8,
            "outcome": "conflict",
            "reason": "KEY_REUSED",
            "message": "differs",
            "usage_meter": "tokens",
            "idempotency_key": "k-1",
            "usage_event_id": "usage_1",
            "fields": {"a": "1"},
        },
        {
            "line": 9,
            "outcome": "rejected",
            "reason": "CSV_INVALID",
            "message": "bad",
            "text": "x,y",
        },
    ]


def test_there_is_no_file_without_rejections_unless_it_was_asked_for(path: Path) -> None:
    with RejectionReport(path, always=False, keep_bytes=None) as report:
        assert report.add([]) == 0
    assert not path.exists()
    with RejectionReport(path, always=True, keep_bytes=None) as report:
        assert report.add([]) == 0
    assert path.read_text() == ""


def test_an_import_from_the_beginning_forgets_the_report_before(path: Path) -> None:
    path.write_text("old\n")
    with RejectionReport(path, always=False, keep_bytes=None):
        assert not path.exists()


def test_a_resumed_import_keeps_what_the_checkpoint_covers(path: Path) -> None:
    with RejectionReport(path, always=False, keep_bytes=None) as report:
        kept_bytes = report.add([rejection(2), rejection(3)])
        report.add([rejection(4)])
    with RejectionReport(path, always=False, keep_bytes=kept_bytes) as report:
        assert report.add([]) == kept_bytes
        report.add([rejection(4), rejection(5)])
    assert lines_of(path) == [2, 3, 4, 5]


def test_a_resumed_import_without_rejections_so_far_begins_the_report(path: Path) -> None:
    path.write_text("of a window that was never acknowledged\n")
    with RejectionReport(path, always=False, keep_bytes=0) as report:
        report.add([rejection(4)])
    assert lines_of(path) == [4]


def test_a_report_that_was_removed_meanwhile_goes_on(path: Path) -> None:
    with RejectionReport(path, always=False, keep_bytes=500) as report:
        report.add([rejection(4)])
    assert lines_of(path) == [4]


def test_the_first_ones_are_remembered_without_a_file_too() -> None:
    with RejectionReport(None, always=False, keep_bytes=None) as report:
        assert report.add(rejection(number) for number in range(20)) == 0
    assert [r.line.number for r in report.first] == list(range(SHOWN))


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none" / "report"
    with pytest.raises(OptionsInvalid, match="--rejected"):
        RejectionReport(path, always=True, keep_bytes=None)
    with (
        RejectionReport(path, always=False, keep_bytes=None) as report,
        pytest.raises(OptionsInvalid, match="--rejected"),
    ):
        report.add([rejection(1)])
