"""``billing trace``: what it demands of the service is computed from the file alone."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from billing.sandbox.trace import TraceFacts, TraceFailed, read_facts
from tests.factories.usage_import import write_trace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_the_file_is_added_up(file: Path) -> None:
    input_tokens, output_tokens = write_trace(file, 200)
    facts = read_facts(file)
    assert facts.row_count == 200
    assert facts.units == {"input_tokens": input_tokens, "output_tokens": output_tokens}
    assert facts.month_start == datetime(2023, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "charges"),
    [
        (18_059_974, 245_896, (853, 37)),
        (1_000_000, 0, (0, 0)),
        (3, 3_333, (0, 0)),
        (1_010_000, 10_000, (1, 2)),  # 0.5 and 1.5: halves up
    ],
)
def test_units_over_the_included_cost_their_price_halves_up(
    input_tokens: int, output_tokens: int, charges: tuple[int, int]
) -> None:
    units = {"input_tokens": Decimal(input_tokens), "output_tokens": Decimal(output_tokens)}
    facts = TraceFacts(1, units, datetime(2023, 11, 1, tzinfo=UTC))
    assert tuple(facts.charges_minor.values()) == charges


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,x,1\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n",
    ],
)
def test_another_file_is_refused_with_the_row(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(TraceFailed, match="row 1: expected are the columns TIMESTAMP"):
        read_facts(file)


def test_one_month_can_be_billed(file: Path) -> None:
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    file.write_text(f"{header}2023-11-16 18:17:03,1,1\n2023-12-16 18:17:03,1,1\n")
    with pytest.raises(TraceFailed, match="2 months"):
        read_facts(file)
    file.write_text(header)
    with pytest.raises(TraceFailed, match="0 months"):
        read_facts(file)
