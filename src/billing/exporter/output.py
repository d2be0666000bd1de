"""Where an export goes: it appears there as a whole, or not at all."""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from billing.caller.errors import CallerFailed, OptionsInvalid


class OutputUnwritable(CallerFailed):
    """The disk is full, or nobody reads standard output any more."""


@contextmanager
def whole_output(path: Path | None) -> Iterator[BinaryIO]:
    """Lend a file to write to; what is in it at the end becomes the output.

    A path's file is replaced then, in one step; None is standard output. After an error nothing is
    left behind. Raises OptionsInvalid if the path cannot be written, and OutputUnwritable.
    """
    if path is None:
        with _unwritable("standard output"), tempfile.TemporaryFile() as temporary:
            yield temporary
            _print(temporary)
        return
    target = _writable_target(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        stream: BinaryIO = part.open("xb")
    except OSError as error:
        raise OptionsInvalid(f"--output {path}: {error.strerror}") from error
    try:
        with _unwritable(str(path)):
            with stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _writable_target(path: Path) -> Path:
    """Return the file behind a symbolic link; a device or a pipe must not be replaced by a file."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OptionsInvalid(f"--output {path} is no regular file: leave it out, and redirect")
    return target


def _print(stream: BinaryIO) -> None:
    stream.seek(0)
    shutil.copyfileobj(stream, sys.stdout.buffer)
    sys.stdout.buffer.flush()


@contextmanager
def _unwritable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnwritable(f"{name} cannot be written: {error.strerror}") from error
