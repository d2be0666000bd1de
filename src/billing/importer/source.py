"""The input, line by line, in constant memory: CSV or JSON lines, plain or gzip, file or pipe."""

import csv
import gzip
import io
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, Protocol, cast

from billing.importer.errors import LineRejected, SourceUnreadable
from billing.importer.options import STANDARD_INPUT, FileFormat

MAX_LINE_CHARACTERS: Final = 1024 * 1024
"""A longer line is rejected, and is never held in memory as a whole."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_SHOWN_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One record; ``number`` is its first line, ``fields`` is None if it cannot be read."""

    number: int
    fields: Mapping[str, Any] | None
    rejection: LineRejected | None = None
    text: str = ""


class Lines:
    """The input's physical lines; remembers what is wrong with those of the current record."""

    def __init__(self, text: io.TextIOWrapper, name: str) -> None:
        self._text = text
        self._name = name
        self._digest = blake2b(digest_size=16)
        self.number = 0
        self.first_text = ""
        self._first_number = 1
        self._problem: LineRejected | None = None

    def begin_record(self) -> int:
        """Forget the record before, and return the number of the line that comes next."""
        self.first_text = ""
        self._problem = None
        self._first_number = self.number + 1
        return self._first_number

    def problem(self) -> LineRejected | None:
        """Return what rules out the lines of the current record, whatever they contain."""
        return self._problem

    def digest(self) -> str:
        """Return the digest of all lines so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._read()
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_LINE_CHARACTERS and line[-1] not in "\r\n":
            self._skip_rest()
        try:
            encoded = line.encode()
        except UnicodeEncodeError as error:
            encoded = line.encode(errors="surrogateescape")
            self._problem = LineRejected(
                "ENCODING_INVALID",
                f"line {self.number} is no UTF-8 at character {error.start + 1}",
            )
        self._digest.update(encoded)
        if not self.first_text:
            self.first_text = line
        return line

    def _read(self) -> str:
        try:
            return self._text.readline(MAX_LINE_CHARACTERS)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceUnreadable(
                f"{self._name} cannot be read after line {self.number}: {error}"
            ) from error

    def _skip_rest(self) -> None:
        """Read past a line that is too long, without keeping it."""
        self._problem = LineRejected(
            "LINE_TOO_LONG",
            f"line {self.number} has more than {MAX_LINE_CHARACTERS:,} characters",
        )
        rest = "more"
        while rest and rest[-1] not in "\r\n":
            rest = self._read()
            self._digest.update(rest.encode(errors="surrogateescape"))


class _Records(Protocol):
    @property
    def columns(self) -> Sequence[str] | None: ...

    def __iter__(self) -> Iterator[SourceLine]: ...


class _CsvRecords:
    """Rows by the header's names."""

    def __init__(self, lines: Lines, name: str, delimiter: str) -> None:
        self._lines = lines
        self._rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        lines.begin_record()
        try:
            while not header:
                header = next(self._rows)
        except StopIteration:
            raise SourceUnreadable(f"{name} is empty: a CSV file begins with its header") from None
        except csv.Error as error:
            raise SourceUnreadable(f"{name}: the header cannot be read: {error}") from error
        problem = lines.problem()
        if problem is not None:
            raise SourceUnreadable(f"{name}: the header cannot be read: {problem.message}")
        self.columns: Sequence[str] = [column.strip() for column in header]

    def __iter__(self) -> Iterator[SourceLine]:
        lines, rows, columns = self._lines, self._rows, self.columns
        while True:
            number = lines.begin_record()
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                problem = lines.problem() or _csv_problem(number, lines.number, error)
                yield _unreadable(number, problem, lines)
                continue
            if lines.problem() is not None:
                yield _unreadable(number, lines.problem(), lines)
            elif len(values) == len(columns):
                yield SourceLine(number, dict(zip(columns, values, strict=True)))
            elif values:  # a blank line is no row
                message = f"it has {len(values)} columns, the header has {len(columns)}"
                yield _unreadable(number, LineRejected("COLUMN_COUNT_WRONG", message), lines)


