"""What the command line says of an export, parsed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing.caller.errors import OptionsInvalid
from billing.caller.moments import moment_of
from billing.exporter.options import ExportFormat, ExportOptions, format_of

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, ExportFormat.HLEDGER),
        ("march.journal", ExportFormat.HLEDGER),
        ("march", ExportFormat.HLEDGER),
        ("march.CSV", ExportFormat.CSV),
        ("march.jsonl", ExportFormat.JSONL),
        ("march.ndjson", ExportFormat.JSONL),
    ],
)
def test_the_name_tells_the_format_unless_it_is_chosen(
    output: str | None, expected: ExportFormat
) -> None:
    path = Path(output) if output else None
    assert format_of(path, None) is expected
    assert format_of(path, ExportFormat.CSV) is ExportFormat.CSV


def test_a_date_is_its_beginning_in_utc() -> None:
    assert moment_of("--from", "2026-03-01") == MARCH
    assert moment_of("--from", None) is None


@pytest.mark.parametrize("text", ["2026-03-01T00:00:00Z", "2026-03-01T01:00+01:00", "20260301T00Z"])
def test_a_time_says_its_zone(text: str) -> None:
    assert moment_of("--from", text) == MARCH


@pytest.mark.parametrize("text", ["2026-03-01T00:00:00", "2026-02-30", "yesterday", "", "1"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(OptionsInvalid, match="--until"):
        moment_of("--until", text)


def test_an_export_ends_after_it_starts() -> None:
    ExportOptions(tenant_id="acme", posted_from=MARCH, posted_until=MARCH)
    with pytest.raises(OptionsInvalid, match=r"--from 2026-04-01.* after --until 2026-03-01"):
        ExportOptions(tenant_id="acme", posted_from=APRIL, posted_until=MARCH)


def test_a_journal_has_nothing_pending() -> None:
    ExportOptions(tenant_id="acme", include_pending=True, format=ExportFormat.CSV)
    with pytest.raises(OptionsInvalid, match="--include-pending"):
        ExportOptions(tenant_id="acme", include_pending=True)
