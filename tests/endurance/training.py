"""mtp-train's steps that write: text, a checkpoint, a head file; and what they should leave.

Owns their input: a tiny model and a small corpus of random rows. Knows nothing of how they are
interrupted. Needs PyTorch.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
from mtp_train.corpus import Role, Sample, is_held_out, n_tokens_in, write_shard
from mtp_train.fit import read_checkpoint
from tests.endurance.writing import digest, started, watched
from tests.engine import tiny

_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
_SHARD, _HEADS = "shard-0-0000.npz", "heads.gguf"
_LENGTH, _N_SAMPLES = 40, 60
_STEPS = 52  # a checkpoint is written after 50, and at the end


@dataclass(frozen=True)
class Step:
    """One of mtp-train's commands, in a folder of its own.

    start_folder: what the folder holds before
    n_bytes:  that it writes, about
    made:     what must be the same in every run, however often it was interrupted
    whole_s, writing_s: what an undisturbed run took, and how long an unfinished file was there
    """

    name: str
    arguments: tuple[str, ...]
    start_folder: Path
    model: Path
    made: Callable[[Path], object]
    wanted: object = None
    n_bytes: int = 0
    whole_s: float = 0.0
    writing_s: float = 0.0

    def start(self, folder: Path) -> subprocess.Popen[str]:
        self.prepare(folder)
        return self.process(folder)

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.start_folder, folder, dirs_exist_ok=True)

    def process(self, folder: Path) -> subprocess.Popen[str]:
        command = ["mtp_train.cli", *self.arguments, "-f", str(folder)]
        return started([*command, "-m", str(self.model), *self._output(folder)], folder)

    def _output(self, folder: Path) -> list[str]:
        return ["-o", str(folder / _HEADS)] if self.name == "export" else []

    def unfinished(self, folder: Path) -> Path | None:
        return next(folder.rglob("*.partial"), None)

    def faults(self, folder: Path) -> list[str]:
        """What was there must still be, what has its name must be whole, and a rerun ends well."""
        lost = [name for name in self._before() if not (folder / name).exists()]
        faults = [f"{name} is lost" for name in lost]
        try:
            self._check_whole(folder)
        except Exception as error:
            faults.append(f"a half file: {type(error).__name__}: {error}")
        _, said = (process := self.process(folder)).communicate()
        if process.returncode:
            return [*faults, f"the rerun exits with {process.returncode}: {said.strip()[-300:]}"]
        faults += [] if self.made(folder) == self.wanted else ["the rerun makes something else"]
        left = self.unfinished(folder)
        return faults + ([f"the rerun leaves {left.name}"] if left else [])

    def _before(self) -> list[Path]:
        found = self.start_folder.rglob("*")
        return [path.relative_to(self.start_folder) for path in found if path.is_file()]

    def _check_whole(self, folder: Path) -> None:
        """Raises on a file under its final name that cannot be read."""
        target = target_fingerprint(read_shards(self.model))
        n_tokens_in(folder / "corpus", target)
        read_checkpoint(folder, target)
        if (folder / _HEADS).exists():
            read_shards(folder / _HEADS)


def steps(root: Path) -> Iterator[Step]:
    """Each of them, after an undisturbed run."""
    root.mkdir()
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = _TEMPLATE
    model = spec.write(root / "model.gguf")
    corpus = _corpus(root / "corpus-only", model)
    fit = ("fit", "--steps", str(_STEPS), "--vocabulary", "32", "--threads", "1")
    n_tokens = _LENGTH * _N_SAMPLES + 3000
    write = ("generate", "--tokens", str(n_tokens), "--slots", "8", "--threads", "1")
    yield _tried(Step("generate", write, corpus, model, lambda f: _has(f, model, n_tokens)), root)
    yield _tried(Step("fit", fit, corpus, model, lambda f: _weights(f, model)), root)
    trained = root / "fit"
    yield _tried(Step("export", ("export",), trained, model, lambda f: digest(f / _HEADS)), root)


def _corpus(folder: Path, model: Path) -> Path:
    """Texts of random ids and rows, some of them held out."""
    random, n_vocab, n_embd = np.random.default_rng(1), tiny.N_VOCAB, tiny.N_EMBD
    samples: list[Sample] = []
    while len(samples) < _N_SAMPLES or not any(is_held_out(s.prompt) for s in samples):
        ids = random.integers(0, n_vocab, _LENGTH).astype(np.int32)
        roles = np.full(_LENGTH, Role.GREEDY, np.uint8)
        roles[:10] = Role.GIVEN
        rows = random.standard_normal((_LENGTH, n_embd)).astype(np.float16)
        samples = [*samples[-_N_SAMPLES + 1 :], Sample(ids, roles, rows)]
    (folder / "corpus").mkdir(parents=True)
    fingerprint = target_fingerprint(read_shards(model))
    write_shard(folder / "corpus" / _SHARD, fingerprint, samples, [{}] * len(samples))
    return folder


def _has(folder: Path, model: Path, n_tokens: int) -> bool:
    """Enough text; which, depends on where it was interrupted."""
    fingerprint = target_fingerprint(read_shards(model))
    return n_tokens_in(folder / "corpus", fingerprint) >= n_tokens


def _weights(folder: Path, model: Path) -> object:
    """A checkpoint's step and weights: an interrupted run must come to the same."""
    found = read_checkpoint(folder, target_fingerprint(read_shards(model)))
    assert found is not None
    weights = {name: t.float().numpy().tobytes() for name, t in sorted(found.head.items())}
    return found.progress.step, weights


def _tried(step: Step, root: Path) -> Step:
    folder = root / step.name
    began = time.perf_counter()
    process = step.start(folder)
    writing_s = watched(process, lambda: step.unfinished(folder) is not None)
    whole_s = time.perf_counter() - began
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{step.name}: an undisturbed run fails: {said}")
    n_bytes = _size(folder) - _size(step.start_folder)
    return replace(
        step, wanted=step.made(folder), n_bytes=n_bytes, whole_s=whole_s, writing_s=writing_s
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
