"""The command: one line for what is wrong at the start, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from mtp_cli.serve.run import cache_bytes
from tests.chat.scripted import CHATML
from tests.engine import tiny
from tests.serve.process import COMMAND, Served


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = CHATML
    return spec.write(tmp_path_factory.mktemp("serve") / "tiny.gguf")


def started(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], env={**os.environ, "COLUMNS": "1000", "NO_COLOR": "1", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "/nowhere.gguf"], "/nowhere.gguf"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid:8080"),
        (["--chat-template", "/nowhere.jinja"], "cannot read /nowhere.jinja"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_line(options: list[str], said: str) -> None:
    done = started(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_a_port_that_is_taken_shows_before_the_model_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = started("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Address already in use (--port gives another" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [["--port", "70000"], ["--depth", "9"], ["--api-key", ""], ["--api-key", "k\u00e9y"],
     ["--template-var", "x"], ["--template-var", "x=\udcff"], ["--queue", "-1"]],
)  # fmt: skip
def test_wrong_usage_is_told_at_once(options: list[str]) -> None:
    done = started(*options)
    assert done.returncode == 2
    assert "Usage: mtp-serve" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_an_answer(model: Path, number: int) -> None:
    with Served("--model", str(model), "--ctx", "100000") as served:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "temperature": 0}
        request = urllib.request.Request(
            f"{served.url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.readline()
            assert served.end(number) == 0
            assert b"the server stopped this answer" in answer.read()
    assert len(served.lines) == 1


def test_it_says_where_it_is_and_what_drafts(model: Path) -> None:
    with Served("--model", str(model), "--host", "0.0.0.0") as served:
        assert served.end() == 0
    assert served.lines == [
        "without --api-key everyone who reaches this machine can ask",
        f"tiny at http://0.0.0.0:{served.port}/v1, drafting where text repeats itself; "
        "Ctrl-C stops",
    ]
    with Served("--model", str(model), "--depth", "0", "--alias", "other") as served:
        assert served.end() == 0
    assert served.lines[0].startswith("other at http://127.0.0.1:")
    assert served.lines[0].endswith("/v1, without drafting; Ctrl-C stops")


def test_clients_that_take_turns_find_their_conversations(model: Path) -> None:
    """Two conversations, longer than is read again without a thought, over one timeline."""
    with Served("--model", str(model), "--ctx", "2048") as served:

        def cached(text: str) -> int:
            body = json.dumps({"prompt": text, "max_tokens": 4, "temperature": 0}).encode()
            request = urllib.request.Request(
                f"{served.url}/completions", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                usage = json.loads(answer.read())["usage"]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

        first, second = "abc " * 100, "xyz " * 100
        assert [cached(first), cached(second)] == [0, 0]
        assert cached(first + "and") >= 399
        assert cached(second + "and") >= 399


def test_memory_for_conversations_is_what_was_asked_for() -> None:
    assert cache_bytes(64) == 64 << 20
    assert cache_bytes(0) == 0
    assert cache_bytes(None) > 1 << 20


def test_a_second_signal_does_not_wait(model: Path) -> None:
    """For a reader that takes nothing of its answer, and so would keep the server for seconds."""
    with Served("--model", str(model), "--ctx", "100000") as served:
        body = json.dumps({"prompt": "x", "stream": True, "temperature": 0})
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {served.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((served.host, served.port)) as raw:
            raw.sendall((head + body).encode())
            raw.recv(10)
            threading.Timer(0.5, lambda: served.process.send_signal(signal.SIGINT)).start()
            assert served.end(signal.SIGINT) == 0
