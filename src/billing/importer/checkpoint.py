"""How far an import has come: a small file that survives the importer."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from billing.caller.errors import OptionsInvalid
from billing.importer.errors import CheckpointMismatched
from billing.importer.options import ImportOptions

_VERSION: Final = 1
_COUNT_NAMES: Final = ("lines", "sent", "accepted", "duplicate", "conflict")


@dataclass(slots=True)
class ImportCounts:
    """What became of the lines. ``rejected`` counts by reason, lines that were not sent too."""

    lines: int = 0
    sent: int = 0
    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def rejected_total(self) -> int:
        """How many lines and events were rejected, for whatever reason."""
        return self.rejected.total()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to ``end_line`` is acknowledged.

    ``digest`` is that of these lines; ``report_bytes`` the size of their report of rejections.
    """

    identity: str
    end_line: int
    digest: str
    report_bytes: int
    counts: ImportCounts


class CheckpointFile:
    """Keeps the checkpoint of one import; keeps nothing without a path."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path = path
        self.identity = identity

    @property
    def is_kept(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def load(self) -> Checkpoint | None:
        """Return the checkpoint, if there is one; raises CheckpointMismatched."""
        if self._path is None:
            return None
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointMismatched(f"{self._path} cannot be read: {error}") from error
        try:
            checkpoint = _decode(text)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointMismatched(
                f"{self._path} is no checkpoint of this version; choose another --checkpoint, or "
                "delete it to begin again (nothing is counted twice)"
            ) from error
        if checkpoint.identity != self.identity:
            raise CheckpointMismatched(
                f"{self._path} is of an import with other options, or into another tenant or mode: "
                "use the same again, choose another --checkpoint, or delete it to begin again "
                "(nothing is counted twice)"
            )
        return checkpoint

    def require_same_lines(self, checkpoint: Checkpoint, *, end_line: int, digest: str) -> None:
        """Raise CheckpointMismatched if the acknowledged lines are no longer the same."""
        if (end_line, digest) != (checkpoint.end_line, checkpoint.digest):
            raise CheckpointMismatched(
                f"{self._path} is of another file, or one of the first {checkpoint.end_line} "
                "lines has changed since: choose another --checkpoint, or delete it to begin again "
                "(nothing is counted twice)"
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint as a whole; raises OptionsInvalid."""
        if self._path is None:
            return
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("w", encoding="utf-8") as stream:
                stream.write(_encode(checkpoint))
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(self._path)
        except OSError as error:
            raise OptionsInvalid(
                f"the checkpoint {self._path} cannot be written ({error.strerror}): choose another "
                "--checkpoint, or --no-checkpoint"
            ) from error

    def remove(self) -> None:
        """Forget the import: all of it is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _encode(checkpoint: Checkpoint) -> str:
    counts = checkpoint.counts
    content = {
        "version": _VERSION,
        "identity": checkpoint.identity,
        "end_line": checkpoint.end_line,
        "digest": checkpoint.digest,
        "report_bytes": checkpoint.report_bytes,
        "counts": {name: getattr(counts, name) for name in _COUNT_NAMES},
        "rejected": dict(counts.rejected),
    }
    return json.dumps(content)


def _decode(text: str) -> Checkpoint:
    content: Any = json.loads(text)
    if not isinstance(content, dict) or content["version"] != _VERSION:
        raise ValueError("another version")
    counts = ImportCounts(rejected=Counter(content["rejected"]))
    for name in _COUNT_NAMES:
        setattr(counts, name, int(content["counts"][name]))
    return Checkpoint(
        str(content["identity"]),
        int(content["end_line"]),
        str(content["digest"]),
        int(content["report_bytes"]),
        counts,
    )


def identity_of(options: ImportOptions, meter_ids: Iterable[str]) -> str:
    """Return a digest of what must be the same for an import to go on.

    Meter ids exist in one tenant, mode and database only: so they stand for all three, and a token
    for live data never goes on with an import of test data.
    """
    mapping = asdict(options.mapping)
    content = [options.tenant_id, options.format, options.delimiter, mapping, list(meter_ids)]
    text = json.dumps(content, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()
