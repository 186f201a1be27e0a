"""The stages of a run on a card, and what each measures in its own process.

Knows nothing of processes, nor of what a stage may take.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ttft
from benchmarks.gpu import measure
from benchmarks.gpu.measure import opened
from benchmarks.gpu.written import Pieces
from benchmarks.lossless import prompts
from benchmarks.widen import Scale, plan_heads, plan_target, write_sparse
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.measure import Plan
from mtp_cli.engine import Depth, Engine
from mtp_cli.engine.backend.binding import backends, supports_gpu
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from mtp_convert.gguf.model import open_model

CLASSES = ("python", "explanation", "mathematics", "editing", "chat")
_QUERY = "name,compute_cap,memory.total,driver_version,clocks.max.sm,power.limit"


@dataclass(frozen=True)
class Size:
    """How much is measured: on a card, or in a dry run on the CPU.

    scales:      by name, of the zero-padded copies
    lossless:    formats of the built-in model that are compared, None for as it is
    n_answers:   that are looked through for forks, at most
    max_tokens:  of an answer
    n_classes, depths: of mtp-bench
    lengths, repetitions: of prompts, in tokens, for the time to the first token
    """

    scales: dict[str, Scale]
    lossless: tuple[str | None, ...]
    n_answers: int
    max_tokens: int
    n_classes: int
    depths: tuple[Depth, ...]
    lengths: tuple[int, ...]
    repetitions: int


# Parameters of 3.5B and 13.8B at the built-in model's 30 layers: rows as long as those of models of
# 4B and 14B, and all lengths multiples of Q4_K's 256.
FULL = Size(
    scales={"4B": Scale(4, 8), "14B": Scale(8, 16)},
    lossless=(None, "bf16", "q4_k_m"),
    n_answers=1000,
    max_tokens=64,
    n_classes=5,
    depths=(0, 1, 2, 3, 4, "auto"),
    lengths=(100, 1000, 4000),
    repetitions=5,
)
DRY = Size(
    scales={"4B": Scale(1, 2), "14B": Scale(2, 1)},
    lossless=(None,),
    n_answers=1,
    max_tokens=8,
    n_classes=1,
    depths=(0, 1, "auto"),
    lengths=(20, 40),
    repetitions=1,
)


@dataclass(frozen=True)
class Task:
    """What a stage is given. folder: for files that end with it"""

    files: ModelFiles
    size: Size
    is_dry: bool
    folder: Path
    pieces: Pieces

    def plan(self) -> Plan:
        classes = CLASSES[: self.size.n_classes]
        return Plan(classes, (0.0,), self.size.depths, 1, self.size.max_tokens)

    def forks(self, engine: Engine, share: float) -> dict[str, Any]:
        return measure.forks(engine, self._texts, share * self.pieces.left_s, self.size.max_tokens)

    def exact(self, engine: Engine, share: float) -> dict[str, Any]:
        return measure.exact(engine, self._texts, share * self.pieces.left_s, self.size.max_tokens)

    def speed(self, engine: Engine, share: float) -> dict[str, Any]:
        return measure.speed(engine, share * self.pieces.left_s, self.plan())

    @property
    def _texts(self) -> list[str]:
        return prompts()[: self.size.n_answers]


def machine(task: Task) -> None:
    """What the numbers hold for; without a card a run ends here."""

    def found() -> dict[str, Any]:
        if not task.is_dry and not supports_gpu():
            raise MtpError(
                "this build of llama.cpp sees no GPU: see what nvidia-smi says, "
                "or try --dry-run, which needs none"
            )
        holds_for = recording.provenance(
            "gpu", "python -m benchmarks.gpu", physical_cores(), task.files, quick=task.is_dry
        )
        return {**holds_for, "backends": list(backends()), "card": card()}

    task.pieces.add("machine", found)


def card() -> dict[str, str]:
    """What nvidia-smi says of the first card; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.splitlines()[0].split(",")
    return dict(zip(_QUERY.split(","), map(str.strip, values), strict=False))


