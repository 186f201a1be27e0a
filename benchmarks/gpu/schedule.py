"""Runs stages one after another, each in a process of its own, within a time that holds.

Owns what each may take, and what a run has when it is cut off. Loads no llama.cpp: a stage may
crash, and this must not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_cli.whole_file import write_whole

# Of the time that is left, by stage, beside those of the stages to come. What says the most comes
# first: a run may be cut off.
SHARES = {
    "machine": 1.0,
    "lossless": 10.0,
    "built-in": 7.0,
    "heads-on-cpu": 5.0,
    "first-token": 3.0,
    "4B-bf16": 8.0,
    "14B-q4_k": 10.0,
    "14B-bf16": 12.0,
    "4B-q4_k": 8.0,
}

RESERVE_S = 4.0  # for the table, and for what a killed process takes to end
_GRACE = 1.5  # of a stage's share it may take, so that one late piece is not lost
_POLL_S = 0.25

Command = Callable[[str, float, Path], list[str]]
Found = dict[str, Any]


@dataclass
class Run:
    """A run's whole result, which is in `path` at every moment.

    seconds: that all of it may take
    grace_s: that a stage may take beyond its share
    """

    path: Path
    seconds: float
    head: Found
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self.stages: dict[str, Found] = {}

    @property
    def left_s(self) -> float:
        return max(0.0, self.seconds - RESERVE_S - (time.monotonic() - self._started))

    def write(self) -> None:
        took_s = time.monotonic() - self._started
        holds_for = self.stages.get("machine", {}).get("found", {}).get("machine", {})
        content = {**holds_for, **self.head, "took_s": round(took_s, 1), "stages": self.stages}
        write_whole(self.path, json.dumps(content, indent=1) + "\n", is_durable=False)


def run_all(
    run: Run, shares: Mapping[str, float], command: Command, folder: Path,
    environment: Mapping[str, str], tell: Callable[[str], None],
) -> None:  # fmt: skip
    """All stages, as far as the time goes; where the first one fails, no other.

    shares: of the time that is left, by stage, beside those of the stages to come
    command: a stage's, by its name, its seconds and the file that it writes
    """
    names = list(shares)
    for done, name in enumerate(names):
        seconds = run.left_s * shares[name] / sum(shares[n] for n in names[done:])
        if run.left_s == 0:
            run.stages[name] = {"status": "no time was left", "found": {}}
            continue
        tell(f"{name}: about {seconds:.0f} s")
        out, log = folder / f"{name}.json", folder / f"{name}.log"
        most_s = min(run.left_s, _GRACE * seconds + run.grace_s)
        status = _one(run, name, command(name, seconds, out), most_s, environment, out, log)
        if status != "done":
            tell(f"{name}: {status}\n{_tail(log)}")
        if done == 0 and (status != "done" or "error" in _first(run.stages[name]["found"])):
            raise MtpError(_first(run.stages[name]["found"]).get("error", f"{name}: {status}"))


def _one(
    run: Run, name: str, command: list[str], most_s: float, environment: Mapping[str, str],
    out: Path, log: Path,
) -> str:  # fmt: skip
    """One stage to its end, or to the end of its time; how it ended."""
    started = time.monotonic()
    entry: Found = {"status": "running", "most_s": most_s, "found": {}}
    run.stages[name] = entry
    with log.open("wb") as said:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=dict(environment),
            start_new_session=True,
        )  # fmt: skip
        try:
            status = _wait(child, run, entry, out, started + most_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    entry |= {"status": status, "took_s": time.monotonic() - started, "found": _read(out)}
    if status != "done":
        entry["said"] = _tail(log)
    run.write()
    return status


def _wait(child: subprocess.Popen[bytes], run: Run, entry: Found, out: Path, ends: float) -> str:
    seen = 0.0
    while child.poll() is None:
        if time.monotonic() > ends:
            return "stopped at the end of its time"
        time.sleep(_POLL_S)
        changed = out.stat().st_mtime if out.exists() else 0.0
        if changed > seen:
            seen, entry["found"] = changed, _read(out)
            run.write()
    return "done" if child.returncode == 0 else f"ended with status {child.returncode}"


def _read(out: Path) -> Found:
    return dict(json.loads(out.read_text())) if out.exists() else {}


def _first(found: Found) -> Found:
    return next(iter(found.values()), {})


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
