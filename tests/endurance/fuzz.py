"""Damaged files through every reader of ours: an answer or one MtpError, never anything else.

    python -m tests.endurance.fuzz --count 2000000

Input i of a seed is always the same: `--seed S --from I --count 1` shows it again, and a run that
was stopped goes on with `--from`. Inputs are read in a child, which is restarted when it dies or
hangs, and may want only so much memory. A death inside ggml's own parser is counted as llama.cpp's:
the product examines files in a child for that reason. One run keeps one core busy; run a seed on
each.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.endurance.readers import Reader, Scratch, all_readers, check_valid, outcome

# One input takes a few hundredths of a second; a processor's time, since a machine may be busy.
LIMIT_S = 20.0
MOST_BYTES = 1 << 31  # that a child may have beyond what it starts with
_POLL_S, _SAY_S = 0.2, 10.0
_MOST_WAITS = 3000  # polls without an end, of a child that uses no processor either
_OURS = ("mtp_cli", "mtp_convert")
_READ, _REFUSED, _FAULT, _CRASH, _SLOWEST_US, _GROWN = range(6)  # of a reader's row in Shared


class Shared:
    """What parent and child both see: the input that is being read, and a row for each reader.

    In memory of both, since a message for each input takes as long as many an input.
    """

    def __init__(self, readers: Sequence[Reader], first: int) -> None:
        self.names = [reader.name for reader in readers]
        self._index = RawArray("q", [first])
        self._rows = {name: RawArray("q", 6) for name in self.names}

    @property
    def index(self) -> int:
        return int(self._index[0])

    @index.setter
    def index(self, value: int) -> None:
        self._index[0] = value

    def row(self, reader: Reader) -> Any:
        """Its counts, by the names above."""
        return self._rows[reader.name]


class Inputs:
    """The inputs of one seed."""

    def __init__(self, readers: Sequence[Reader], seed: int) -> None:
        self.readers, self.seed = readers, seed
        self._turns = [reader for reader in readers for _ in range(reader.share)]

    def reader(self, index: int) -> Reader:
        return self._turns[index % len(self._turns)]

    def write(self, index: int, scratch: Scratch) -> Path:
        """The folder that holds input `index`."""
        return scratch.damage(self.reader(index), Random(f"{self.seed}:{index}"))


def fault_line(error: BaseException) -> str:
    """An exception and the innermost of our lines that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"/{name}/" in f.filename for name in _OURS)]
    at = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno} ({at.line})"


