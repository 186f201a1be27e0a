"""SIGKILL at random moments of convert, graft and pack: no half file, and a rerun puts it right.

    python -m tests.endurance.kill --count 300

Half of the moments are anywhere in a command's run, half while it writes. After each the final name
has no file, or the whole one, and the same command run again leaves its file with the same bytes,
and nothing else. Training is left out: it takes minutes to come to its first checkpoint.
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

from tests.endurance.writing import OUTPUT, Writer, digest, rerun_faults, temporary, writers


def killed(writer: Writer, folder: Path, random: Random) -> str:
    """Start it and kill it; where it was then."""
    process = writer.start(folder)
    is_writing = random.random() < 0.5
    limit = time.monotonic() + 60
    while is_writing and temporary(folder) is None and process.poll() is None:
        if time.monotonic() > limit:
            raise SystemExit(f"{writer.name}: began no file within a minute")
        time.sleep(0.0005)
    _wait(process, random.uniform(0, writer.writing_s if is_writing else writer.whole_s))
    was_over = process.poll() is not None
    process.kill()
    process.communicate()
    if was_over:
        return "over"
    return "written in part" if temporary(folder) is not None else "before or after writing"


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def faults_after(writer: Writer, folder: Path) -> list[str]:
    out = folder / OUTPUT
    faults = []
    if out.exists() and digest(out) != writer.digest:
        faults.append("a half file under the final name")
    return faults + rerun_faults(writer, folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.kill", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as root:
        every = list(writers(Path(root)))
        for index in range(options.count):
            random, writer = Random(f"{options.seed}:{index}"), every[index % len(every)]
            with tempfile.TemporaryDirectory(dir=root) as folder:
                counts[writer.name, killed(writer, Path(folder), random)] += 1
                for fault in faults_after(writer, Path(folder)):
                    counts[writer.name, "FAULT"] += 1
                    print(f"FAULT {writer.name}, kill {index}: {fault}")
            if index % 10 == 9:
                print(f"{index + 1} of {options.count} kills", file=sys.stderr)
    for (name, what), n in sorted(counts.items()):
        print(f"{name:10} {what:25} {n:5}")
    return int(any(what == "FAULT" for _, what in counts))


if __name__ == "__main__":
    sys.exit(main())
