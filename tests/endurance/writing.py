"""What writes files: commands that take long enough to be interrupted, and what they should leave.

Owns their input, made once. Knows nothing of how they are interrupted.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli import models
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert import checkpoints, checkpoints_mtp
from tests.convert.checkpoints import EMBD, Tiny

OUTPUT = "out.gguf"
_WIDE = 24_576  # FFN rows, so that a file has some 60 MB and takes a while
_POLL_S = 0.001


@dataclass(frozen=True)
class Writer:
    """A command that writes OUTPUT into the folder it is started for.

    digest, n_bytes: of the file that an undisturbed run leaves
    whole_s, writing_s: what that run took, and how long its temporary file was there
    """

    name: str
    arguments: tuple[str, ...]
    digest: str = ""
    n_bytes: int = 0
    whole_s: float = 0.0
    writing_s: float = 0.0

    def start(self, folder: Path, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mtp_convert.cli", *self.arguments]
        return subprocess.Popen(
            [*command, "-o", str(folder / OUTPUT)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
            **options,
        )


def writers(root: Path) -> Iterator[Writer]:
    """Each of them, after an undisturbed run."""
    plain = checkpoints.write_checkpoint(root / "plain", _widened(checkpoints.smollm()))
    headed = checkpoints.write_checkpoint(root / "headed", _widened(checkpoints_mtp.qwen35()))
    target = root / "target.gguf"
    write(plan_checkpoint(open_checkpoint(headed), Options("target")), target)
    yield _tried(root, "convert", str(plain), "--outtype", "f32")
    yield _tried(root, "graft", str(target), str(headed))
    heads = models.built_in_heads()
    if heads is not None:
        yield _tried(root, "pack", str(models.built_in_model()), str(heads))


def _widened(tiny: Tiny) -> Tiny:
    tiny.config["intermediate_size"] = _WIDE
    for name in [name for name in tiny.tensors if ".mlp." in name]:
        is_down = "down_proj" in name
        tiny.matrix(name, *((EMBD, _WIDE) if is_down else (_WIDE, EMBD)))
    return tiny


def _tried(root: Path, name: str, *arguments: str) -> Writer:
    folder = root / "undisturbed"
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    process = Writer(name, (name, *arguments)).start(folder)
    began = ended = None
    while process.poll() is None:
        if temporary(folder) is not None:
            began = began or time.perf_counter()
            ended = time.perf_counter()
        time.sleep(_POLL_S)
    whole_s = time.perf_counter() - started
    _, said = process.communicate()
    if process.returncode or began is None or ended is None:
        raise SystemExit(f"{name}: an undisturbed run fails: {said}")
    out = folder / OUTPUT
    found = Writer(
        name, (name, *arguments), digest(out), out.stat().st_size, whole_s, ended - began
    )
    out.unlink()
    return found


def temporary(folder: Path) -> Path | None:
    """The unfinished file, while there is one."""
    return next(folder.glob(f".{OUTPUT}.*.tmp"), None)


def written_bytes(folder: Path) -> int:
    """How much of the unfinished file is there; -1 where there is none."""
    found = temporary(folder)
    try:
        return -1 if found is None else found.stat().st_size
    except FileNotFoundError:
        return -1


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rerun_faults(writer: Writer, folder: Path, beside: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong after the command is run once more: it must leave its file and nothing else.

    beside: names of files that belong there
    """
    _, said = (process := writer.start(folder)).communicate()
    if process.returncode:
        return [f"the rerun exits with {process.returncode}: {said.strip()[-200:]}"]
    faults = []
    if digest(folder / OUTPUT) != writer.digest:
        faults.append("the rerun writes other bytes")
    left = {path.name for path in folder.iterdir()} - {OUTPUT} - beside
    return faults + ([f"the rerun leaves {sorted(left)}"] if left else [])
