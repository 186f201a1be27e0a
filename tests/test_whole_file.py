"""A file is written whole or not at all, and nothing is left beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.engine.depth.remembered import Remembered
from mtp_cli.whole_file import write_whole
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
