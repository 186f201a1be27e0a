"""One llama-server process with one setting, and its answers.

Owns starting, asking and ending it. Knows nothing of what the answers are compared with.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from mtp_cli.errors import MtpError

HOST = "127.0.0.1"
START_S, ANSWER_S, STOP_S = 300.0, 600.0, 10.0


@dataclass(frozen=True)
class Answer:
    """tokens_per_s: of decoding, without the prompt's pass and the token it gives."""

    tokens: list[int]
    tokens_per_s: float
    verified: int
    accepted: int


@dataclass(frozen=True)
class Setting:
    """What of llama-server's options differs from its defaults."""

    name: str
    options: tuple[str, ...] = ()

    @classmethod
    def draft_mtp(cls, name: str, n_max: int | None = None, p_min: float | None = None) -> Setting:
        options = ["--spec-type", "draft-mtp"]
        if n_max is not None:
            options += ["--spec-draft-n-max", str(n_max)]
        if p_min is not None:
            options += ["--spec-draft-p-min", str(p_min)]
        return cls(name, tuple(options))

    @classmethod
    def draft_model(cls, path: Path, n_max: int) -> Setting:
        options = ("--spec-type", "draft-simple", "--spec-draft-model", str(path))
        return cls(f"draft model n-max {n_max}", (*options, "--spec-draft-n-max", str(n_max)))


PLAIN = Setting("plain")
DEFAULTS = Setting.draft_mtp("draft-mtp defaults")
DEPTHS = (1, 2, 3, 4)
SETTINGS = (
    PLAIN,
    DEFAULTS,
    *(Setting.draft_mtp(f"depth {n}", n) for n in DEPTHS),
    *(Setting.draft_mtp(f"n-max {n} p-min {p}", n, p) for n, p in ((3, 0.5), (3, 0.8), (8, 0.8))),
)

# For a file without heads: its ways to copy, at their defaults.
NGRAMS = tuple(
    Setting(kind, ("--spec-type", kind))
    for kind in ("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
)
DRAFT_MODEL_N_MAX = (3, 8)  # its default, and as far as it may pay


def settings_without_heads(draft_model: Path | None) -> tuple[Setting, ...]:
    drafting = (
        []
        if draft_model is None
        else [Setting.draft_model(draft_model, n) for n in DRAFT_MODEL_N_MAX]
    )
    return PLAIN, *NGRAMS, *drafting


def parse_answer(body: Mapping[str, Any]) -> Answer:
    """An answer of POST /completion; MtpError when it lacks what is measured."""
    timings, tokens = body.get("timings"), body.get("tokens")
    if not isinstance(timings, dict) or not isinstance(tokens, list):
        raise MtpError(f"llama-server's answer has no timings or tokens: {str(body)[:200]}")
    speed = timings.get("predicted_per_second")
    if not isinstance(speed, int | float):
        raise MtpError("llama-server's timings have no predicted_per_second")
    verified, accepted = (int(timings.get(key, 0)) for key in ("draft_n", "draft_n_accepted"))
    return Answer(tokens, float(speed), verified, accepted)


class Client:
    """Asks a llama-server that runs somewhere."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def answer(self, prompt: Sequence[int], max_tokens: int) -> Answer:
        """Greedy, by the one sampler that needs no sorting, which is the fastest it has."""
        asked = {
            "prompt": list(prompt), "n_predict": max_tokens, "samplers": ["top_k"], "top_k": 1,
            "temperature": 0, "return_tokens": True, "stream": False,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/completion",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
                return parse_answer(json.load(response))
        except urllib.error.HTTPError as error:
            raise MtpError(f"llama-server refused: {error.read(300).decode()}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MtpError(f"llama-server gave no answer: {error}") from None


_Running = TypeVar("_Running", bound="Running")


class Running:
    """A server's process, from when it is ready; a context manager, which ends it whatever happens.

    name: for people; port: where it is asked
    """

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path) -> None:
        self._name = name
        self._log = log
        self.client = Client(port)
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
                )
        except OSError as error:
            raise MtpError(f"{command[0]}: {error.strerror}") from None

    def __enter__(self: _Running) -> _Running:
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.client.is_ready():
            if self._process.poll() is not None:
                raise MtpError(f"{self._name} ended at once: {self._last_words()}")
            if time.monotonic() > deadline:
                raise MtpError(f"{self._name} was not ready after {START_S:.0f} s")
            time.sleep(0.1)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """Ask it to end; end it if it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Server(Running):
    """A running llama-server."""

    def __init__(
        self, binary: Path, model: Path, setting: Setting, *, n_ctx: int, n_threads: int, log: Path
    ) -> None:
        self.setting = setting
        port = free_port()
        command = [str(binary), "--model", str(model), "--ctx-size", str(n_ctx),
                   "--threads", str(n_threads), "--parallel", "1", "--host", HOST,
                   "--port", str(port), *setting.options]  # fmt: skip
        super().__init__("llama-server", command, port, log)


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])
