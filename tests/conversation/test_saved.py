"""Saved conversations: whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.saved import Conversation, load, save
from mtp_cli.conversation.template import Message
from mtp_cli.errors import MtpError

TALK = Conversation(
    system="Be brief.",
    messages=[
        Message(role="user", content="Hi \x1b[2J 🌧"),
        Message(role="assistant", content="Hello."),
    ],
    model="some-model",
    sampling={"temperature": 0.5, "seed": None},
)
GOOD: dict[str, Any] = {
    "format": "mtp-chat conversation",
    "version": 1,
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    save(path, TALK)
    assert load(path) == TALK
    assert [p.name for p in tmp_path.iterdir()] == ["talk.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_saved_conversation_may_be_saved_over(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    save(path, TALK)
    newer = Conversation(None, TALK.messages, "other", {})
    save(path, newer)
    assert load(path) == newer


def test_saving_goes_through_a_link_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    save(tmp_path / "link.json", TALK)
    assert (tmp_path / "link.json").is_symlink()
    assert load(tmp_path / "real.json") == TALK


def test_nothing_else_is_ever_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(MtpError, match="not a saved conversation; choose another name"):
        save(path, TALK)
    assert path.read_text() == "years of work"


@pytest.mark.parametrize("name", ["missing/talk.json", ".", "x" * 300, "~nobody-here/x", "a\0b"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path, name: str) -> None:
    path = Path(name) if name.startswith("~") else tmp_path / name
    with pytest.raises(MtpError) as caught:
        save(path, TALK)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a saved conversation"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not a saved conversation"),
        (b"[1, 2]", "expected format"),
        (b'{"format": "mtp-chat conversation", "version": 9}', "expected version 2, found 9"),
    ],
)
def test_junk_is_one_clear_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "junk.json"
    path.write_bytes(content)
    with pytest.raises(MtpError, match=said) as caught:
        load(path)
    assert "junk.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ({}, "expected a list"),
        (["x"], "message 0: expected a role and a text"),
        ([{"role": "user", "content": ["x"]}], "message 0: expected a role and a text"),
        ([{"role": "user", "content": "\ud800"}], "message 0: expected a role and a text"),
        ([{"role": "assistant", "content": "x"}], "expected user and found 'assistant'"),
        ([*GOOD["messages"], {"role": "tool", "content": "x"}], "found 'tool' as the role of turn"),
        ([{"role": "user", "content": "x"}], "has no answer"),
    ],
)
def test_messages_are_checked_one_by_one(tmp_path: Path, messages: Any, said: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({**GOOD, "messages": messages}))
    with pytest.raises(MtpError, match=said):
        load(path)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="No such file"):
        load(tmp_path / "talk.json")


@pytest.mark.parametrize("name", ["/dev/zero", "fifo", "huge.json"])
def test_what_never_ends_or_never_comes_is_not_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(65 << 20)
    path = tmp_path / name  # an absolute name stays what it is
    with pytest.raises(MtpError, match="not a saved conversation"):
        load(path)
    with pytest.raises(MtpError, match="choose another name"):
        save(path, TALK)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"messages": _JSON, "sampling": _JSON, "model": _JSON}))
def test_any_json_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("json") / "talk.json"
    path.write_text(json.dumps({**GOOD, **fields}))
    try:
        conversation = load(path)
    except MtpError:
        return
    assert all(set(message) == {"role", "content"} for message in conversation.messages)


def test_reasoning_is_saved_with_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    answer = Message(role="assistant", content="Yes.", reasoning="Hm.")
    talk = Conversation(None, [TALK.messages[0], answer], "some-model", {})
    save(path, talk)
    assert load(path) == talk


def test_conversations_of_before_there_was_reasoning_are_read(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    assert GOOD["version"] == 1
    path.write_text(json.dumps(GOOD))
    assert load(path).messages[1] == {"role": "assistant", "content": "b"}


@pytest.mark.parametrize("reasoning", [None, 1, "\ud800"])
def test_reasoning_that_is_no_text_is_a_clear_line(tmp_path: Path, reasoning: object) -> None:
    path = tmp_path / "talk.json"
    user, answer = GOOD["messages"]
    path.write_text(json.dumps({**GOOD, "messages": [user, {**answer, "reasoning": reasoning}]}))
    with pytest.raises(MtpError, match="message 1: expected a text as its reasoning"):
        load(path)


def test_a_file_with_a_bom_is_read(tmp_path: Path) -> None:
    """As Windows' editors write it."""
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert [message["content"] for message in load(path).messages] == ["a", "b"]


@pytest.mark.parametrize("letter", ["a", "\u8a9e"])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    save(path, TALK)
    assert load(path) == TALK
    with pytest.raises(
        MtpError, match=r"^cannot save to .*…a*\u8a9e*: File name too long$"
    ) as caught:
        save(tmp_path / (letter * 300), TALK)
    assert len(str(caught.value)) < 200
    with pytest.raises(MtpError, match=r"^cannot load .*: File name too long$"):
        load(tmp_path / (letter * 300))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", "no file can have such a name"),
        ("~nobody-here/x", "no such user, and so no home folder"),
        ("nowhere/x", "No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_in_words_of_ours(name: str, said: str) -> None:
    with pytest.raises(MtpError, match=f": {said}$"):
        save(Path(name), TALK)
    with pytest.raises(MtpError, match=f": {said}$"):
        load(Path(name))
