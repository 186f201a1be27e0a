"""Asks somebody's llama-bench for prompts of a few tokens, or to write some, by its own clock.

Owns calling it and reading what it prints. Knows nothing of what its numbers are compared with.
Whatever descends from llama.cpp and takes its options will do; all others stay at its defaults.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mtp_cli.errors import MtpError

Milliseconds = dict[int, list[float]]  # of each run, by tokens of the prompt


def prompts_ms(
    binary: Path, model: Path, n_tokens: Sequence[int], n_threads: int, repetitions: int
) -> Milliseconds:
    """What prompts of so many tokens take. Raises MtpError where it gives no answer."""
    wanted = ("-p", ",".join(map(str, n_tokens)), "-n", "0")
    return parsed(_asked(binary, model, wanted, n_threads, repetitions), n_tokens)


def written_per_s(binary: Path, model: Path, n_tokens: int, n_threads: int) -> float:
    """Tokens a second of one text of so many. Raises MtpError where it gives no answer."""
    text = _asked(binary, model, ("-p", "0", "-n", str(n_tokens)), n_threads, 1)
    try:
        return float(json.loads(text)[0]["avg_ts"])
    except (LookupError, TypeError, ValueError):
        raise MtpError("llama-bench printed no JSON of its run's speed") from None


def _asked(
    binary: Path, model: Path, wanted: Sequence[str], n_threads: int, repetitions: int
) -> str:
    """What it prints."""
    command = [str(binary), "-m", str(model), *wanted, "-t", str(n_threads),
               "-r", str(repetitions), "-o", "json"]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise MtpError(f"{binary}: {error.strerror}; --peer-bench wants a llama-bench") from None
    if done.returncode != 0:
        raise MtpError(f"{binary} ended with status {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout


def parsed(text: str, n_tokens: Sequence[int]) -> Milliseconds:
    """What llama-bench printed with `-o json`."""
    try:
        found = {
            int(one["n_prompt"]): [float(ns) / 1e6 for ns in one["samples_ns"]]
            for one in json.loads(text)
        }
    except (KeyError, TypeError, ValueError):
        raise MtpError("llama-bench printed no JSON of its runs' times") from None
    missing = [n for n in n_tokens if not found.get(n)]
    if missing:
        raise MtpError(f"llama-bench gave no time of a prompt of {missing[0]} tokens")
    return found


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
