"""Damaged files through every reader of ours: an answer or one MtpError, never anything else.

    python -m tests.endurance.fuzz --count 2000000

Input i of a seed is always the same: `--seed S --from I --count 1` shows it again, and a run that
was stopped goes on with `--from`. Inputs are read in a child, which is restarted when it dies or
hangs, and may want only so much memory. A death inside ggml's own parser is counted as llama.cpp's:
the product examines files in a child for that reason.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.endurance.readers import Reader, all_readers, check_valid, outcome

LIMIT_S = 20.0  # for one input: the slowest takes a few hundredths of a second
MOST_BYTES = 1 << 31  # that a child may have beyond what it starts with
_OURS = ("mtp_cli", "mtp_convert")


@dataclass(frozen=True)
class Told:
    """What the child says of one input. said: "read", "refused", or a fault in a line."""

    said: str
    seconds: float
    grown_bytes: int


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    grown_bytes: int = 0


def reader_of(readers: Sequence[Reader], index: int) -> Reader:
    return readers[index % len(readers)]


def damaged(readers: Sequence[Reader], seed: int, index: int, folder: Path) -> Reader:
    """Write input `index` into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    reader = reader_of(readers, index)
    reader.damage(Random(f"{seed}:{index}"), folder)
    return reader


def fault_line(error: BaseException) -> str:
    """An exception and the innermost of our lines that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"/{name}/" in f.filename for name in _OURS)]
    at = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno} ({at.line})"


def child(readers: Sequence[Reader], seed: int, first: int, end: int, told: Connection) -> None:
    """Read the inputs from `first` on, and tell of each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # ggml says there what is wrong with a file
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MOST_BYTES, own + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=readers[0].folder.parent) as scratch:
        folder = Path(scratch) / "input"
        for index in range(first, end):
            reader = damaged(readers, seed, index, folder)
            before, started = _peak_bytes(), time.perf_counter()
            try:
                said = outcome(reader, folder)
            except Exception as error:
                said = fault_line(error)
            told.send(Told(said, time.perf_counter() - started, _peak_bytes() - before))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Run:
    """One run over [first, end): children one after the other, and what they told."""

    def __init__(self, readers: Sequence[Reader], seed: int, first: int, end: int) -> None:
        self.readers, self.seed, self.next, self.end = readers, seed, first, end
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.faults: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.n_crashes = 0

    def go(self, until: float) -> None:
        """Until the end, or that time (`time.monotonic`)."""
        fork = multiprocessing.get_context("fork")
        while self.next < self.end and time.monotonic() < until:
            ours, theirs = fork.Pipe(duplex=False)
            arguments = (self.readers, self.seed, self.next, self.end, theirs)
            process = fork.Process(target=child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            try:
                why = self._listen(ours, until)
            finally:
                process.kill()
                process.join()
                ours.close()
            if why:
                self._died(why)

    def _listen(self, told: Connection, until: float) -> str:
        """Take up what the child says; why it will say no more, "" where all is as it should be."""
        said_s = time.monotonic()
        while self.next < self.end and time.monotonic() < until:
            if not told.poll(LIMIT_S):
                return f"no end after {LIMIT_S:.0f} s"
            try:
                self._take(told.recv())
            except EOFError:
                return "the process died"
            if time.monotonic() - said_s > 10:
                said_s = time.monotonic()
                self.say()
        return ""

    def _take(self, told: Told) -> None:
        reader = reader_of(self.readers, self.next)
        tally = self.tallies[reader.name]
        is_fault = told.said not in ("read", "refused")
        tally.counts["fault" if is_fault else told.said] += 1
        tally.slowest_s = max(tally.slowest_s, told.seconds)
        tally.grown_bytes = max(tally.grown_bytes, told.grown_bytes)
        if is_fault:
            self.faults[reader.name, told.said].append(self.next)
        self.next += 1

    def _died(self, why: str) -> None:
        reader = reader_of(self.readers, self.next)
        if reader.is_native and why == "the process died":
            self.tallies[reader.name].counts[_CRASH] += 1
            self.n_crashes += 1
        else:
            self.tallies[reader.name].counts["fault"] += 1
            self.faults[reader.name, why].append(self.next)
        self.next += 1

    def say(self) -> None:
        n_faults = sum(map(len, self.faults.values()))
        print(
            f"seed {self.seed}, next {self.next:,} of {self.end:,}: {n_faults} faults, "
            f"{self.n_crashes} crashes of llama.cpp's",
            file=sys.stderr,
        )

    def show(self) -> None:
        """The summary."""
        names = ("reader", "inputs", "read", "refused", "llama.cpp's", "faults", "ms", "MB")
        print("{:25}{:>9}{:>9}{:>9}{:>12}{:>7}{:>8}{:>5}".format(*names))
        for reader in self.readers:
            tally = self.tallies[reader.name]
            n = tally.counts
            print(
                f"{reader.name:25}{n.total():9,}{n['read']:9,}{n['refused']:9,}"
                f"{n[_CRASH]:12,}{n['fault']:7,}{1000 * tally.slowest_s:8,.0f}"
                f"{tally.grown_bytes >> 20:5}"
            )
        for (name, said), indices in sorted(self.faults.items()):
            print(f"FAULT {name}: {said}: {len(indices)}, first --from {indices[0]}")

    def keep(self, folder: Path) -> None:
        """The first input of each fault, to look at."""
        for number, indices in enumerate(self.faults.values()):
            with contextlib.suppress(OSError):
                damaged(self.readers, self.seed, indices[0], folder / f"{number}-{indices[0]}")


_CRASH = "llama.cpp's crash"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2_000_000, help="inputs")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="first", help="go on with this input")
    parser.add_argument("--keep", type=Path, help="a folder for the first input of each fault")
    options = parser.parse_args()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as root:
        readers = all_readers(Path(root))
        check_valid(readers)
        run = Run(readers, options.seed, options.first, options.first + options.count)
        with contextlib.suppress(KeyboardInterrupt):
            run.go(time.monotonic() + 60 * options.minutes)
        run.say()
        run.show()
        if options.keep:
            run.keep(options.keep)
    return int(bool(run.faults))


if __name__ == "__main__":
    sys.exit(main())
