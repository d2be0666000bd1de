"""Files that are read again when they change, such as secrets that an orchestrator renews."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")
_Version: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class WatchedFiles(Generic[T]):
    """What some files hold together. Once they cannot be used, what they held before stays."""

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[], T],
        *,
        unusable: type[Exception],
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``load`` reads the files and raises ``unusable`` where that is in vain: here at once."""
        self._paths = tuple(paths)
        self._load = load
        self._unusable = unusable
        self._look_seconds = look_seconds
        self._clock = clock
        self._looked_at = clock()
        self._version = self._version_of_files()
        self._content = load()

    def current(self) -> T:
        """Return the content, the same object until a file changes; may be called by any thread."""
        if self._clock() - self._looked_at >= self._look_seconds:
            self._looked_at = self._clock()
            self._reload_if_changed()
        return self._content

    def _reload_if_changed(self) -> None:
        version = self._version_of_files()
        if version == self._version:
            return
        self._version = version
        try:
            self._content = self._load()
        except self._unusable as error:
            _log.warning("files_not_reloaded", error=str(error))
        else:
            _log.info("files_reloaded", files=[str(path) for path in self._paths])

    def _version_of_files(self) -> _Version:
        return tuple(map(_version_of, self._paths))


def _version_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
