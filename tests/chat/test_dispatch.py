"""Commands beside the chat: which first words are commands, what help and shells show of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A table with one command of several, whose module is made up.
SCRIPT = """
import sys, types, typer
from mtp_cli.chat import dispatch

app = typer.Typer(rich_markup_mode=None, add_completion=False)

@app.command()
def show(count: int = 1) -> None:
    print("shown", count)

@app.command()
def search(text: str) -> None:
    print("found", text)

sys.modules["made_up"] = types.ModuleType("made_up")
sys.modules["made_up"].app = app
dispatch.COMMANDS["kept"] = dispatch.Command("made_up", "What was kept.")
from mtp_cli.chat.cli import main
main()
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, "NO_COLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        text=True,
    )


def test_a_first_word_that_is_a_commands_name_is_that_command() -> None:
    done = run("kept", "show", "--count", "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "shown 2\n", "")
    done = run("kept", "search", "rain")
    assert (done.returncode, done.stdout) == (0, "found rain\n")


def test_its_wrong_usage_names_it() -> None:
    done = run("kept", "show", "--cuont", "2")
    assert done.returncode == 2
    assert "Usage: mtp-chat kept show" in done.stderr


MISSING = ("--model", "/no/such.gguf")


@pytest.mark.parametrize(
    "words", [(*MISSING, "--", "kept"), ("kept things", *MISSING), ("Kept", *MISSING)]
)
def test_every_other_word_is_a_request(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 1
    assert "/no/such.gguf" in done.stderr


def test_help_lists_the_commands() -> None:
    listed = run("--help").stdout.partition("\nCommands:\n")[2].partition("\n\n")[0]
    assert "kept What was kept." in [" ".join(line.split()) for line in listed.splitlines()]
    assert "Usage: mtp-chat kept" in run("kept", "--help").stdout


@pytest.mark.parametrize(
    ("typed", "position", "completed"), [("ke", "1", "kept"), ("kept sea", "2", "search")]
)
def test_a_shell_completes_them(typed: str, position: str, completed: str) -> None:
    words = {"COMP_WORDS": f"mtp-chat {typed}", "COMP_CWORD": position}
    assert run(_MTP_CHAT_COMPLETE="complete_bash", **words).stdout.split() == [completed]
