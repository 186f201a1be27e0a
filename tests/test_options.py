"""What all commands have in common: -h, --version, completion in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import IO

import pytest

COMMANDS = {
    "mtp-chat": "mtp_cli.chat.cli",
    "mtp-bench": "mtp_cli.bench.cli",
    "mtp-serve": "mtp_cli.serve.cli",
    "mtp-convert": "mtp_convert.cli",
    "mtp-train": "mtp_train.cli",
}
SUBCOMMANDS = [("mtp-convert", "graft"), ("mtp-convert", "inspect"), ("mtp-train", "fit")]

every_command = pytest.mark.parametrize("command", COMMANDS)


def run(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_into(subprocess.PIPE, command, *arguments, **environment)


def run_into(
    stdout: IO[str] | int, command: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from {COMMANDS[command]} import main; main()", *arguments],
        env={**os.environ, "NO_COLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("command", "subcommand"), [*((c, "") for c in COMMANDS), *SUBCOMMANDS])
def test_h_is_help(command: str, subcommand: str) -> None:
    given = [subcommand] if subcommand else []
    short, long = run(command, *given, "-h"), run(command, *given, "--help")
    assert (short.returncode, short.stderr) == (0, "")
    assert short.stdout == long.stdout
    assert f"Usage: {command}" in short.stdout


def subcommands(command: str) -> list[str]:
    _before, _heading, listed = run(command, "--help").stdout.partition("\nCommands:\n")
    return [line.split()[0] for line in listed.partition("\n\n")[0].splitlines() if line.strip()]


@every_command
def test_all_help_is_of_one_style(command: str) -> None:
    """No boxes; values in capitals or as choices, defaults in brackets, no summary cut off."""
    for given in ([], *([name] for name in subcommands(command))):
        shown = run(command, *given, "--help", COLUMNS="80").stdout
        options = shown.partition("\nOptions:\n")[2].partition("\n\n")[0]
        assert options.startswith("  -")
        assert shown.isascii()
        assert "Default:" not in shown
        assert "..." not in shown.partition("\n")[2]
        for kind in ("<path>", "<int", "<str>", "<bool>", "<float", "INTEGER"):
            assert kind not in options


@every_command
def test_version_tells_what_runs(command: str) -> None:
    done = run(command, "--version", MTP_KERNELS="ggml")
    assert done.stdout.splitlines() == [
        f"{command} {version('mtp-cli')}",
        f"llama-cpp-python {version('llama-cpp-python')}",
        "kernels: llama.cpp's",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "typed", "completed"),
    [
        ("mtp-chat", "--tempe", "--temperature"),
        ("mtp-bench", "--repe", "--repetitions"),
        ("mtp-serve", "--api", "--api-key"),
        ("mtp-convert", "insp", "inspect"),
        ("mtp-train", "meas", "measure"),
    ],
)
def test_a_shell_completes_options_and_commands(command: str, typed: str, completed: str) -> None:
    variable = f"_{command.upper().replace('-', '_')}_COMPLETE"
    words = {variable: "complete_bash", "COMP_WORDS": f"{command} {typed}", "COMP_CWORD": "1"}
    done = run(command, **words)
    assert done.stdout.split() == [completed]
    shown = run(command, **{variable: "source_bash"})
    assert f"complete -o default -F _{command.replace('-', '_')}_completion" in shown.stdout


printing_commands = pytest.mark.parametrize(
    "command", ["mtp-chat", "mtp-bench", "mtp-serve", "mtp-convert", "mtp-train"]
)


@printing_commands
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_clear_line(command: str, unbuffered: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run_into(full, command, "--help", PYTHONUNBUFFERED=unbuffered)
    told = "error: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


@printing_commands
def test_a_reader_that_left_is_no_error(command: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w", encoding="utf-8") as broken:
        done = run_into(broken, command, "--version", PYTHONUNBUFFERED="")
    assert (done.returncode, done.stderr) == (0, "")
