"""What Python costs a round: the real loop, drafter, policy and sampler on instant models.

The target and the heads' context here give rows that were prepared beforehand, in no time, so that
what is left is what this project adds to llama.cpp: filling batches, choosing tokens, the heads'
probabilities, copying, the depth policy. CPU seconds of the one thread, least of several runs, so
that other programs disturb it little. ctypes' own calls into llama.cpp (about ten a round, a few
microseconds each) are not in it.

At a temperature above 0 there are two columns: with drafts drawn from the heads' distribution, as
answers without a seed have them, and with their best guesses, as those with a seed or --exact do.

    python -m benchmarks.python_overhead                          # 49k and 250k ids, a few seconds
    python -m benchmarks.python_overhead --temperatures 0,0.7     # sampled rounds too
    python -m benchmarks.python_overhead --json python.json
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from mtp_cli.bench import recording
from mtp_cli.engine import Sampling
from mtp_cli.engine.backend.batch import Batch, Reads
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth
from mtp_cli.engine.drafters import NoDrafter
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.mtp import MtpDrafter
from mtp_cli.engine.generate import Generation
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import MAX_COPIED, Bytes, Floats, OnRead, Rows
from mtp_cli.head_file import DraftVocabulary

N_EMBD = 576
N_TOKENS = 128
N_RUNS = 5
LIMITS_MS = {49_152: 0.3, 250_000: 1.0}  # what the project holds itself to
N_DRAFT_IDS = 8192  # a trimmed head's


class InstantContext:
    """A heads' context whose decodes take no time: random logits, sure of one id."""

    n_ctx = 8192
    n_embd = N_EMBD

    def __init__(self, n_ids: int) -> None:
        self._batch = Batch(256, N_EMBD, Reads.BOTH)
        self._logits = np.random.default_rng(0).normal(size=(1, n_ids)).astype(np.float32)
        self._logits[0, 5] = 25
        self._row = np.ones((1, N_EMBD), np.float32)

    def decode(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        first_output: int = 0,
        hidden: Floats | None = None,
    ) -> None:
        self._batch.fill(tokens, position, first_output, hidden)

    def read(self, tokens: Sequence[int], position: int, hidden: Floats) -> None:
        self._batch.fill(tokens, position, len(tokens), hidden)

    def logits(self) -> Floats:
        return self._logits

    def hidden(self) -> Floats:
        return self._row

    def remove_from(self, position: int) -> bool:
        return True

    def remove_before(self, position: int) -> bool:
        return True

    def save(self) -> Bytes:
        return np.empty(0, np.uint8)

    def restore(self, state: Bytes) -> bool:
        return True

    def use_head(self, index: int) -> None:
        pass

    def use_threads(self, n_threads: int) -> None:
        pass

    def clear(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class InstantTarget:
    """A target whose decodes take no time: it follows the heads if told to, else it wanders.

    All decodes give their rows in the same memory, as llama.cpp's do: it is in the caches.
    """

    n_vocab: int
    agrees: bool
    n_ctx: int = 8192
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self._batch = Batch(512, N_EMBD, Reads.TOKENS)
        self._logits = rng.normal(size=(1 + MAX_COPIED, self.n_vocab)).astype(np.float32)
        self._chosen = [5] * len(self._logits)
        self._logits[:, 5] = 25
        self._hidden = np.ones((1 + MAX_COPIED, N_EMBD), np.float32)

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows:
        self.ids.extend(tokens)
        return Rows(self._logits[:1], self._hidden[:1])

    def decode(self, tokens: Sequence[int]) -> Rows:
        n = len(tokens)
        self._batch.fill(tokens, len(self.ids), 0, None)
        if not self.agrees:
            for row in range(n):
                self._choose(row, 10 + 7919 * (len(self.ids) + row) % (self.n_vocab - 10))
        self.ids.extend(tokens)
        return Rows(self._logits[:n], self._hidden[:n])

    def _choose(self, row: int, token: int) -> None:
        self._logits[row, self._chosen[row]] = 0
        self._logits[row, token] = 25
        self._chosen[row] = token

    def truncate(self, n_past: int) -> int:
        del self.ids[n_past:]
        return len(self.ids)


def _costs() -> CostModel:
    """Rows and steps that make heads worth asking, and a draft of four worth verifying."""
    return CostModel(
        CostTable(tuple(1 + 0.1 * n for n in range(16)), (0.0,) * 16, 0.03, 0.001, 0.02)
    )


@dataclass(frozen=True)
class Case:
    name: str
    policy: Callable[[], DepthPolicy]
    has_heads: bool = True
    agrees: bool = True


CASES = (
    Case("plain", lambda: FixedDepth(0), has_heads=False),
    Case("plain, heads parked", lambda: FixedDepth(0)),
    Case("automatic, parked", lambda: ExpectedValue(_costs()), agrees=False),
    Case("depth 1", lambda: FixedDepth(1)),
    Case("depth 3", lambda: FixedDepth(3)),
    Case("automatic, heads always right", lambda: ExpectedValue(_costs())),
)


@dataclass(frozen=True)
class Column:
    """A vocabulary's size, and how ids are chosen from it."""

    n_vocab: int
    temperature: float
    draws_drafts: bool

    @property
    def title(self) -> str:
        how = "drawn" if self.draws_drafts else "guessed"
        kind = "greedy" if self.temperature == 0 else f"T {self.temperature:g}, {how}"
        return f"{self.n_vocab:,} ids, {kind} (limit {LIMITS_MS[self.n_vocab]})"

    def sampler(self, repeat_penalty: float) -> Sampler:
        sampling = Sampling(temperature=self.temperature, seed=1, penalty_repeat=repeat_penalty)
        return Sampler(sampling, draws_drafts=self.draws_drafts)


def columns(temperatures: Sequence[float]) -> list[Column]:
    """Greedy drafts are best guesses in any case; above 0 both ways are in use."""
    return [
        Column(n_vocab, temperature, draws_drafts)
        for n_vocab, temperature in itertools.product(LIMITS_MS, temperatures)
        for draws_drafts in ((True, False) if temperature > 0 else (False,))
    ]


def round_ms(case: Case, column: Column, repeat_penalty: float) -> float:
    """CPU milliseconds of one round."""
    n_vocab = column.n_vocab
    is_trimmed = n_vocab < 100_000
    n_ids = N_DRAFT_IDS if is_trimmed else n_vocab
    same = np.arange(n_vocab, dtype=np.int32)
    vocabulary = DraftVocabulary(same[:n_ids], same % n_ids) if is_trimmed else None
    context = InstantContext(n_ids)
    drafter = MtpDrafter(context, ids=HeadIds(vocabulary))
    # Steps of 7 through the ids: a prompt that has nothing to copy.
    prompt = [7 * i % 4999 + 10 for i in range(200)]
    found = []
    policy = case.policy()
    for _ in range(N_RUNS):
        generation = Generation(
            InstantTarget(n_vocab, case.agrees),
            drafter if case.has_heads else NoDrafter(),
            column.sampler(repeat_penalty),
            policy,
            prompt,
            max_tokens=N_TOKENS,
            is_end=lambda token: False,
        )
        drafter.truncate(0)
        next(generation)
        started = time.thread_time()
        for _ in generation:
            pass
        found.append((time.thread_time() - started) / generation.stats.rounds * 1000)
    return min(found)


def table(wanted: Sequence[Column], found: dict[str, list[float]]) -> Table:
    out = Table(title="CPU milliseconds of Python a round", title_justify="left")
    out.caption = (
        "drawn: drafts from the heads' distribution, as without a seed; "
        "guessed: their best guesses, as with a seed or --exact"
    )
    out.add_column("round", overflow="fold")
    for column in wanted:
        out.add_column(column.title, justify="right")
    for case, milliseconds in found.items():
        out.add_row(case, *(f"{ms:.3f}" for ms in milliseconds))
    return out


def as_json(wanted: Sequence[Column], found: dict[str, list[float]]) -> dict[str, Any]:
    """rounds: milliseconds by case, one for each of `columns`."""
    holds_for = recording.provenance("python_overhead", "python -m benchmarks.python_overhead", 1)
    columns = [{**vars(one), "limit_ms": LIMITS_MS[one.n_vocab]} for one in wanted]
    return {**holds_for, "columns": columns, "rounds": found}


def main(
    temperatures: Annotated[str, typer.Option(help="With commas between; 0 is greedy.")] = "0",
    repeat_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    json_file: JsonFile = None,
) -> None:
    wanted = columns([float(temperature) for temperature in temperatures.split(",")])
    found = {
        case.name: [round_ms(case, column, repeat_penalty) for column in wanted] for case in CASES
    }
    Console().print(table(wanted, found))
    if json_file is not None:
        recording.write(json_file, as_json(wanted, found))


if __name__ == "__main__":
    typer.run(main)
