"""The command line: what is refused, how, and with which exit status. No model is loaded here."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from mtp_cli.chat.cli import main
from mtp_cli.chat.pipe import read_request
from mtp_cli.errors import MtpError

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    status: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *args: str, stdin: bytes = b"") -> Done: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, as its entry point does."""

    def run_(*args: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["mtp-chat", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        return Done(exit_.value.code, *capsys.readouterr())

    return run_


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
    assert read_request(argument, stdin(content), io.StringIO(), raw=raw) == request_


def test_a_closed_stdin_is_an_empty_one() -> None:
    assert read_request("Explain", None, io.StringIO(), raw=False) == "Explain"


@pytest.mark.parametrize("content", [b"", b"\n \t\n"])
def test_nothing_to_answer_is_an_error(content: bytes) -> None:
    with pytest.raises(MtpError, match="no REQUEST was given and stdin is empty"):
        read_request(None, stdin(content), io.StringIO(), raw=False)


def test_bytes_that_are_no_utf8_are_named() -> None:
    with pytest.raises(MtpError, match="not UTF-8 text: byte 0xff at offset 3"):
        read_request("Explain", stdin(b"abc\xffdef"), io.StringIO(), raw=False)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named_with_what_makes_text_of_it(encoding: str) -> None:
    """Read as an older eight-bit encoding it would become a prompt of every other character."""
    raw = "\ufeffHi".encode(encoding)
    with pytest.raises(MtpError, match="stdin is UTF-16 text; iconv -f UTF-16 turns it"):
        read_request(None, stdin(raw), io.StringIO(), raw=False)


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
        ("--repeat-penalty", "0"),
        ("--repeat-penalty", "nan"),
        ("--repeat-penalty", "-1.1"),
        ("--repeat-penalty", "1e30"),
        ("--repeat-last-n", "-1"),
        ("--repeat-last-n", "1.5"),
        ("--presence-penalty", "inf"),
        ("--presence-penalty", "much"),
        ("--frequency-penalty", "nan"),
        ("--frequency-penalty", "-1e9"),
        ("--max-tokens", "-2"),
        ("--max-tokens", "many"),
        ("--stop", ""),
        ("--stop", "\udcff"),
        ("--ctx", "0"),
        ("--ctx", str(2**31)),
        ("--ctx", str(2**32 + 1)),
        ("--threads", "0"),
        ("--threads", "513"),
        ("--threads", "9" * 20),
        ("--top-k", str(2**32 + 3)),
        ("--repeat-last-n", str(2**31)),
        ("--gpu-layers", str(2**31)),
        ("--model", ""),
        ("--heads", ""),
        ("--gpu-layers", "-2"),
        ("--cache-type-k", "q3_k"),
        ("--cache-type-v", ""),
        ("--seed", "-1"),
        ("--raw", "--system", "Be brief."),
        ("one", "two"),
        ("--no-such-option",),
        ("--system", "\udcff"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, args: tuple[str, ...]) -> None:
    done = run(*args, stdin=b"Hi")
    assert (done.status, done.out) == (2, "")
    assert "Usage: mtp-chat" in done.err


SPACE = "--cache-prompt-gib is space for --cache-prompt: give both."


def test_space_for_prompts_that_are_not_kept(run: Run) -> None:
    done = run("--cache-prompt-gib", "4", "--model", "/no/such.gguf", stdin=b"Hi")
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith(f"{SPACE}\n")


@pytest.mark.parametrize("variable", [None, "MTP_CACHE_PROMPT_GIB"])
def test_space_for_prompts_that_are_kept_or_were_once(
    variable: str | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting holds for lines that keep prompts, and says nothing on others."""
    given = ("--cache-prompt", "--cache-prompt-gib", "2") if variable is None else ()
    if variable is not None:
        monkeypatch.setenv(variable, "2")
    done = run(*given, "--model", "/no/such.gguf", stdin=b"Hi")
    assert done.status == 1
    assert "/no/such.gguf" in done.err


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
    run: Run, args: tuple[str, ...], content: bytes, said: str
) -> None:
    done = run(*args, stdin=content)
    assert (done.status, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert said in done.err


@pytest.mark.parametrize(
    "promised",
    [
        *(
            "-m, --model PATH|NAME",
            "-hf, --hf-repo USER/REPO[:QUANT]",
            "--heads PATH",
            "-s, --system TEXT",
            "-n, --max-tokens N",
        ),
        *("-t, --temperature X", "--top-k N", "--top-p X", "--min-p X", "--seed N"),
        *("--repeat-penalty X", "--repeat-last-n N"),
        *("--presence-penalty X", "--frequency-penalty X"),
        *("--ctx N", "--threads N", "--gpu-layers N", "--depth auto|0..8", "--exact"),
        *("--cache-type-k TYPE", "--cache-type-v TYPE"),
        *("--json", "--raw", "--quiet", "--version", "git diff | mtp-chat"),
    ],
)
def test_help_is_documentation(run: Run, promised: str) -> None:
    done = run("--help")
    assert (done.status, done.err) == (0, "")
    assert promised in done.out
    assert "\x1b" not in done.out


def test_help_does_not_wait_for_heavy_imports() -> None:
    script = (
        "import sys\nfrom mtp_cli.chat.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'llama_cpp', 'numpy', 'jinja2', 'rich', 'prompt_toolkit'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
