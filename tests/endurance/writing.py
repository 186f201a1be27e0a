"""What writes files: commands that take long enough to be interrupted, and what they should leave.

Owns their input, made once. Knows nothing of how they are interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from mtp_cli import models
from mtp_cli.head_file import FUSION, KEY_HIDDEN, Fused
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import Taken
from mtp_convert.gguf.write import write
from tests.convert import checkpoints, checkpoints_mtp
from tests.convert.checkpoints import EMBD, Tiny

OUTPUT = "out.gguf"
_WIDE = 24_576  # FFN rows, so that a file has some 60 MB and takes a while
_POLL_S = 0.001
_MARK = "MTP_ENDURANCE_FOLDER"


def started(command: Sequence[str], folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A module of ours as a command, marked with the folder it writes into."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", _MARK: str(folder)},
        **options,
    )


def going_on(folder: Path) -> list[str]:
    """The processes that were started for a folder, by whatever started them, and still are."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder):
                found.append(" ".join(process.info["cmdline"] or ["?"])[:80])
    return found


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
        command = ["mtp_convert.cli", *self.arguments, "-o", str(folder / OUTPUT)]
        return started(command, folder, **options)

    def unfinished(self, folder: Path) -> Path | None:
        return next(folder.glob(f".{OUTPUT}.*.tmp"), None)

    def faults(self, folder: Path) -> list[str]:
        """What is wrong with what an interruption left, and after the command is run once more."""
        out = folder / OUTPUT
        is_half = out.exists() and digest(out) != self.digest
        return (["a half file under the final name"] if is_half else []) + rerun_faults(
            self, folder
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
        write(_of_one_row(open_model(heads)), root / "heads.gguf")
        yield _tried(root, "pack", str(models.built_in_model()), str(root / "heads.gguf"))


def _of_one_row(heads: GgufModel) -> Plan:
    """Heads without their fusion, as `pack` takes them; what they would draft is no matter."""
    file, fused = heads.file, Fused((1,)).metadata()
    pairs = {key: value for key, value in file.pairs.items() if key not in fused}
    names = [name for name in file.tensors if name not in FUSION]
    tensors = (Taken(file, name, name).planned(None) for name in names)
    return Plan({**pairs, KEY_HIDDEN: pair("pre_norm")}, tuple(tensors))


def training(root: Path) -> list[Any]:
    """mtp-train's steps (`training.Step`), where PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        print("mtp-train is left out: PyTorch is not installed", file=sys.stderr)
        return []
    from tests.endurance.training import steps

    return [*steps(root / "training")]


def _widened(tiny: Tiny) -> Tiny:
    tiny.config["intermediate_size"] = _WIDE
    for name in [name for name in tiny.tensors if ".mlp." in name]:
        is_down = "down_proj" in name
        tiny.matrix(name, *((EMBD, _WIDE) if is_down else (_WIDE, EMBD)))
    return tiny


def _tried(root: Path, name: str, *arguments: str) -> Writer:
    folder = root / "undisturbed"
    folder.mkdir(exist_ok=True)
    writer, started = Writer(name, (name, *arguments)), time.perf_counter()
    process = writer.start(folder)
    writing_s = watched(process, lambda: writer.unfinished(folder) is not None)
    whole_s = time.perf_counter() - started
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name}: an undisturbed run fails: {said}")
    out = folder / OUTPUT
    found = replace(
        writer,
        digest=digest(out),
        n_bytes=out.stat().st_size,
        whole_s=whole_s,
        writing_s=writing_s,
    )
    out.unlink()
    return found


def watched(process: subprocess.Popen[str], is_writing: Callable[[], bool]) -> float:
    """How long a process was writing, up to its end; seconds."""
    began = ended = time.perf_counter()
    was_writing = False
    while process.poll() is None:
        if is_writing():
            ended = time.perf_counter()
            began = began if was_writing else ended
            was_writing = True
        time.sleep(_POLL_S)
    return ended - began


def written_bytes(writer: Writer, folder: Path) -> int:
    """How much of the unfinished file is there; -1 where there is none."""
    found = writer.unfinished(folder)
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
