"""The report of what was not taken: one JSON object a line or event, with its reason."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from billing.caller.errors import OptionsInvalid
from billing.importer.windows import Rejection

SHOWN: Final = 5


class RejectionReport:
    """Writes rejections to a file, made when there is the first; without a path nowhere."""

    def __init__(self, path: Path | None, *, always: bool, keep_bytes: int | None) -> None:
        """``keep_bytes`` of an earlier part of the import stay; None: the report begins anew.

        Raises OptionsInvalid if the file cannot be written.
        """
        self.path = path
        self.first: list[Rejection] = []
        self._stream: BinaryIO | None = None
        if path is None:
            return
        try:
            if keep_bytes is None:
                path.unlink(missing_ok=True)
            if always or keep_bytes:
                self._open(path, keep_bytes or 0)
        except OSError as error:
            raise _unwritable(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, rejections: Iterable[Rejection]) -> int:
        """Write rejections to the disk, and return the size of the report in bytes.

        Raises OptionsInvalid.
        """
        written = False
        try:
            for rejection in rejections:
                if len(self.first) < SHOWN:
                    self.first.append(rejection)
                if self.path is None:
                    continue
                if self._stream is None:
                    self._open(self.path, 0)
                assert self._stream is not None, "it was opened just now"
                self._stream.write(f"{_entry(rejection)}\n".encode())
                written = True
            if self._stream is None:
                return 0
            if written:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            return self._stream.tell()
        except OSError as error:
            assert self.path is not None, "without a path nothing is written"
            raise _unwritable(self.path, error) from error

    def _open(self, path: Path, keep_bytes: int) -> None:
        """Open the file after its first bytes; what was reported after the checkpoint goes."""
        self._stream = path.open("ab")
        self._stream.truncate(min(keep_bytes, self._stream.tell()))
        self._stream.seek(0, os.SEEK_END)


def _unwritable(path: Path, error: OSError) -> OptionsInvalid:
    return OptionsInvalid(
        f"the report of rejected lines {path} cannot be written ({error.strerror}): choose "
        "another with --rejected"
    )


def _entry(rejection: Rejection) -> str:
    entry = {
        "line": rejection.line.number,
        "outcome": rejection.outcome,
        "reason": rejection.reason,
        "message": rejection.message,
        "usage_meter": rejection.meter_code,
        "idempotency_key": rejection.idempotency_key,
        "usage_event_id": rejection.usage_event_id,
        "fields": rejection.line.fields,
        "text": rejection.line.text,
    }
    # What does not apply is left out.
    return json.dumps({name: value for name, value in entry.items() if value not in ("", None)})
