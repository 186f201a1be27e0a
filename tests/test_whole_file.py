"""A file is written whole or not at all, and nothing is left beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtp_cli.engine.depth.remembered import Remembered
from mtp_cli.errors import MtpError
from mtp_cli.whole_file import check_place, write_whole
from tests.full_disk import no_room


@pytest.mark.parametrize("is_durable", [False, True])
def test_where_there_is_no_room_the_old_file_stays_and_nothing_else(
    tmp_path: Path, is_durable: bool
) -> None:
    path = tmp_path / "x"
    write_whole(path, "old", is_durable=is_durable)
    with no_room(), pytest.raises(OSError, match="too large"):
        write_whole(path, "new" * 10_000, is_durable=is_durable)
    assert (path.read_text(), [*tmp_path.iterdir()]) == ("old", [path])


def test_a_cache_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = Remembered[str]("x.json", 9, str, lambda found: found)
    with no_room():
        cache.put(["a"], "A" * 10_000)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    cache.put(["a"], "A")
    assert cache.get(["a"]) == "A"


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("years of work")
    (tmp_path / "nowhere-yet").symlink_to("gone")
    for name in ("old", "new", "nowhere-yet"):
        check_place(tmp_path / name)
    assert old.read_text() == "years of work"
    assert sorted(os.listdir(tmp_path)) == ["nowhere-yet", "old"]


def test_a_place_that_cannot_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path, line in (
        (tmp_path, f"{tmp_path}: is a folder; name another file"),
        (tmp_path / "nowhere" / "x", f"{tmp_path}/nowhere: no such folder; name another file"),
        (tmp_path / "file" / "x", f"{tmp_path}/file: no such folder; name another file"),
        (tmp_path / "pipe", f"{tmp_path}/pipe: not a regular file; name another"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long; name another file"),
    ):
        with pytest.raises(MtpError) as caught:
            check_place(path)
        assert str(caught.value).endswith(line)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_whatever_its_permissions_say() -> None:
    with pytest.raises(MtpError, match=r"^/proc/x: cannot be written: .*; name another file$"):
        check_place(Path("/proc/x"))
