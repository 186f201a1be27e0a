"""Which benchmarks `benchmarks.record` runs, with what arguments, of which files.

Knows nothing of what becomes of their results.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from mtp_cli import models

HEADS = Path(__file__).parents[1] / "heads"  # that were made here for real files
_BENCH = ("-m", "mtp_cli.bench.cli")
_GREEDY = ("--temperatures", "0", "--depths", "0,1,2,3,auto", "--max-tokens", "48")
_COPYING = ("--temperatures", "0", "--depths", "0,auto", "--max-tokens", "96")
_HEADS = ("--temperatures", "0", "--depths", "0,1,2,3,auto", "--max-tokens", "96")
_SAMPLED = ("--temperatures", "0.7,1", "--depths", "0,1,auto", "--max-tokens", "48")


@dataclass(frozen=True)
class Effort:
    """What a full and a quick run differ in. minutes: about, on two cores of a server"""

    minutes: float
    arguments: str


@dataclass(frozen=True)
class Places:
    """Where what is not ours lies. models: a folder of real files; None where there is none"""

    models: Path | None = None
    server: Path | None = None
    peer_bench: Path | None = None

    def options(self, program: str) -> list[str]:
        """What a benchmark is told of them."""
        if program == "benchmarks.peer" and self.server is not None:
            return ["--server", str(self.server)]
        if program == "benchmarks.few_rows" and self.peer_bench is not None:
            return ["--peer-bench", str(self.peer_bench)]
        return []

    def file(self, name: str) -> Path | None:
        """A real file, None where it is not there."""
        path = None if self.models is None else self.models / name
        return path if path is not None and path.is_file() else None


NOWHERE = Places()


@dataclass(frozen=True)
class Step:
    """One benchmark of the set. name: of its file in the results.

    outtype: the format that the built-in model is requantized to for it, None for as it is
    file:    the real file that it is about, None for the built-in model
    draft:   the real file that drafts for it
    heads:   the file in `heads/` that drafts for it
    """

    name: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    full: Effort
    quick: Effort
    outtype: str | None = None
    file: str | None = None
    draft: str | None = None
    heads: str | None = None

    def command(
        self, quick: bool, model: Path | None, out: Path, places: Places = NOWHERE
    ) -> list[str]:
        effort = self.quick if quick else self.full
        files = [] if model is None else ["--model", str(model), *self._drafting(model)]
        options = places.options(self.program[1]) if self.file is not None else []
        return [
            *(sys.executable, *self.program, *self.arguments),
            *(*shlex.split(effort.arguments), *files, *options, "--json", str(out)),
        ]

    def _drafting(self, model: Path) -> list[str]:
        if self.file is None:
            return _heads()
        heads = [] if self.heads is None else ["--heads", str(HEADS / self.heads)]
        drafts = [] if self.draft is None else ["--draft-model", str(model.with_name(self.draft))]
        return [*heads, *drafts]


def _module(name: str) -> tuple[str, str]:
    return "-m", f"benchmarks.{name}"


def _heads() -> list[str]:
    heads = models.built_in_heads()
    return [] if heads is None else ["--heads", str(heads)]


def _bench(outtype: str, minutes: float, quick_minutes: float) -> Step:
    return Step(
        f"mtp-bench-{outtype}",
        _BENCH,
        _GREEDY,
        Effort(minutes, "--repetitions 5"),
        Effort(quick_minutes, "--repetitions 2"),
        None if outtype == "q4_1" else outtype,
    )


_QWEN = {size: f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf" for size in ("0.5b", "1.5b")}


def _peer(
    name: str, size: str, draft: str | None, effort: Effort, heads: str | None = None
) -> Step:
    return Step(
        name,
        _module("peer"),
        ("run", "--max-tokens", "64"),
        effort,
        Effort(2, "--quick"),
        file=_QWEN[size],
        draft=draft,
        heads=heads,
    )


def _real(size: str, minutes: float, draft: str | None, peer: Effort) -> tuple[Step, ...]:
    """What is measured of a real file without heads; none may lie beside it.

    minutes: of mtp-bench's run
    peer:    beside llama-server: one repetition is at the mercy of a stall
    """
    file = _QWEN[size]
    return (
        Step(
            f"qwen-{size}",
            _BENCH,
            _COPYING,
            Effort(minutes, "--repetitions 3"),
            Effort(round(minutes / 3, 1), "--repetitions 1"),
            file=file,
        ),
        Step(
            f"few-rows-qwen-{size}",
            _module("few_rows"),
            (),
            Effort(1.4, "--seconds 75"),
            Effort(0.7, "--seconds 30"),
            file=file,
        ),
        _peer(f"peer-qwen-{size}", size, draft, peer),
    )


def _with_heads(size: str, minutes: float, draft: str | None, peer: Effort) -> tuple[Step, ...]:
    """What is measured of a real file with the heads that were made for it; minutes, peer: as
    above"""
    file = _QWEN[size]
    heads = f"qwen2.5-coder-{size}-instruct-mtp.gguf"
    return (
        Step(
            f"heads-qwen-{size}",
            _BENCH,
            _HEADS,
            Effort(minutes, "--repetitions 3"),
            Effort(round(minutes / 3, 1), "--repetitions 1"),
            file=file,
            heads=heads,
        ),
        _peer(f"peer-heads-qwen-{size}", size, draft, peer, heads),
    )


STEPS = (
    _bench("q4_1", 3, 1.5),
    _bench("q4_0", 2.5, 1.2),
    _bench("q8_0", 3, 1.5),
    _bench("bf16", 5.5, 2.5),
    Step(
        "mtp-bench-sampled",
        _BENCH,
        _SAMPLED,
        Effort(3.5, "--repetitions 5"),
        Effort(1.5, "--repetitions 2"),
    ),
    Step(
        "few-rows",
        _module("few_rows"),
        (),
        Effort(3.5, "--seconds 15"),
        Effort(2, "--seconds 8"),
    ),
    Step("ttft", _module("ttft"), (), Effort(2, "--repetitions 5"), Effort(1, "--repetitions 2")),
    Step(
        "cached-prompt",
        _module("cached_prompt"),
        (),
        Effort(1, "--repetitions 5"),
        Effort(0.5, "--repetitions 3"),
    ),
    Step(
        "peer",
        _module("peer"),
        ("run",),
        Effort(6, "--minutes 4 --repetitions 5"),
        Effort(3, "--minutes 2 --repetitions 2"),
    ),
    Step(
        "scaled",
        _module("scaled"),
        (),
        Effort(8, "--minutes 6 --repetitions 3"),
        Effort(4, "--minutes 2.5 --repetitions 1"),
    ),
    Step(
        "lossless",
        _module("lossless"),
        ("--max-tokens", "48"),
        Effort(3, "--answers 10"),
        Effort(1, "--answers 3"),
    ),
    Step(
        "python-overhead",
        _module("python_overhead"),
        ("--temperatures", "0,0.7"),
        Effort(0.5, ""),
        Effort(0.5, ""),
    ),
    Step(
        "schemas",
        _module("schemas"),
        (),
        Effort(1.2, "--repetitions 5 --seconds 40"),
        Effort(0.5, "--repetitions 3 --seconds 8"),
    ),
    *_real("0.5b", 4, None, Effort(5, "--minutes 5 --repetitions 3")),
    *_real("1.5b", 6, _QWEN["0.5b"], Effort(9, "--minutes 10 --repetitions 3")),
    *_with_heads("0.5b", 6, None, Effort(6, "--minutes 5 --repetitions 3")),
    *_with_heads("1.5b", 9, _QWEN["0.5b"], Effort(10, "--minutes 10 --repetitions 3")),
    Step(
        "draft-qwen-1.5b",
        _BENCH,
        _COPYING,
        Effort(5, "--repetitions 2"),
        Effort(2.5, "--repetitions 1"),
        file=_QWEN["1.5b"],
        draft=_QWEN["0.5b"],
    ),
    Step(
        "schemas-qwen-1.5b",
        _module("schemas"),
        (),
        Effort(2.5, "--repetitions 3"),
        Effort(1.1, "--repetitions 1 --seconds 0"),
        file=_QWEN["1.5b"],
    ),
)