class _JsonRecords:
    """One JSON object a line. Numbers stay the text that they are, so that none is rounded."""

    columns = None

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._decode = json.JSONDecoder(
            parse_float=str, parse_int=str, parse_constant=_refuse_constant
        ).decode

    def __iter__(self) -> Iterator[SourceLine]:
        lines = self._lines
        while True:
            number = lines.begin_record()
            text = next(lines, None)
            if text is None:
                return
            if lines.problem() is not None:
                yield _unreadable(number, lines.problem(), lines)
            elif not text.isspace():
                yield self._record(number, text)

    def _record(self, number: int, text: str) -> SourceLine:
        try:
            fields = self._decode(text)
        except (ValueError, RecursionError) as error:
            return _unreadable(number, LineRejected("JSON_INVALID", str(error)), self._lines)
        if not isinstance(fields, dict):
            problem = LineRejected("JSON_INVALID", "it is no JSON object")
            return _unreadable(number, problem, self._lines)
        return SourceLine(number, fields)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _csv_problem(first: int, last: int, error: csv.Error) -> LineRejected:
    where = f"line {first}" if first == last else f"lines {first} to {last}"
    return LineRejected("CSV_INVALID", f"{where}: {error}")


def _unreadable(number: int, problem: LineRejected | None, lines: Lines) -> SourceLine:
    shown = lines.first_text[:_SHOWN_CHARACTERS].rstrip("\r\n")
    text = shown.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return SourceLine(number, None, problem, text)


class Source:
    """An open input. ``bytes_total`` is None where the size is unknown."""

    def __init__(
        self, raw: BinaryIO, lines: Lines, records: _Records, bytes_total: int | None
    ) -> None:
        self._raw = raw
        self._lines = lines
        self._records = iter(records)
        self.columns = records.columns
        self.bytes_total = bytes_total

    @property
    def line_number(self) -> int:
        """The last line that was read."""
        return self._lines.number

    def digest(self) -> str:
        """Return the digest of all lines read."""
        return self._lines.digest()

    def bytes_read(self) -> int:
        """Return how far the file is read (of a compressed one: compressed bytes)."""
        return 0 if self.bytes_total is None else self._raw.tell()

    def read(self) -> SourceLine | None:
        """Return the next record, None at the end; raises SourceUnreadable."""
        return next(self._records, None)


@contextmanager
def open_source(file: str, *, file_format: FileFormat, delimiter: str) -> Iterator[Source]:
    """Open a path, or ``-`` for standard input; raises SourceUnreadable."""
    name = "standard input" if file == STANDARD_INPUT else file
    with _open_bytes(file, name) as raw:
        head = raw.peek(2)[:2]
        if head in _UTF16_MARKS:
            raise SourceUnreadable(f"{name} is UTF-16: convert it to UTF-8 first")
        compressed = file.lower().endswith(".gz") or head == _GZIP_MAGIC
        plain = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if compressed else raw
        text = io.TextIOWrapper(
            cast("io.BufferedReader", plain),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",  # \n, \r\n and \r all end a line, and stay as they are
        )
        try:
            lines = Lines(text, name)
            records: _Records
            if file_format is FileFormat.CSV:
                records = _CsvRecords(lines, name, delimiter)
            else:
                records = _JsonRecords(lines)
            yield Source(raw, lines, records, _size_bytes(raw))
        finally:
            text.detach()  # standard input stays open


def _open_bytes(file: str, name: str) -> AbstractContextManager[io.BufferedReader]:
    if file == STANDARD_INPUT:
        return nullcontext(cast("io.BufferedReader", sys.stdin.buffer))
    try:
        return Path(file).open("rb")
    except IsADirectoryError:
        raise SourceUnreadable(f"{name} is a directory") from None
    except OSError as error:
        raise SourceUnreadable(f"{name} cannot be opened: {error.strerror}") from error


def _size_bytes(raw: BinaryIO) -> int | None:
    try:
        status = os.fstat(raw.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
