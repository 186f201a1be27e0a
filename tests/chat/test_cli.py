"""The command line: what is refused, how, and with which exit status. No model is loaded here."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_cli.chat.pipe import read_request
from mtp_cli.errors import MtpError

ROOT = Path(__file__).parents[2]


def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mtp_cli.chat", *args]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, timeout=60)


def stdin(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="ascii")  # whatever the locale


@pytest.mark.parametrize(
    ("argument", "content", "raw", "request_"),
    [
        ("Explain", b"", False, "Explain"),
        (None, b"Explain\n", False, "Explain"),
        ("Explain", b"\nline 1\n line 2\n\n", False, "Explain\n\nline 1\n line 2"),
        ("Explain", b" \n\t\n", False, "Explain"),
        (None, "\ufeffünïcödé".encode(), False, "ünïcödé"),
        (None, b"  Once upon a\n\n", True, "  Once upon a\n"),
        ("Once", b"upon\n", True, "Once\n\nupon"),
    ],
)
def test_a_request_is_the_argument_then_its_material(
    argument: str | None, content: bytes, raw: bool, request_: str
) -> None:
    assert read_request(argument, stdin(content), raw=raw) == request_


def test_a_closed_stdin_is_an_empty_one() -> None:
    assert read_request("Explain", None, raw=False) == "Explain"


@pytest.mark.parametrize("content", [b"", b"\n \t\n"])
def test_nothing_to_answer_is_an_error(content: bytes) -> None:
    with pytest.raises(MtpError, match="no REQUEST was given and stdin is empty"):
        read_request(None, stdin(content), raw=False)


def test_bytes_that_are_no_utf8_are_named() -> None:
    with pytest.raises(MtpError, match="not UTF-8 text: byte 0xff at offset 3"):
        read_request("Explain", stdin(b"abc\xffdef"), raw=False)


@pytest.mark.parametrize(
    "args",
    [
        ("--depth", "9"),
        ("--depth", "-1"),
        ("--depth", "fast"),
        ("--depth", "²"),
        ("--temperature", "-0.1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--top-p", "1.5"),
        ("--top-k", "-1"),
        ("--min-p", "-1"),
        ("--max-tokens", "0"),
        ("--ctx", "0"),
        ("--threads", "0"),
        ("--gpu-layers", "-2"),
        ("--seed", "-1"),
        ("--raw", "--system", "Be brief."),
        ("one", "two"),
        ("--no-such-option",),
        ("--system", "\udcff"),
    ],
)
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    done = run(*args, stdin=b"Hi")
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Usage: mtp-chat" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "content", "said"),
    [
        ((), b"", "stdin is empty"),
        (("Explain",), b"\x80", "not UTF-8"),
        (("Hi", "--model", "/no/such.gguf"), b"", "/no/such.gguf"),
        (("Hi", "--heads", "/no/such.gguf"), b"", "/no/such.gguf"),
        (("Hi", "--model", str(Path(__file__))), b"", "test_cli.py"),
        (("Hi", "--model", "/dev/null"), b"", "/dev/null"),
    ],
)
def test_an_error_is_one_line_and_exits_with_1(
    args: tuple[str, ...], content: bytes, said: str
) -> None:
    done = run(*args, stdin=content)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"error: ")
    assert said in done.stderr.decode()


def test_help_is_documentation() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    text = done.stdout.decode()
    for option in (
        "-m, --model PATH",
        "--heads PATH",
        "-s, --system TEXT",
        "-n, --max-tokens N",
        "-t, --temperature X",
        "--top-k N",
        "--top-p X",
        "--min-p X",
        "--seed N",
        "--ctx N",
        "--threads N",
        "--gpu-layers N",
        "--depth auto|0..8",
        "--json",
        "--raw",
        "--quiet",
        "--version",
    ):
        assert option in text
    assert "git diff | mtp-chat" in text


def test_help_does_not_wait_for_heavy_imports() -> None:
    script = (
        "import sys\nfrom mtp_cli.chat.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'llama_cpp', 'numpy', 'jinja2', 'rich', 'prompt_toolkit'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
