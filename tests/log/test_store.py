"""The log's file: what is written is read, by several programs at once, and what is wrong with it
is said."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mtp_cli.conversation.template import Message
from mtp_cli.errors import MtpError
from mtp_cli.log.schema import STEPS
from mtp_cli.log.store import About, Log

ROOT = Path(__file__).parents[2]
ABOUT = About(model="/models/tiny.gguf", name="tiny", fingerprint="abc", system="Be brief.")


def exchange(asked: str, answer: str, reasoning: str | None = None) -> list[Message]:
    answered = Message(role="assistant", content=answer)
    if reasoning is not None:
        answered["reasoning"] = reasoning
    return [Message(role="user", content=asked), answered]


RAIN = exchange("What is rain?", "Water that falls.", "Clouds…")
SNOW = exchange("And snow?", "Frozen water.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "conversations.db"


def test_a_conversation_is_read_as_it_was_written(file: Path) -> None:
    with Log(file) as log:
        place = log.write(None, ABOUT, [*RAIN, SNOW[0]], 0, b"ids")
    with Log(file) as log:
        kept = log.read(place.id)
    assert kept is not None
    assert (kept.place, kept.about, kept.exact) == (place, ABOUT, b"ids")
    assert list(kept.conversation.messages) == RAIN
    assert (kept.conversation.system, kept.unanswered) == ("Be brief.", "And snow?")


def test_a_write_replaces_what_is_not_the_same(file: Path) -> None:
    with Log(file) as log:
        place = log.write(None, ABOUT, [*RAIN, *SNOW], 0, None)
        other = exchange("And hail?", "Ice.")
        place = log.write(place, ABOUT, [*RAIN, *other], 1, None)
        kept = log.read(place.id)
        assert kept is not None
        assert list(kept.conversation.messages) == [*RAIN, *other]
        assert log.search(["frozen"], 9) == []
        [found] = log.search(["ice"], 9)
        assert (found.id, found.n) == (place.id, 2)


def test_no_one_else_may_read_it(file: Path) -> None:
    before = os.umask(0)
    try:
        with Log(file) as log:
            log.write(None, ABOUT, RAIN, 0, None)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert "conversations.db-wal" in modes
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_newest_is_the_one_written_last_of_a_model(file: Path) -> None:
    with Log(file) as log:
        assert log.newest() is None
        first = log.write(None, ABOUT, RAIN, 0, None)
        other = About(model="/other.gguf", name="other", fingerprint="def")
        second = log.write(None, other, SNOW, 0, None)
        assert (log.newest(), log.newest("abc"), log.newest("ghi")) == (second.id, first.id, None)
        log.write(first, ABOUT, [*RAIN, *SNOW], 1, None)
        assert log.newest() == first.id
        listed = [(e.id, e.model, e.n, e.asked) for e in log.entries(9)]
        assert listed == [
            (first.id, "tiny", 2, "What is rain?"),
            (second.id, "other", 1, "And snow?"),
        ]


def test_search_wants_all_words_literally(file: Path) -> None:
    with Log(file) as log:
        log.write(None, ABOUT, [*RAIN, *SNOW], 0, None)
        assert [e.n for e in log.search(["water"], 9)] in ([1, 2], [2, 1])
        assert [e.n for e in log.search(["water", "rain"], 9)] == [1]
        assert [e.n for e in log.search(["froz*"], 9)] == [2]
        assert log.search(["froz"], 9) == []
        for odd in ('"', "OR", "(", "a*b", "*", "NEAR(", "col:umn"):
            assert log.search([odd], 9) == []


def test_two_programs_that_go_on_with_one_conversation_part(file: Path) -> None:
    with Log(file) as one, Log(file) as other:
        place = one.write(None, ABOUT, RAIN, 0, None)
        mine = one.write(place, ABOUT, [*RAIN, *SNOW], 1, None)
        hail = exchange("And hail?", "Ice.")
        theirs = other.write(place, ABOUT, [*RAIN, *hail], 1, None)
        assert mine.id == place.id != theirs.id
        for found, expected in ((mine, [*RAIN, *SNOW]), (theirs, [*RAIN, *hail])):
            kept = one.read(found.id)
            assert kept is not None
            assert list(kept.conversation.messages) == expected


WRITER = """
import sys
import threading
from pathlib import Path
from mtp_cli.log.store import About, Log
from tests.log.test_store import ABOUT, exchange

