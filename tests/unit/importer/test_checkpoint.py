"""The checkpoint: kept as a whole, and refused where it belongs to something else."""

from collections import Counter
from pathlib import Path

import pytest

from billing.caller.errors import OptionsInvalid
from billing.importer.checkpoint import Checkpoint, CheckpointFile, ImportCounts, identity_of
from billing.importer.errors import CheckpointMismatched
from tests.factories.usage_import import OTHER_SUBSCRIPTION, import_options, trace_mapping

COUNTS = ImportCounts(lines=5, sent=10, accepted=8, conflict=1, rejected=Counter({"A": 1}))
CHECKPOINT = Checkpoint("me", 6, "abc", 120, COUNTS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.csv.checkpoint"


def test_what_is_saved_is_loaded(path: Path) -> None:
    CheckpointFile(path, "me").save(CHECKPOINT)
    assert CheckpointFile(path, "me").load() == CHECKPOINT
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    CheckpointFile(path, "me").remove()
    assert CheckpointFile(path, "me").load() is None


def test_without_a_path_nothing_is_kept() -> None:
    file = CheckpointFile(None, "me")
    file.save(CHECKPOINT)
    file.remove()
    assert file.load() is None
    assert not file.is_kept


def test_a_checkpoint_of_another_import_is_refused(path: Path) -> None:
    CheckpointFile(path, "me").save(CHECKPOINT)
    with pytest.raises(CheckpointMismatched, match="other options, or into another tenant"):
        CheckpointFile(path, "you").load()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"version": 9}', '{"version": 1}', "\xff"]
)
def test_what_is_no_checkpoint_is_refused(path: Path, text: str) -> None:
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointMismatched, match=str(path)):
        CheckpointFile(path, "me").load()


def test_acknowledged_lines_must_not_have_changed(path: Path) -> None:
    file = CheckpointFile(path, "me")
    file.require_same_lines(CHECKPOINT, end_line=6, digest="abc")
    for end_line, digest in ((6, "abd"), (5, "abc"), (7, "abc")):
        with pytest.raises(CheckpointMismatched, match="first 6 lines has changed"):
            file.require_same_lines(CHECKPOINT, end_line=end_line, digest=digest)


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionsInvalid, match="--no-checkpoint"):
        CheckpointFile(tmp_path / "none" / "c", "me").save(CHECKPOINT)


def test_the_identity_is_that_of_options_tenant_and_meters() -> None:
    options = import_options(Path("a.csv"))
    identity = identity_of(options, ["meter_1"])
    moved = import_options(Path("b.csv"), batch_size=77, concurrency=1)
    assert identity_of(moved, ["meter_1"]) == identity
    assert identity_of(options, ["meter_2"]) != identity
    others = [
        import_options(Path("a.csv"), tenant_id="other"),
        import_options(Path("a.csv"), delimiter=";"),
        import_options(Path("a.csv"), mapping=trace_mapping(OTHER_SUBSCRIPTION)),
        import_options(Path("a.csv"), mapping=trace_mapping(time_zone="Europe/Berlin")),
        import_options(Path("a.csv"), mapping=trace_mapping(properties=(("a", "b"),))),
    ]
    assert identity not in [identity_of(other, ["meter_1"]) for other in others]
