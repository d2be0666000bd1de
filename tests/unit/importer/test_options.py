"""What the command line says, parsed."""

from pathlib import Path

import pytest

from billing.caller.errors import OptionsInvalid
from billing.importer.options import (
    FileFormat,
    MappingOptions,
    delimiter_of,
    format_of,
    pairs_of,
    require_columns,
)
from tests.factories.usage_import import import_options, trace_mapping


def test_pairs_split_at_the_first_equals_sign() -> None:
    assert pairs_of("--meter", ["a=b", "c=d=e"]) == (("a", "b"), ("c", "d=e"))


@pytest.mark.parametrize("texts", [["a"], ["=b"], ["a="], ["a=b", "a=c"]])
def test_what_is_no_pair_is_refused(texts: list[str]) -> None:
    with pytest.raises(OptionsInvalid, match="--meter"):
        pairs_of("--meter", texts)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("usage.csv", FileFormat.CSV),
        ("usage.jsonl", FileFormat.JSONL),
        ("usage.NDJSON.gz", FileFormat.JSONL),
        ("usage", FileFormat.CSV),
        ("-", FileFormat.CSV),
    ],
)
def test_the_name_tells_the_format(file: str, expected: FileFormat) -> None:
    assert format_of(file, None) is expected
    assert format_of(file, FileFormat.JSONL) is FileFormat.JSONL


def test_delimiters() -> None:
    assert [delimiter_of(text) for text in (";", "tab", "\\t", "\t")] == [";", "\t", "\t", "\t"]
    for text in ("", ",,", '"', "\n"):
        with pytest.raises(OptionsInvalid, match="--delimiter"):
            delimiter_of(text)


def test_a_field_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionsInvalid, match="did you mean 'event_timestamp'"):
        MappingOptions(columns={"event_timestmp": "T"})


def test_contradictions_are_refused() -> None:
    with pytest.raises(OptionsInvalid, match="says what --meter says"):
        trace_mapping(columns={"quantity": "ContextTokens"})
    with pytest.raises(OptionsInvalid, match="no id of the form sub_"):
        trace_mapping(constants={"subscription_id": "acme"})
    with pytest.raises(OptionsInvalid, match="up to 50"):
        trace_mapping(properties=tuple((str(n), "c") for n in range(51)))
    with pytest.raises(OptionsInvalid, match="--batch-size"):
        import_options(Path("f"), batch_size=1)


def test_needed_columns_are_those_that_are_no_constants() -> None:
    options = trace_mapping(key_column="id", properties=(("region", "Region"), ("h", "id")))
    assert options.needed_columns() == [
        "TIMESTAMP",
        "ContextTokens",
        "GeneratedTokens",
        "Region",
        "id",
    ]
    assert MappingOptions().needed_columns() == [
        "subscription_id",
        "event_timestamp",
        "usage_meter_id",
        "quantity",
    ]


def test_columns_must_be_there_once() -> None:
    require_columns(["a"], ["a", "b"])
    with pytest.raises(
        OptionsInvalid, match="no column 'ContextToken'; did you mean 'ContextTokens'"
    ):
        require_columns(["ContextToken"], ["ContextTokens", "b"])
    with pytest.raises(OptionsInvalid, match="more than once"):
        require_columns(["a"], ["a", "a"])
