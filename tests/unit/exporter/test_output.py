"""A file appears as a whole, or not at all."""

import os
from pathlib import Path

import pytest

from billing.caller.errors import OptionsInvalid
from billing.exporter.output import OutputUnwritable, whole_output


class Stopped(Exception):
    """What a test stops with."""


def stop_halfway(path: Path | None) -> None:
    with whole_output(path) as stream:
        stream.write(b"half")
        raise Stopped


def fill_the_disk(path: Path) -> None:
    with whole_output(path), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def test_the_file_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with whole_output(path) as stream:
        stream.write(b"all")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(Stopped):
        stop_halfway(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with whole_output(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"


def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with whole_output(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == usual.stat().st_mode


def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with whole_output(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_devices_pipes_and_directories_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/null"), pipe, tmp_path):
        with pytest.raises(OptionsInvalid, match="is no regular file"), whole_output(path):
            pytest.fail("nothing may be written")
    assert pipe.is_fifo()


def test_a_directory_that_does_not_exist_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with (
        pytest.raises(OptionsInvalid, match=r"--output .*: No such file"),
        whole_output(tmp_path / "none" / "out"),
    ):
        pytest.fail("nothing may be written")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="No space left"):
        fill_the_disk(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_gets_nothing_of_what_failed(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    with pytest.raises(Stopped):
        stop_halfway(None)
    with whole_output(None) as stream:
        stream.write(b"all")
    assert capfdbinary.readouterr().out == b"all"
