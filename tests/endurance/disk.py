"""A disk that is full, or fills while it is written: one error line, no half file, nothing lost.

    python -m tests.endurance.disk --count 50

A tmpfs of its own, in a mount namespace of its own, is filled at so many places of convert, graft,
pack and mtp-train, of saving a conversation and of the caches. It needs root or user namespaces
(Linux), and says so where it has neither.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mtp_cli.conversation import saved
from mtp_cli.errors import MtpError
from tests.endurance.writing import (
    OUTPUT,
    Writer,
    digest,
    rerun_faults,
    training,
    writers,
    written_bytes,
)
from tests.engine import tiny

_INSIDE = "MTP_ENDURANCE_NAMESPACE"
_SLACK = 24 << 20  # bytes that the disk has beyond what the largest file takes
_BYSTANDER = "bystander"
_FILLER = "filler"
Fault = str


class Disk:
    """The small tmpfs. folder: empty but for a file that must stay as it is."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path = path
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(path)]
        subprocess.run(command, check=True)

    def empty(self) -> None:
        for found in self.path.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        (self.path / _BYSTANDER).write_text(_BYSTANDER)

    def fill(self, n_free: int = 0) -> None:
        """Leave so many bytes free, in whole pages."""
        with (self.path / _FILLER).open("ab") as filler:
            while (n_bytes := shutil.disk_usage(self.path).free - n_free) > 0:
                with contextlib.suppress(OSError):  # something else took a page meanwhile
                    os.posix_fallocate(filler.fileno(), filler.tell(), n_bytes)
                    filler.seek(0, os.SEEK_END)

    def relieve(self) -> None:
        (self.path / _FILLER).unlink()

    def faults(self, *allowed: str) -> list[Fault]:
        """Other files than the bystander, the filler and those allowed."""
        is_kept = (self.path / _BYSTANDER).read_text() == _BYSTANDER
        found = {path.name for path in self.path.iterdir()}
        left = sorted(found - {_BYSTANDER, _FILLER, *allowed})
        return ([] if is_kept else ["a bystander is lost"]) + ([f"leaves {left}"] if left else [])


def convert(disk: Disk, writer: Writer, random: Random) -> list[Fault]:
    """Full from the start, or from some place of the file on."""
    place = int(random.random() * 0.95 * writer.n_bytes)
    is_full_before = random.random() < 0.3
    if is_full_before:
        disk.fill(place)
    process = writer.start(disk.path, preexec_fn=lambda: os.nice(15))  # so that it can be caught
    while not is_full_before and process.poll() is None:
        if written_bytes(writer, disk.path) > 0:
            process.send_signal(signal.SIGSTOP)
            disk.fill(max(0, place - written_bytes(writer, disk.path)))
            process.send_signal(signal.SIGCONT)
            break
        time.sleep(0.0005)
    _, said = process.communicate()
    if process.returncode == 0 and digest(disk.path / OUTPUT) == writer.digest:
        return ["TOO LATE"]
    errors = [line for line in said.splitlines() if "error" in line.lower()]
    faults = disk.faults()
    if process.returncode != 1 or len(errors) != 1 or "Traceback" in said:
        faults.append(f"exits with {process.returncode}: {said.strip()[-300:]}")
    disk.relieve()
    return faults + rerun_faults(writer, disk.path, frozenset({_BYSTANDER}))


def train(disk: Disk, step: Any, random: Random) -> list[Fault]:
    """One of mtp-train's steps, with room for a part of what it writes."""
    folder = disk.path / "training"
    step.prepare(folder)
    disk.fill(int(random.random() * 0.9 * step.n_bytes))
    _, said = (process := step.process(folder)).communicate()
    errors = [line for line in said.splitlines() if line.startswith("error")]
    faults = disk.faults(folder.name)
    if process.returncode != 1 or len(errors) != 1 or "Traceback" in said:
        faults.append(f"exits with {process.returncode}: {said.strip()[-300:]}")
    left = step.unfinished(folder)
    faults += [f"leaves {left.name}"] if left else []
    disk.relieve()
    return [*faults, *step.faults(folder)]


