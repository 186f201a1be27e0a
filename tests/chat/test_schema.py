"""The real command with answers that keep to a schema or a grammar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.chat.chain import speaks
from tests.chat.test_reasoning_end_to_end import (
    CHANNEL_MARKS,
    CHANNELS,
    INST,
    INST_MARKS,
    PROMPT,
    ROOT,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

CHAIN = ["[THINK]", "No text of it.", "[/THINK]", "\n\n", "Never.", "</s>"]
YES_OR_NO = 'root ::= "Yes." | "No."\n'
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "mood": {"enum": ["happy", "sad"]}},
    "required": ["name", "mood"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It thinks, and would then say what no grammar here allows."""
    path = tmp_path_factory.mktemp("models") / "thinker.gguf"
    return speaks(path, CHAIN, after="[/INST]", control=INST_MARKS, template=INST)


@pytest.fixture
def grammar(tmp_path: Path) -> Path:
    path = tmp_path / "yes.gbnf"
    path.write_text(YES_OR_NO)
    return path


def test_it_may_think_first(thinker: Path, grammar: Path) -> None:
    for depth in ("0", "3", "auto"):
        out, _err = run(thinker, "--grammar", str(grammar), "--depth", depth, "--json", "why?")
        answer = json.loads(out)
        assert answer["text"] in ("Yes.", "No."), answer
        assert answer["reasoning"] == "No text of it."
        assert answer["finish_reason"] == "stop"


def test_it_may_think_in_channels(tmp_path: Path, grammar: Path) -> None:
    said = ["<|channel|>", "analysis", "<|message|>", "Hm", "<|end|>", "<|return|>"]
    model = speaks(tmp_path / "m.gguf", said, after="t", control=CHANNEL_MARKS, template=CHANNELS)
    out, _err = run(model, "--grammar", str(grammar), "--json", "-n", "40", "why?")
    answer = json.loads(out)
    assert answer["reasoning"] == "Hm"
    assert answer["text"] in ("Yes.", "No.")


def test_it_answers_where_a_mark_is_more_than_a_control_token(
    tmp_path: Path, grammar: Path
) -> None:
    marks, template = (*INST_MARKS, "<|channel>", "<channel|>"), INST + "{# <|channel>thought #}"
    said = ["<|channel>", "Never.", "</s>"]
    model = speaks(tmp_path / "m.gguf", said, after="[/INST]", control=marks, template=template)
    out, _err = run(model, "--grammar", str(grammar), "why?")
    assert out.strip() in ("Yes.", "No.")


def test_without_thinking_it_begins_at_once(tmp_path: Path, grammar: Path) -> None:
    model = speaks(
        tmp_path / "m.gguf", ["Never.", "</s>"], after="[/INST]", control=INST_MARKS, template=INST
    )
    out, err = run(model, "--grammar", str(grammar), "why?")
    assert out.strip() in ("Yes.", "No.")
    out, err = run(model, "--grammar", str(grammar), "-n", "1", "why?")
    assert out.strip() in ("Y", "N")
    assert "cut at 1 tokens, before the grammar was done (-n sets another limit)" in err
    out, err = run(model, "--grammar", str(grammar), "--stop", "s", "--stop", "o", "why?")
    assert out.strip() in ("Ye", "N")
    assert "stopped at a text of --stop, before the grammar was done" in err


def test_the_built_in_model(tmp_path: Path) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON))
    ask = [sys.executable, "-m", "mtp_cli.chat", "-t", "0", "Alice is glad. Extract her."]
    for schema in (str(path), json.dumps(PERSON)):
        done = subprocess.run(
            [*ask, "--json-schema", schema],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        person = json.loads(done.stdout)
        assert list(person) == ["name", "mood"]
        assert person["mood"] in ("happy", "sad")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--json-schema", "{nope", "error: the JSON schema is not valid JSON at line 1, column 2"),
        ("--json-schema", "", "error: the JSON schema is not valid JSON at line 1, column 1"),
        ("--json-schema", "/no/such", "error: /no/such: No such file or directory"),
        ("--json-schema", '{"not": {}}', 'error: the JSON schema cannot be followed: '
         'Unimplemented keys: ["not"]'),
        ("--grammar", "/no/such", "error: /no/such: No such file or directory"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_one_line_before_the_model_loads(
    thinker: Path, option: str, text: str, said: str
) -> None:
    out, err = run(thinker, option, text, "hi", status=1)
    assert (out, err.strip()) == ("", said)


def test_a_wrong_file_is_named(thinker: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.gbnf"
    path.write_text('root ::= "a"\nx = 3\n')
    _out, err = run(thinker, "--grammar", str(path), "hi", status=1)
    assert err.strip() == f"error: {path}: the grammar is wrong at line 2: expected ::="
    path.write_bytes(b"\xff\xfe{\x00}\x00")
    _out, err = run(thinker, "--json-schema", str(path), "hi", status=1)
    assert f"{path} is UTF-16 text" in err


def test_both_exclude_each_other(thinker: Path) -> None:
    _out, err = run(thinker, "--grammar", "a", "--json-schema", "{}", "hi", status=2)
    assert "exclude each other" in err


def test_in_a_conversation(thinker: Path, grammar: Path, tmp_path: Path) -> None:
    chat = pexpect.spawn(
        sys.executable,
        ["-m", "mtp_cli.chat", "-t", "0", "-m", str(thinker), "--grammar", str(grammar), "-n", "5"],
        encoding="utf-8",
        timeout=60,
        cwd=str(ROOT),
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)},
    )

    def say(text: str, *answers: str) -> None:
        chat.expect_exact(PROMPT)
        chat.send(text + "\r")
        for answer in answers:
            chat.expect_exact(answer)

    say("why?", "before the grammar was done (/more goes on")
    say("/more", ".\r\n")
    say("/schema", "answers keep to the grammar")
    say("/schema off", "answers are free text from now on")
    say("why?", "Never.")
    say("/schema /no/such", "error: /no/such: No such file")
    say('/schema {"type": "null"}', "answers keep to the schema from now on")
    say("/retry", "before the schema was done")
    say(f"/schema {grammar}", "answers keep to the grammar from now on")
    chat.expect_exact(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)


def test_an_answer_of_before_does_not_fit(thinker: Path, grammar: Path, tmp_path: Path) -> None:
    chat = pexpect.spawn(
        sys.executable,
        ["-m", "mtp_cli.chat", "-t", "0", "-m", str(thinker), "-n", "5"],
        encoding="utf-8",
        timeout=60,
        cwd=str(ROOT),
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)},
    )
    for typed, answer in (
        ("why?", "cut at 5 tokens"),
        (f"/schema {grammar}", "from now on"),
        ("/more", "what was said so far does not fit the grammar"),
        ("/schema off", "free text from now on"),
        ("/more", "\r\n"),
    ):
        chat.expect_exact(PROMPT)
        chat.send(typed + "\r")
        chat.expect_exact(answer)
    chat.expect_exact(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)
