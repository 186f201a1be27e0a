"""A run's files: whole or not at all, one line where the disk refuses, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from mtp_cli.errors import MtpError
from mtp_train.files import remove_abandoned, writing, written_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "shard.npz"
    with written_whole(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == {"shard.npz"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left"), "the disk is full; make room and run the same"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written: Read-only file system"),
    ],
)
def test_an_error_is_one_line_and_leaves_what_was_there(
    error: OSError, words: str, tmp_path: Path
) -> None:
    def write(path: Path) -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise error

    def append(path: Path) -> None:
        with writing(path):
            raise error

    path = tmp_path / "checkpoint.pt"
    path.write_text("older")
    for job in (write, append):
        with pytest.raises(MtpError, match=rf"checkpoint\.pt: {words}"):
            job(path)
        assert path.read_text() == "older"
        assert names(tmp_path) == {"checkpoint.pt"}


def test_what_a_killed_run_left_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    (tmp_path / "shard-7.npz.partial").write_bytes(b"half")
    with (tmp_path / "shard-8.npz.partial").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_abandoned(tmp_path)
        assert names(tmp_path) == {"shard-8.npz.partial"}
    remove_abandoned(tmp_path)
    assert names(tmp_path) == set()
