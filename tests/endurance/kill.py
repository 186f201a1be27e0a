"""SIGKILL at random moments of convert, graft, pack and mtp-train: nothing lost, a rerun ends well.

    python -m tests.endurance.kill --count 300

Half of the moments are anywhere in a command's run, half while it writes. After each the final name
has no file, or the whole one; no process is left; and the same command run again leaves what an
undisturbed run leaves, and nothing else. mtp-train needs PyTorch, and is left out without.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Protocol

from tests.endurance.writing import going_on, training, writers


class Command(Protocol):
    """What is killed: the seconds are those of an undisturbed run."""

    @property
    def name(self) -> str: ...
    @property
    def whole_s(self) -> float: ...
    @property
    def writing_s(self) -> float: ...
    def start(self, folder: Path) -> subprocess.Popen[str]: ...
    def unfinished(self, folder: Path) -> Path | None: ...
    def faults(self, folder: Path) -> list[str]: ...


def killed(command: Command, folder: Path, random: Random) -> tuple[str, list[str]]:
    """Start it and kill it; where it was then, and whether a process is left."""
    process = command.start(folder)
    is_writing = random.random() < 0.5
    limit = time.monotonic() + 300
    while is_writing and command.unfinished(folder) is None and process.poll() is None:
        if time.monotonic() > limit:
            raise SystemExit(f"{command.name}: began no file within five minutes")
        time.sleep(0.0005)
    _wait(process, random.uniform(0, command.writing_s if is_writing else command.whole_s))
    was_over = process.poll() is not None
    process.kill()
    process.communicate()
    left = left_processes(folder)
    if was_over:
        return "over", left
    where = "written in part" if command.unfinished(folder) else "before or after writing"
    return where, left


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def left_processes(folder: Path, within_s: float = 20.0) -> list[str]:
    """What goes on of a killed command: it must see that it is alone."""
    until = time.monotonic() + within_s
    while (left := going_on(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    return [f"a process is left: {line}" for line in left]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.kill", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as root:
        every: list[Command] = [*writers(Path(root)), *training(Path(root))]
        for index in range(options.count):
            random, command = Random(f"{options.seed}:{index}"), every[index % len(every)]
            with tempfile.TemporaryDirectory(dir=root) as folder:
                where, left = killed(command, Path(folder), random)
                counts[command.name, where] += 1
                for fault in [*left, *command.faults(Path(folder))]:
                    counts[command.name, "FAULT"] += 1
                    print(f"FAULT {command.name}, kill {index}: {fault}", flush=True)
            if index % 10 == 9:
                print(f"{index + 1} of {options.count} kills", file=sys.stderr)
    for (name, what), n in sorted(counts.items()):
        print(f"{name:10} {what:25} {n:5}")
    return int(any(what == "FAULT" for _, what in counts))


if __name__ == "__main__":
    sys.exit(main())