def save(disk: Disk, random: Random) -> list[Fault]:
    """A conversation over an older one, which stays where there is no room for both."""
    path = disk.path / "talk.json"
    saved.save(path, _conversation("old"))
    before = path.read_bytes()
    disk.fill(random.choice((0, 4096, 65536)))
    try:
        saved.save(path, _conversation("new " * 100_000))
    except MtpError as error:
        is_line = "\n" not in str(error) and "No space left" in str(error)
        faults = [] if is_line else [f"says {error}"]
    else:
        faults = ["saves more than there is room for"]
    faults += [] if path.read_bytes() == before else ["the older conversation is lost"]
    return faults + disk.faults(path.name)


def _conversation(text: str) -> saved.Conversation:
    messages: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]
    return saved.Conversation(None, messages, "x", {})


def caches(disk: Disk, model: Path, random: Random) -> list[Fault]:
    """An answer comes all the same, and what is in the caches can be read."""
    cache = disk.path / "cache"
    (cache / "mtp-cli").mkdir(parents=True)
    disk.fill(random.choice((0, 0, 4096)))
    command = [sys.executable, "-m", "mtp_cli.chat", "-m", str(model), "--raw", "-n", "3", "th"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    faults = [] if done.returncode == 0 and done.stdout else [f"no answer: {done.stderr[-300:]}"]
    found = (path for path in cache.rglob("*") if path.is_file())
    faults += [f"leaves {p.name}" for p in found if p.suffix != ".json" or not _is_json(p)]
    return faults + disk.faults(cache.name)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def answer(disk: Disk, model: Path, _random: Random) -> list[Fault]:
    """An answer into a file on the full disk."""
    disk.fill()
    command = [sys.executable, "-m", "mtp_cli.chat", "-m", str(model), "--raw", "-n", "3", "th"]
    with (disk.path / "answer").open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    is_refused = done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr
    return [] if is_refused else [f"exits with {done.returncode}: {done.stderr[-300:]}"]


def namespaced() -> int | None:
    """Run this in a mount namespace of its own; None where this is the run inside."""
    if _INSIDE in os.environ:
        return None
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("skipped: no mount namespace can be made here (root or user namespaces are needed)")
        return 0
    command = [*unshare, sys.executable, "-m", "tests.endurance.disk", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.disk", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="places")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outside = namespaced()
    return _run(options) if outside is None else outside


def _run(options: argparse.Namespace) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as mounted:
        every = list(writers(Path(root)))
        model = tiny.llama().write(Path(root) / "tiny.gguf")
        trained = training(Path(root))
        jobs: list[tuple[str, Callable[[Disk, Random], list[Fault]]]] = [
            *((w.name, lambda disk, random, w=w: convert(disk, w, random)) for w in every),
            *((s.name, lambda disk, random, s=s: train(disk, s, random)) for s in trained),
            ("save", save),
            ("caches", lambda disk, random: caches(disk, model, random)),
            ("answer", lambda disk, random: answer(disk, model, random)),
        ]
        disk = Disk(Path(mounted), max(w.n_bytes for w in every) + _SLACK)
        for index in range(options.count):
            name, job = jobs[index % len(jobs)]
            disk.empty()
            faults = job(disk, Random(f"{options.seed}:{index}"))
            for fault in faults:
                counts[name, "too late" if fault == "TOO LATE" else "FAULT"] += 1
                if fault != "TOO LATE":
                    print(f"FAULT {name}, place {index}: {fault}")
            counts[name, "as it should be"] += not faults
            if index % 10 == 9:
                print(f"{index + 1} of {options.count} places", file=sys.stderr)
        subprocess.run(["umount", mounted], check=True)
    for (name, what), n in sorted(counts.items()):
        print(f"{name:10} {what:20} {n:5}")
    return int(any(what == "FAULT" and n for (_, what), n in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
