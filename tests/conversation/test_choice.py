"""Which chat template: the model's, one that it names, or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.conversation.choice import named_template, template_file, usual_template
from mtp_cli.errors import MtpError

KEY = "tokenizer.chat_template"


@pytest.mark.parametrize(
    ("metadata", "source"),
    [
        ({}, None),
        ({KEY: ""}, None),
        ({KEY: " \n"}, None),
        ({KEY: "usual"}, "usual"),
        ({KEY: "usual", f"{KEY}.tool_use": "tools"}, "usual"),
        ({KEY: "", f"{KEY}.tool_use": "tools"}, "tools"),
        ({f"{KEY}.tool_use": "tools", f"{KEY}.zephyr": "zephyr"}, "zephyr"),
        ({f"{KEY}.rag": "r", f"{KEY}.default": "default", f"{KEY}.a": "a"}, "default"),
        ({f"{KEY}.a": "  "}, None),
    ],
)
def test_the_usual_template_is_one_that_says_something(
    metadata: dict[str, str], source: str | None
) -> None:
    assert usual_template(metadata) == source


def test_templates_have_names() -> None:
    metadata = {KEY: "usual", f"{KEY}.tool_use": "tools", f"{KEY}.empty": ""}
    assert named_template(metadata, "tool_use") == "tools"
    assert named_template(metadata, "default") == "usual"
    with pytest.raises(MtpError, match=r"rag: no such file, and .* \(it has: default, tool_use\)"):
        named_template(metadata, "rag")
    with pytest.raises(MtpError, match="it has: none"):
        named_template({}, "rag")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read_as_it_is(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "my.jinja"
    path.write_text("{{ 'ü' }}\n", encoding=encoding)
    assert template_file(str(path)) == "{{ 'ü' }}\n"


def test_a_plain_word_that_is_no_file_may_be_a_name() -> None:
    assert template_file("tool_use") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe", "not UTF-8"), (b" \n", "empty"), (b"x" * (5 << 20), "more than 4 MB")],
)
def test_a_file_that_is_no_template_is_a_clear_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "t.jinja"
    path.write_bytes(content)
    with pytest.raises(MtpError, match=said):
        template_file(str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/t.jinja", "No such file"),
        ("missing.jinja", "No such file"),
        (".", "Is a directory"),
        ("~nobody-here/t.jinja", "no such user, and so no home folder"),
        ("a\0b.jinja", "no file can have such a name"),
    ],
)
def test_a_path_that_cannot_be_read_is_a_clear_line(name: str, said: str) -> None:
    with pytest.raises(MtpError, match=f"cannot read .*: {said}"):
        template_file(name)
