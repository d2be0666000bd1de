"""Reading the input: forms, sizes, and everything that can be wrong with a file."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from billing.importer.errors import SourceUnreadable
from billing.importer.options import FileFormat
from billing.importer.source import MAX_LINE_CHARACTERS, SourceLine, open_source


def read_all(
    file: Path | str, form: FileFormat = FileFormat.CSV, delimiter: str = ","
) -> list[SourceLine]:
    lines = []
    with open_source(str(file), file_format=form, delimiter=delimiter) as source:
        while (line := source.read()) is not None:
            lines.append(line)
    return lines


def fields_of(lines: list[SourceLine]) -> list[object]:
    return [line.fields for line in lines]


def reasons_of(lines: list[SourceLine]) -> list[tuple[int, str]]:
    return [(line.number, line.rejection.reason) for line in lines if line.rejection]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usage.csv"


def test_csv_rows_are_read_by_the_names_of_the_header(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbfid, tokens \n1,2\n\n"a,""b""",3\n')
    assert read_all(file) == [
        SourceLine(2, {"id": "1", "tokens": "2"}),
        SourceLine(4, {"id": 'a,"b"', "tokens": "3"}),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_is_one(file: Path, end: bytes) -> None:
    file.write_bytes(b"a,b" + end + b"1,2" + end + b"3,4")
    assert [line.number for line in read_all(file)] == [2, 3]


def test_line_ends_may_be_mixed(file: Path) -> None:
    file.write_bytes(b"a,b\r\n1,2\n3,4\r5,6\r\n")
    assert fields_of(read_all(file)) == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
        {"a": "5", "b": "6"},
    ]


def test_a_quoted_line_end_belongs_to_its_column(file: Path) -> None:
    file.write_text('a,b\n"1\n2",3\n4,5\n')
    lines = read_all(file)
    assert lines[0].fields == {"a": "1\n2", "b": "3"}
    assert lines[1].number == 4


def test_another_delimiter(file: Path) -> None:
    file.write_text("a\tb\n1\t2\n")
    assert fields_of(read_all(file, delimiter="\t")) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("name", ["usage.csv.gz", "usage.csv"])
def test_gzip_is_known_by_its_name_or_its_content(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert fields_of(read_all(file)) == [{"a": "1", "b": "2"}]


def test_standard_input_is_read_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a\n1\n")))
    monkeypatch.setattr(sys, "stdin", stream)
    assert fields_of(read_all("-")) == [{"a": "1"}]
    assert not stream.buffer.closed


def test_json_numbers_are_kept_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text(
        '{"q": 0.10000000000000000001, "n": 12345678901234567890, "s": "x"}\n\n{"q": 1}'
    )
    lines = read_all(file, FileFormat.JSONL)
    assert lines[0].fields == {
        "q": "0.10000000000000000001",
        "n": "12345678901234567890",
        "s": "x",
    }
    assert lines[1].number == 3


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"a": NaN}', "x", '"a"', "[" * 100_000, '{"a": 1} {"a": 2}']
)
def test_a_line_that_is_no_json_object_is_rejected_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text(f'{{"a": 1}}\n{text}\n{{"a": 2}}\n')
    lines = read_all(file, FileFormat.JSONL)
    assert reasons_of(lines) == [(2, "JSON_INVALID")]
    assert lines[1].text == text[:1000]
    assert lines[2].fields == {"a": "2"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "COLUMN_COUNT_WRONG"),
        (b"1,2,3", "COLUMN_COUNT_WRONG"),
        (b'"1"2,3', "CSV_INVALID"),
        (b"1,\xff", "ENCODING_INVALID"),
        (b"1," + b"x" * 200_000, "CSV_INVALID"),
        (b"1," + b"x," * MAX_LINE_CHARACTERS, "LINE_TOO_LONG"),
    ],
)
def test_a_broken_row_is_rejected_alone(file: Path, row: bytes, reason: str) -> None:
    file.write_bytes(b"a,b\n1,2\n" + row + b"\n3,4\n")
    lines = read_all(file)
    assert reasons_of(lines) == [(3, reason)]
    assert lines[2] == SourceLine(4, {"a": "3", "b": "4"})


def test_a_rejection_shows_the_line_even_if_it_is_no_utf8(file: Path) -> None:
    file.write_bytes(b"a,b\n1,\xfcber\n")
    [line] = read_all(file)
    assert line.text == "1,\\xfcber"
    assert line.rejection is not None
    assert "line 2 is no UTF-8 at character 3" in line.rejection.message
    json.dumps(line.text).encode()


def test_a_quote_without_end_names_the_lines_that_it_takes(file: Path) -> None:
    file.write_text('a,b\n1,"2\n3,4\n5,6\n')
    [line] = read_all(file)
    assert line.rejection is not None
    assert line.rejection.message.startswith("lines 2 to 4: ")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_csv_has_no_header(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SourceUnreadable, match="is empty"):
        read_all(file)


def test_empty_json_lines_are_no_lines(file: Path) -> None:
    file.write_bytes(b"")
    assert read_all(file, FileFormat.JSONL) == []


def test_a_broken_header_stops_the_import(file: Path) -> None:
    file.write_bytes(b"a,\xff\n1,2\n")
    with pytest.raises(SourceUnreadable, match="line 1 is no UTF-8"):
        read_all(file)
    file.write_bytes(b'"a"b,c\n1,2\n')
    with pytest.raises(SourceUnreadable, match="header"):
        read_all(file)


def test_utf16_is_named(file: Path) -> None:
    file.write_text("a,b\n1,2\n", encoding="utf-16")
    with pytest.raises(SourceUnreadable, match="UTF-16"):
        read_all(file)


def test_a_directory_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="is a directory"):
        read_all(tmp_path)
    with pytest.raises(SourceUnreadable, match="No such file"):
        read_all(tmp_path / "none.csv")


def test_a_gzip_file_that_ends_too_early_tells_the_last_line(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv.gz"
    whole = gzip.compress(
        b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 10007) for n in range(9_999))
    )
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnreadable, match=r"cannot be read after line \d\d+: Compressed file"):
        read_all(file)


def test_the_digest_tells_every_change_of_the_lines_read(file: Path) -> None:
    def digest_after_first_row(content: bytes) -> str:
        file.write_bytes(content)
        with open_source(str(file), file_format=FileFormat.CSV, delimiter=",") as source:
            source.read()
            assert source.line_number == 2
            return source.digest()

    first = digest_after_first_row(b"a,b\n1,2\n3,4\n")
    assert digest_after_first_row(b"a,b\n1,2\n9,9\n") == first  # not read yet
    assert digest_after_first_row(b"a,b\n1,3\n3,4\n") != first
    assert digest_after_first_row(b"a,b\r\n1,2\n3,4\n") != first


def test_progress_is_known_for_a_file_and_not_for_a_pipe(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("a,b\n1,2\n")
    with open_source(str(file), file_format=FileFormat.CSV, delimiter=",") as source:
        assert source.bytes_total == file.stat().st_size
        assert source.bytes_read() == source.bytes_total
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a\n1\n")))
    monkeypatch.setattr(sys, "stdin", stream)
    with open_source("-", file_format=FileFormat.CSV, delimiter=",") as source:
        assert source.bytes_total is None
        assert source.bytes_read() == 0