def lossless(task: Task) -> None:
    """Forks at every depth and with --exact, in each format."""
    names = task.size.lossless
    for done, name in enumerate(names):
        files = task.files
        if name is not None:
            files = ModelFiles(task.folder / f"{name}.gguf", task.files.heads)
            task.pieces.add(f"make {name}", partial(_requantized, task, files.model, name))
        _lossless(task, files, name or "as it is", 1 / (len(names) - done))


def _lossless(task: Task, files: ModelFiles, label: str, share: float) -> None:
    with opened(files) as (engine, load):
        task.pieces.add(f"load {label}", lambda: load)
        task.pieces.add(f"forks {label}", lambda: task.forks(engine, 0.6 * share))
        task.pieces.add(f"exact {label}", lambda: task.exact(engine, 0.6 * share))


def _requantized(task: Task, path: Path, outtype: str) -> dict[str, Any]:
    quantize(task.files.model, path, outtype)
    return {"bytes": path.stat().st_size}


def built_in(task: Task) -> None:
    _speed(task, task.files)


def heads_on_cpu(task: Task) -> None:
    _speed(task, task.files, n_gpu_layers_draft=0)


def _speed(task: Task, files: ModelFiles, n_gpu_layers_draft: int | None = None) -> None:
    pieces = task.pieces
    with opened(files, n_gpu_layers_draft) as (engine, load):
        pieces.add("load", lambda: load)
        pieces.add("costs", lambda: measure.costs(engine))
        pieces.add("speed", lambda: task.speed(engine, 0.8))


def first_token(task: Task) -> None:
    """Drafting on over off; the heads read a part of the prompt."""

    def found() -> dict[str, Any]:
        size = task.size
        turns = ttft.measure(
            task.files, task.files.model, [*size.lengths], size.repetitions, ttft.CLOCKS["wall"],
            None,
        )  # fmt: skip
        return {"prompts": {str(n): ttft.summary(one) for n, one in turns.items()}}

    task.pieces.add("first token", found)


def copy(name: str, outtype: str) -> Callable[[Task], None]:
    """The stage of a zero-padded copy, which costs what a larger model does."""

    def stage(task: Task) -> None:
        pieces, size = task.pieces, task.size
        made = ModelFiles(task.folder / "target.gguf", task.folder / "heads.gguf")
        pieces.add("make", lambda: _widened(task.files, made, size.scales[name], outtype))
        with opened(made) as (engine, load):
            pieces.add("load", lambda: load)
            pieces.add("costs", lambda: measure.costs(engine))
            pieces.add("forks", lambda: task.forks(engine, 0.2))
            pieces.add("exact", lambda: task.exact(engine, 0.2))
            pieces.add("speed", lambda: task.speed(engine, 0.8))

    return stage


def _widened(files: ModelFiles, made: ModelFiles, scale: Scale, outtype: str) -> dict[str, Any]:
    if files.heads is None or made.heads is None:
        raise MtpError(f"{files.name} has no heads of its own; name them with --heads")
    write_sparse(plan_target(open_model(files.model), scale, outtype), made.model)
    write_sparse(plan_heads(open_model(files.heads), open_model(made.model), scale), made.heads)
    plan = open_model(made.model)
    return {"width": plan.n_embd, "bytes": made.model.stat().st_size}


STAGES: dict[str, Callable[[Task], None]] = {
    "machine": machine,
    "lossless": lossless,
    "built-in": built_in,
    "heads-on-cpu": heads_on_cpu,
    "first-token": first_token,
    "4B-bf16": copy("4B", "bf16"),
    "14B-q4_k": copy("14B", "q4_k_s"),
    "14B-bf16": copy("14B", "bf16"),
    "4B-q4_k": copy("4B", "q4_k_s"),
}


def run(name: str, given: tuple[Path | None, Path | None], is_dry: bool, pieces: Pieces,
        folder: Path) -> None:  # fmt: skip
    """One stage. given: model and heads, the built-in ones where None"""
    STAGES[name](Task(models.find(*given), DRY if is_dry else FULL, is_dry, folder, pieces))
