"""The real command with models that say what a test wrote: reasoning, templates, their options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.chat.chain import speaks

# pexpect forks, which Python 3.12 and later warn of wherever a library has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "mtp_cli.chat", "-t", "0", "--depth", "0", "--ctx", "512"]
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}</s>{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)
INST_MARKS = ["[THINK]", "[/THINK]", "[INST]", "[/INST]", "</s>"]
SAYS = ["[THINK]", "Two does not divide it.", "[/THINK]", "Yes.", "</s>"]
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if '<|channel|>' in m.content %}"
    "{{ raise_exception('channels belong into thinking') }}{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% else %}"
    "<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "<|start|>assistant"
)
PROMPT = "\x1b[?2004h"  # the line editor begins to read
CHANNEL_MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"]


def run(model: Path, *args: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [*COMMAND, "-m", str(model), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It thinks between control tokens that its template does not know."""
    path = tmp_path_factory.mktemp("models") / "thinker.gguf"
    named = {"tokenizer.chat_template.loud": "LOUD" + INST}
    return speaks(path, SAYS, after="[/INST]", control=INST_MARKS, template=INST, more=named)


def test_reasoning_is_left_out_of_a_pipe_unless_it_is_wanted(thinker: Path) -> None:
    assert run(thinker, "--quiet", "is seven prime?")[0] == "Yes.\n"
    shown = run(thinker, "--quiet", "--think", "show", "is seven prime?")[0]
    assert shown == "<think>\nTwo does not divide it.\n</think>\n\nYes.\n"


def test_json_has_both(thinker: Path) -> None:
    fields = json.loads(run(thinker, "--json", "is seven prime?")[0])
    assert fields["text"] == "Yes."
    assert fields["reasoning"] == "Two does not divide it."
    assert fields["completion_tokens"] == len(SAYS)


def test_a_switch_that_the_template_does_not_know_is_noted(thinker: Path) -> None:
    out, err = run(thinker, "--think", "off", "is seven prime?")
    assert out == "Yes.\n"
    assert "the chat template has no such switch for thinking" in err


def test_an_answer_that_ends_while_it_thinks_says_so(thinker: Path) -> None:
    out, err = run(thinker, "-n", "2", "is seven prime?")
    assert out == ""
    assert (
        "cut at 2 tokens, inside its reasoning (--think show shows it, -n sets another limit)"
        in err
    )


@pytest.mark.parametrize("name", ["loud", "default"])
def test_a_named_template_is_taken(thinker: Path, name: str) -> None:
    fields = json.loads(run(thinker, "--json", "--chat-template", name, "hi")[0])
    assert fields["prompt_tokens"] == len("hi") + 2 + (len("LOUD") if name == "loud" else 0)


def test_a_template_comes_from_a_file_with_its_variables(thinker: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ 'x' * n }}" + INST)
    fields = json.loads(
        run(thinker, "--json", "--chat-template", str(path), "--template-var", "n=7", "hi")[0]
    )
    assert fields["prompt_tokens"] == len("hi") + 2 + 7
    err = run(thinker, "--chat-template", str(path), "hi", status=1)[1]
    assert "needs a variable n: give it as --template-var n=VALUE" in err


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--chat-template", "quiet"], 1, "no such file, and no chat template of the model"),
        (["--chat-template", "/nowhere/t.jinja"], 1, "cannot read /nowhere/t.jinja"),
        (["--template-var", "messages=1"], 1, "itself gives the chat template messages"),
        (["--template-var", "n"], 2, "NAME=VALUE"),
        (["--think", "loudly"], 2, "minimal, low, medium"),
        (["--raw", "--chat-template", "loud"], 2, "--raw does without"),
        (["--raw", "--think", "off"], 2, "--raw does without"),
    ],
)
def test_what_cannot_be_is_a_clear_line(
    thinker: Path, args: list[str], status: int, said: str
) -> None:
    err = run(thinker, *args, "hi", status=status)[1]
    assert said in " ".join(err.replace("│", " ").split())


def test_an_empty_template_is_none_and_what_to_do_is_said(tmp_path: Path) -> None:
    model = speaks(tmp_path / "m.gguf", ["Hi.", "</s>"], after="i", control=["</s>"], template="")
    out, err = run(model, "hi")
    assert out == "Hi.\n"
    assert "has no chat template" in err
    assert "--chat-template" in err
    assert "--chat-template gives one" in run(model, "-s", "Be terse.", "hi", status=1)[1]


def test_a_conversation_in_channels_goes_on(tmp_path: Path) -> None:
    says = ["<|channel|>", "analysis", "<|message|>", "A greeting.", "<|end|>", "<|start|>"]
    says += ["assistant", "final", "Hello to you!", "<|return|>"]
    model = speaks(tmp_path / "m.gguf", says, after="t", control=CHANNEL_MARKS, template=CHANNELS)
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)}
    chat = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "-m", str(model)],
        encoding="utf-8",
        timeout=60,
        cwd=str(ROOT),
        env=environment,
    )
    for question in ("hi", "again"):
        chat.expect_exact(PROMPT)
        chat.send(question + "\r")
        chat.expect_exact("\x1b[2mA greeting.\x1b[0m\r\n\r\nHello to you!\r\n")
    chat.expect_exact(PROMPT)
    chat.send("/think hide\r")
    chat.expect("hidden")
    chat.expect_exact(PROMPT)
    chat.send("more\r")
    chat.expect_exact("Hello to you!\r\n")
    assert "A greeting." not in chat.before
    chat.expect_exact(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)
