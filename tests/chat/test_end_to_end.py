"""The real command with the built-in model: through pipes, and through a pseudo-terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pexpect
import pytest

from mtp_cli import models
from tests.engine import tiny

# pexpect forks, which Python 3.12 and later warn of wherever a library has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "mtp_cli.chat"]
GREEDY = ["-t", "0", "--ctx", "512"]
KEYS = {
    "text",
    "draft_model",
    "reasoning",
    "tokens",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "prefill_s",
    "decode_s",
    "tokens_per_s",
    "rounds",
    "verified",
    "accepted",
    "exact",
    "inexact_row_counts",
    "times_plain",
    "model",
    "heads",
}


def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *GREEDY, *args], input=stdin.encode(), capture_output=True, cwd=ROOT, timeout=120
    )


@pytest.fixture(scope="module")
def plain() -> subprocess.CompletedProcess[bytes]:
    return run("-n", "12", stdin="Write a haiku about rain\n")


def test_stdout_holds_the_answer_and_nothing_else(
    plain: subprocess.CompletedProcess[bytes],
) -> None:
    assert plain.returncode == 0
    text = plain.stdout.decode()
    assert text.strip()
    assert text.endswith("\n")
    assert b"\x1b" not in plain.stdout + plain.stderr
    assert re.search(r"^prompt \d+ tokens, [0-9.]+ tok/s", plain.stderr.decode(), re.MULTILINE)


def test_json_is_the_same_answer_with_its_numbers(
    plain: subprocess.CompletedProcess[bytes],
) -> None:
    done = run("-n", "12", "--json", "--quiet", stdin="Write a haiku about rain\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
    said = json.loads(done.stdout)
    assert set(said) == KEYS
    assert said["text"].rstrip("\n") + "\n" == plain.stdout.decode()
    assert said["finish_reason"] == "length"
    assert said["completion_tokens"] == len(said["tokens"]) == 12
    assert said["cached_tokens"] == 0 < said["prompt_tokens"]
    assert said["tokens_per_s"] > 0
    assert len(said["verified"]) == len(said["accepted"])
    assert said["model"] == str(models.built_in_model())
    heads = models.built_in_heads()
    assert said["heads"] == (str(heads) if heads else None)


def test_an_argument_comes_before_its_material() -> None:
    piped = run("-n", "1", "--json", "Name the animal.", stdin="The cat sat.\n")
    whole = run("-n", "1", "--json", stdin="Name the animal.\n\nThe cat sat.")
    tokens = [json.loads(done.stdout)["prompt_tokens"] for done in (piped, whole)]
    assert tokens[0] == tokens[1]


def test_a_model_without_heads_says_so_once_and_answers(tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "m.gguf")
    done = run("--model", str(model), "-n", "2", stdin="Hi")
    assert done.returncode == 0
    assert done.stdout.strip()
    said = [line for line in done.stderr.decode().splitlines() if "no MTP heads" in line]
    assert len(said) == 1


def test_the_built_in_model_by_its_path_has_its_heads() -> None:
    done = run("--model", str(models.built_in_model()), "-n", "2", stdin="Hi")
    assert done.returncode == 0
    assert b"no MTP heads" not in done.stderr


def test_heads_beside_the_model_are_found(tmp_path: Path) -> None:
    model, heads = tmp_path / "some.gguf", tmp_path / "some-mtp.gguf"
    model.symlink_to(models.built_in_model())
    built_in = models.built_in_heads()
    assert built_in is not None
    heads.symlink_to(built_in)
    done = run("-m", str(model), "-n", "4", "--json", "Hi")
    assert json.loads(done.stdout)["heads"] == str(heads)


def test_a_smaller_model_can_draft() -> None:
    """The built-in model stands for a family: it drafts for itself."""
    request = ("-n", "16", "-t", "0", "--json", "Count to ten.")
    plain = json.loads(run("--depth", "0", *request).stdout)
    done = run("--draft-model", str(models.built_in_model()), "--depth", "3", *request)
    drafted = json.loads(done.stdout)
    assert drafted["tokens"] == plain["tokens"]
    assert (drafted["heads"], drafted["draft_model"]) == (None, str(models.built_in_model()))
    assert drafted["accepted"] == drafted["verified"], "it says what it would say itself"


def test_depth_0_decodes_plainly_and_says_the_same(
    plain: subprocess.CompletedProcess[bytes],
) -> None:
    done = run("-n", "12", "--json", "--depth", "0", stdin="Write a haiku about rain\n")
    said = json.loads(done.stdout)
    assert sum(said["verified"]) == 0
    assert said["rounds"] == 11  # the first token comes out of the prompt's own pass
    assert said["text"].rstrip("\n") + "\n" == plain.stdout.decode()


@pytest.mark.parametrize(
    "option", ["--repeat-penalty", "--presence-penalty", "--frequency-penalty"]
)
def test_a_penalty_out_of_all_proportion_lets_no_token_come_twice(option: str) -> None:
    request = ("-n", "24", "--json", "Say la la la la la la la la la la la la.")
    penalties = (option, "1000", "--repeat-last-n")
    often, always = (json.loads(run(*request, *penalties, n).stdout)["tokens"] for n in ("0", "99"))
    assert len(set(often)) < len(often)
    assert len(set(always)) == len(always) > 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = f"{' '.join(COMMAND)} -t 0 'List ten animals, one a line.' | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr


def test_a_full_disk_is_one_clear_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "-n", "2", "Hi"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == (
        "error: cannot write the answer: No space left on device"
    )


def test_a_closed_stderr_leaves_stdout_to_the_answer(
    plain: subprocess.CompletedProcess[bytes],
) -> None:
    script = f"echo 'Write a haiku about rain' | {' '.join(COMMAND + GREEDY)} -n 12 2>&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout) == (0, plain.stdout)


def test_a_stop_ends_the_answer_before_itself_at_any_depth() -> None:
    asked = "Count: one, two, three, four."
    whole = json.loads(run("--json", "-n", "24", asked).stdout)
    stop = whole["text"][8:11]
    stopped = [
        json.loads(run("--json", "-n", "24", "--stop", stop, "--depth", depth, asked).stdout)
        for depth in ("0", "4")
    ]
    for answer in stopped:
        assert answer["text"] == whole["text"][: whole["text"].index(stop)]
        assert answer["finish_reason"] == "stop"
        assert answer["tokens"] == whole["tokens"][: len(answer["tokens"])]


def test_a_context_beyond_training_is_told() -> None:
    done = run("-n", "1", "--ctx", "9000", "Hi")
    assert done.returncode == 0
    assert b"was trained with a context of 8192 tokens" in done.stderr
    assert b"--ctx 8192" in done.stderr


def test_a_prompt_longer_than_the_context_names_both_numbers() -> None:
    done = run("--quiet", stdin="word " * 2000)
    assert done.returncode == 1
    assert done.stdout == b""
    assert "tokens, and a context of 512 has no room" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def start(*args: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "-t", "0", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, process.stdout


def test_ctrl_c_keeps_what_was_said() -> None:
    process, stdout = start("List fifty animals, one a line.")
    first = stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (first + rest).endswith(b"\n")
    assert b"stopped" in stderr
    assert b"Traceback" not in stderr


def test_a_long_prompt_shows_how_far_it_is_read_and_ctrl_c_ends_that(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("The quick brown fox jumps over the lazy dog. " * 700)
    command = f"{' '.join(COMMAND)} -t 0 Summarize. < {tmp_path}/long.txt; echo status $?"
    shell = pexpect.spawn(
        "bash", ["-c", command], cwd=str(ROOT), encoding="utf-8", timeout=60, dimensions=(24, 80)
    )
    shell.expect("reading the prompt [━╌]+ [0-9]+% of 7,[0-9]{3} tokens … [0-9]+ s")
    shell.sendintr()
    shell.expect_exact("stopped before the first word")
    shell.expect("status 130")
    shell.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[pexpect.spawn]:
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path),
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "30",
    }
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "-t", "0", "--ctx", "2048"],
        cwd=str(ROOT),
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(30, 100),
    )
    yield child
    child.close(force=True)


def test_a_conversation(terminal: pexpect.spawn, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    terminal.expect("SmolLM2-135M-Instruct")
    terminal.expect("Ask anything")

    terminal.send("List fifty animals, one a line.\r")
    terminal.expect_exact("one a line.")
    terminal.expect("[a-z]\r\n")  # a whole line of the answer
    terminal.sendintr()
    terminal.expect("stopped")
    terminal.expect("tok/s")

    terminal.send("And what is your name?\r")
    terminal.expect("[0-9] tok/s(, [0-9.]+ times plain)?\x1b")

    terminal.send("/st")
    terminal.expect("what the answers so far cost")  # the completion says what it is
    terminal.send("\t\r")
    terminal.expect("all 2")
    terminal.expect("prompt tokens +([0-9]+) +")
    prompt = int(terminal.match.group(1))
    terminal.expect("of them cached +([0-9]+) +")
    cached = int(terminal.match.group(1))
    assert cached > 30  # the first exchange
    assert prompt - cached < 30  # only what is new
    terminal.expect("tokens/s")

    terminal.send("/nonsense\r")
    terminal.expect("error: no command /nonsense")
    terminal.send("/save /no/such/place/x.json\r")
    terminal.expect("error: cannot save to /no/such/place/x.json: No such file")
    terminal.send(f"/save {saved}\r")
    terminal.expect("saved 4 messages")

    terminal.send("half a line\x03")  # Ctrl-C clears it
    terminal.send("\x03")
    terminal.expect("Ctrl-D leaves")
    terminal.send("\x04")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus == 0
    roles = [message["role"] for message in json.loads(saved.read_text())["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert "And what is your name?" in (tmp_path / "mtp-chat" / "history").read_text()


def test_what_a_file_recommends_and_does_not_get_is_said(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys |= {
        "general.sampling.temp": "warm",
        "general.sampling.mirostat": 2,
        "general.sampling.mirostat_tau": 4.5,
    }
    model = str(spec.write(tmp_path / "model.gguf"))
    command = [*COMMAND, "-m", model, "--raw", "-n", "2", "th"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, text=True)
    assert done.returncode == 0
    assert "general.sampling.temp: expected a number, found 'warm'; it is left out" in done.stderr
    said = "recommends what is not followed here: mirostat 2, mirostat_tau 4.5, mirostat_eta 0.1"
    assert f"model {said}" in done.stderr
    greedy = subprocess.run([*command, "-t", "0"], capture_output=True, cwd=ROOT, timeout=120)
    assert b"mirostat" not in greedy.stderr


def test_what_will_not_fit_into_memory_is_said_before_it_is_loaded() -> None:
    done = subprocess.run(
        [*COMMAND, "--ctx", "50000000", "Hi"], capture_output=True, text=True, timeout=120
    )
    warning, *_waiting, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(r"SmolLM2-135M-Instruct\.Q4_1 takes about [\d.]+ TB of memory, and", warning)
    assert "it cannot be held" in warning
    assert error.startswith("error: ")


def test_a_prompt_that_was_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "long.txt").write_text(" ".join(f"Item {n} is blue." for n in range(60)))
    args = ("-f", str(tmp_path / "long.txt"), "-n", "8", "--json", "What is blue?")
    first, second, without = (
        json.loads(run(*more, *args).stdout)
        for more in (["--cache-prompt"], ["--cache-prompt"], [])
    )
    assert [answer["cached_tokens"] for answer in (first, without)] == [0, 0]
    assert second["cached_tokens"] == second["prompt_tokens"] - 1 > 256
    assert first["tokens"] == second["tokens"] == without["tokens"]
    (kept,) = (tmp_path / "cache").rglob("*.prompt")
    assert kept.stat().st_size < 60_000 * second["prompt_tokens"]


def test_prompts_that_find_no_place_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache/mtp-cli").mkdir(parents=True)
    (tmp_path / "cache/mtp-cli/prompts").write_text("in its place")
    text = " ".join(f"Item {n} is blue." for n in range(60))
    found = run("--cache-prompt", "-n", "4", stdin=text)
    assert found.returncode == 0
    assert b"error" not in found.stderr
    assert found.stderr.decode().count("--cache-prompt") == 1
    assert "the prompt is not kept" in " ".join(found.stderr.decode().split())
    assert found.stdout.strip()