name, place, said = sys.argv[2], None, []
with Log(Path(sys.argv[1])) as log:
    print("ready", flush=True)
    for n in range(int(sys.argv[3])):
        said += exchange(f"{name} {n}?", f"{n}" * 500)
        place = log.write(place, ABOUT, said, n, b"x" * 5000)
        print(n, flush=True)
"""


def writer(file: Path, name: str, n: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), name, str(n)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_several_programs_write_at_once_into_a_file_that_none_has_made(file: Path) -> None:
    writers = [writer(file, name, 25) for name in ("a", "b", "c")]
    assert [w.communicate(timeout=60) and w.returncode for w in writers] == [0, 0, 0]
    with Log(file) as log:
        assert sorted((e.n, e.asked) for e in log.entries(9)) == [
            (25, "a 0?"),
            (25, "b 0?"),
            (25, "c 0?"),
        ]


def test_a_new_file_that_another_program_writes_to_is_waited_for(file: Path) -> None:
    """SQLite gives up at once there: a file is changed to WAL while nobody has begun to write."""
    file.parent.mkdir(parents=True, exist_ok=True)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ends = threading.Timer(0.2, other.execute, ["COMMIT"])
    ends.start()
    with Log(file) as log:
        assert log.entries(9) == []
    ends.join()
    other.close()


def test_what_was_written_before_a_kill_is_there(file: Path) -> None:
    with writer(file, "a", 10_000) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line == "19\n":
                killed.send_signal(signal.SIGKILL)
            if line.endswith("\n") and line != "ready\n":
                written = int(line) + 1
    with Log(file) as log:
        [entry] = log.entries(9)
        assert entry.n in (written, written + 1)
        kept = log.read(entry.id)
    assert kept is not None
    assert kept.conversation.messages[-1]["content"] == f"{entry.n - 1}" * 500


def test_a_file_of_an_earlier_version_is_brought_up_to_date(file: Path) -> None:
    file.parent.mkdir()
    old = sqlite3.connect(file)
    for statement in STEPS[0]:
        old.execute(statement)
    old.execute("PRAGMA user_version = 1")
    old.execute(
        "INSERT INTO conversations (revision, created_s, updated_s, about, fingerprint) "
        """VALUES (1, 0, 0, '{"model": "m", "name": "m", "fingerprint": "f"}', 'f')"""
    )
    old.execute(
        "INSERT INTO exchanges (conversation, turn, asked, answer) VALUES (1, 0, 'old', 'words')"
    )
    old.commit()
    old.close()
    with Log(file) as log:
        assert [e.id for e in log.search(["words"], 9)] == [1]


def test_a_file_of_a_later_version_is_left_alone(file: Path) -> None:
    with Log(file):
        pass
    later = sqlite3.connect(file)
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(MtpError, match=r"conversations\.db: written by a newer version"):
        Log(file)


@pytest.mark.parametrize("damage", [b"no database" * 500, None])
def test_a_damaged_file_is_said_in_one_line(file: Path, damage: bytes | None) -> None:
    with Log(file) as log:
        log.write(None, ABOUT, RAIN * 400, 0, None)
    data = file.read_bytes()
    file.write_bytes(damage or data[:8192] + b"\xff" * (len(data) - 8192))
    with pytest.raises(MtpError, match=r"conversations\.db: damaged; moved away") as caught:
        use(file)
    assert "\n" not in str(caught.value)


def use(file: Path) -> None:
    with Log(file) as log:
        log.write(None, ABOUT, RAIN, 0, None)
        log.entries(9)
        log.search(["water"], 9)


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="Is a directory"):
        Log(tmp_path)


def test_what_is_deleted_is_no_longer_in_the_file(file: Path) -> None:
    with Log(file) as log:
        first = log.write(None, ABOUT, exchange("Xylophone?", "Quagmire."), 0, b"")
        log.write(None, ABOUT, RAIN, 0, b"")
        assert log.delete([first.id]) == 1
        assert log.read(first.id) is None
        assert log.search(["xylophone"], 9) == []
        assert [e.asked for e in log.entries(9)] == ["What is rain?"]
        left = b"".join(p.read_bytes() for p in file.parent.iterdir()).lower()
        assert b"water" in left
        assert b"xylophone" not in left
        assert b"quagmire" not in left
        assert log.delete(None) == 1
    shutil.rmtree(file.parent)