def child(inputs: Inputs, shared: Shared, end: int, told: Connection) -> None:
    """Read the inputs from the shared one on; tell of each that is at fault."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ggml says there what is wrong with a file
    logging.disable()  # gguf-py, too
    gc.freeze()
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MOST_BYTES, own + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=inputs.readers[0].folder.parent) as root:
        scratch = Scratch(Path(root))
        for index in range(shared.index, end):
            shared.index = index
            fault = _read(inputs, index, scratch, shared)
            if fault:
                told.send((index, fault))
        shared.index = end


def _read(inputs: Inputs, index: int, scratch: Scratch, shared: Shared) -> str:
    """The fault, or ""; counted in the reader's row."""
    reader, before, started = inputs.reader(index), _peak_bytes(), time.process_time()
    row, fault = shared.row(reader), ""
    try:
        said = outcome(reader, inputs.write(index, scratch))
        row[_READ if said == "read" else _REFUSED] += 1
    except Exception as error:
        fault = fault_line(error)
        row[_FAULT] += 1
    row[_SLOWEST_US] = max(row[_SLOWEST_US], int(1e6 * (time.process_time() - started)))
    row[_GROWN] = max(row[_GROWN], _peak_bytes() - before)
    return fault


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Run:
    """One run over [first, end): children one after the other, and what they told."""

    def __init__(self, inputs: Inputs, first: int, end: int) -> None:
        self.inputs, self.end = inputs, end
        self.shared = Shared(inputs.readers, first)
        self.faults: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._said_s = time.monotonic()

    def go(self, until: float) -> None:
        """Until the end, or that time (`time.monotonic`)."""
        fork = multiprocessing.get_context("fork")
        while self.shared.index < self.end and time.monotonic() < until:
            ours, theirs = fork.Pipe(duplex=False)
            arguments = (self.inputs, self.shared, self.end, theirs)
            process = fork.Process(target=child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            try:
                why = self._listen(ours, psutil.Process(process.pid), until)
            finally:
                process.kill()
                process.join()
                ours.close()
            if why:
                self._died(why)

    def _listen(self, told: Connection, process: psutil.Process, until: float) -> str:
        """Take up what the child says; why it will say no more, "" where all is as it should be."""
        index, began_s, n_waits = -1, 0.0, 0
        while time.monotonic() < until:
            with contextlib.suppress(EOFError):
                while told.poll(_POLL_S):
                    self._take(*told.recv())
                n_waits += 1
                self._say_at_times()
                if self.shared.index != index:
                    index, began_s, n_waits = self.shared.index, _used_s(process), 0
                if n_waits > _MOST_WAITS or _used_s(process) - began_s > LIMIT_S:
                    return f"no end after {LIMIT_S:.0f} s"
                continue
            return "the process died" if self.shared.index < self.end else ""
        return ""

    def _take(self, index: int, fault: str) -> None:
        self.faults[self.inputs.reader(index).name, fault].append(index)

    def _died(self, why: str) -> None:
        index = self.shared.index
        reader = self.inputs.reader(index)
        if reader.is_native and why == "the process died":
            self.shared.row(reader)[_CRASH] += 1
        else:
            self.shared.row(reader)[_FAULT] += 1
            self._take(index, why)
        self.shared.index += 1

    def _say_at_times(self) -> None:
        if time.monotonic() - self._said_s > _SAY_S:
            self._said_s = time.monotonic()
            self.say()

    def say(self) -> None:
        n_faults = sum(map(len, self.faults.values()))
        n_crashes = sum(self.shared.row(reader)[_CRASH] for reader in self.inputs.readers)
        print(
            f"seed {self.inputs.seed}, next {self.shared.index:,} of {self.end:,}: {n_faults} "
            f"faults, {n_crashes} crashes of llama.cpp's",
            file=sys.stderr,
        )

    def show(self) -> None:
        """The summary."""
        names = ("reader", "inputs", "read", "refused", "llama.cpp's", "faults", "ms", "MB")
        print("{:25}{:>9}{:>9}{:>9}{:>12}{:>7}{:>8}{:>5}".format(*names))
        for reader in self.inputs.readers:
            read, refused, fault, crash, slowest_us, grown = self.shared.row(reader)
            print(
                f"{reader.name:25}{read + refused + fault + crash:9,}{read:9,}{refused:9,}"
                f"{crash:12,}{fault:7,}{slowest_us / 1000:8,.0f}{grown >> 20:5}"
            )
        for (name, said), indices in sorted(self.faults.items()):
            print(f"FAULT {name}: {said}: {len(indices)}, first --from {indices[0]}")

    def keep(self, folder: Path) -> None:
        """The first input of each fault, to look at."""
        for number, indices in enumerate(self.faults.values()):
            self.inputs.write(indices[0], Scratch(folder / f"{number}-{indices[0]}"))


def _used_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it is gone; the pipe says so, too
        return 0.0
    return float(times.user + times.system)


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
        inputs = Inputs(readers, options.seed)
        run = Run(inputs, options.first, options.first + options.count)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found is said
        with contextlib.suppress(KeyboardInterrupt):
            run.go(time.monotonic() + 60 * options.minutes)
        run.say()
        run.show()
        if options.keep:
            run.keep(options.keep)
    return int(bool(run.faults))


if __name__ == "__main__":
    sys.exit(main())
