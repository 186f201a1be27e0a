"""Times decodes of few rows and prompts by our kernels, llama.cpp's and a peer's, in turns.

Owns the order of the decodes, and how many the given time allows. Knows nothing of tables.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.llama_bench import prompts_ms
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.depth.calibrate import spread_ids
from mtp_cli.engine.types import Floats, HiddenSource

COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
FEW_COUNTS = (1, 2, 4, 8)  # of a model whose rows are dear; what a peer is asked for, too
PROMPTS = (64, 512)
SIDES = ("llama", "ours")
_DEAR = 1 / 750  # of all time for one row: all counts on both sides take 110 of them in a pass
_SHARE = 1 / 4  # of all time that a prompt read row by row, to compare its bits, may take
_PIECE = 16  # rows at a time where that is too dear
_WARM_UP_S = 0.05  # of decodes before one that is timed
_FEWEST = 3  # passes over the row counts, whatever they take
_PEER_RUNS = 8  # of few rows, in each call of a peer: most of a call is loading

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Peer:
    """Somebody's llama-bench."""

    binary: Path
    model: Path


def apart(rows: Floats, others: Floats) -> float:
    """The greatest difference of a logit."""
    return float(np.abs(rows - others).max())


class Measurement:
    """Milliseconds and bits of one model's rows after n_before tokens, by side and row count.

    rows_ms, prompt_ms: by side ("ours", "llama", "peer") and number
    difference:        of a row among n to the row alone, by the same side's kernels
    from_llama:        of our rows, with attention left to llama.cpp, to llama.cpp's row alone
    prompt_difference: of the row after a prompt of n, read at once or in pieces of so many rows
                       (`prompt_pieces`), by our kernels
    seconds:           that all of it may take, about; loading and the fewest passes come first
    on_step:           told what begins
    """

    def __init__(
        self, path: Path, n_before: int, n_threads: int, seconds: float,
        peer: Path | None = None, on_step: OnStep = lambda step: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.rows_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.prompt_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.difference: dict[tuple[str, int], float] = {}
        self.from_llama: dict[int, float] = {}
        self.prompt_difference: dict[int, float] = {}
        self.prompt_pieces: dict[int, int] = {}
        self._clock, self._ends = clock, clock() + seconds
        self._n_before, self._n_threads, self._on_step = n_before, n_threads, on_step
        self._peer = None if peer is None else Peer(peer, path)
        n_ctx = max(n_before, *PROMPTS) + 2 * COUNTS[-1]
        with ExitStack() as opened:
            self._targets = {}
            for side in SIDES:  # llama.cpp cannot read weights that are laid out for our kernels
                model = opened.enter_context(closing(Model(path, lays_out=side == "ours")))
                target = Target(model, n_ctx=n_ctx, n_threads=n_threads, hidden=HiddenSource.NONE)
                self._targets[side] = opened.enter_context(closing(target))
            self._bits(seconds)
            self._times()

    def _use(self, side: str, *, attention: bool = True) -> None:
        """Decode by its kernels and on its weights. attention: ours, on our side"""
        is_ours = side == "ours"
        our_kernels.enable(products=is_ours, attention=is_ours and attention)
        self._target = self._targets[side]

    def _timed(self, run: Callable[[], object]) -> float:
        started = self._clock()
        run()
        return self._clock() - started

    def _bits(self, seconds: float) -> None:
        """Before anything is timed; it leaves the context's tokens in memory."""
        self._on_step("bits")
        self._use("ours")
        self._read(self._n_before)
        one_s = self._one_row_s()
        self.counts = COUNTS if one_s < _DEAR * seconds else FEW_COUNTS
        for n in PROMPTS:
            self._prompt_bits(n, 1 if n * one_s < _SHARE * seconds else _PIECE)
        self._row_bits()

    def _ids(self, n: int) -> list[int]:
        return spread_ids(n, self._target.model.n_vocab)

    def _one_row_s(self) -> float:
        self._logits(1)  # its graph is built in this one
        return self._timed(functools.partial(self._logits, 1))

    def _prompt_bits(self, n: int, n_rows: int) -> None:
        at_once = self._read(n)
        self._target.clear()
        for first in range(0, n, n_rows):
            logits = self._target.decode(self._ids(n)[first : first + n_rows]).logits
        self.prompt_difference[n] = apart(at_once, logits[-1])
        self.prompt_pieces[n] = n_rows

    def _row_bits(self) -> None:
        alone = {}
        for side in SIDES:
            self._use(side)
            self._read(self._n_before)
            alone[side] = self._one_by_one()
            for n in self.counts:
                self.difference[side, n] = apart(self._logits(n), alone[side][:n])
        self._use("ours", attention=False)
        self._read(self._n_before)
        for n in self.counts:
            self.from_llama[n] = apart(self._logits(n), alone["llama"][:n])

    def _read(self, n: int) -> Floats:
        """Read n tokens of a prompt into an empty context; logits after the last one."""
        self._target.clear()
        rows = self._target.prefill(self._ids(n), 0, lambda: False)
        assert rows is not None
        logits: Floats = rows.logits[-1].copy()
        return logits

    def _one_by_one(self) -> Floats:
        ids = self._ids(self.counts[-1])
        rows = [self._target.decode([id_]).logits[0].copy() for id_ in ids]
        self._target.truncate(self._n_before)
        return np.stack(rows)

    def _logits(self, n: int) -> Floats:
        logits = self._target.decode(self._ids(n)).logits.copy()
        self._target.truncate(self._n_before)
        return logits

    def _times(self) -> None:
        """Rows and prompts have half of the time each; prompts are read once in any case."""
        rows_s, prompts_s, last_s, n_passes = 0.0, 0.0, 0.0, 0
        while n_passes < _FEWEST or self._clock() < self._ends:
            if rows_s < prompts_s or n_passes == 0:
                self._on_step("rows")
                rows_s += self._timed(self._rows)
                n_passes += 1
            elif prompts_s == 0 or self._clock() + last_s < self._ends:
                last_s = self._timed(self._prompts)
                prompts_s += last_s
            else:
                prompts_s = float("inf")  # no time for another turn of them: the rest is for rows

    def _rows(self) -> None:
        for side in SIDES:
            self._use(side)
            if self._target.truncate(self._n_before) < self._n_before:
                self._read(self._n_before)
        for n in self.counts:
            for side in SIDES:
                self._use(side)
                self._warm_up(n)
                elapsed_s = self._timed(functools.partial(self._target.decode, self._ids(n)))
                self.rows_ms[side, n].append(elapsed_s * 1e3)
                self._target.truncate(self._n_before)

    def _warm_up(self, n: int) -> None:
        """Build the graph, and bring back to the caches what the other side displaced."""
        ends = self._clock() + _WARM_UP_S
        self._logits(n)
        while self._clock() < ends:
            self._logits(n)

    def _prompts(self) -> None:
        self._on_step("prompts")
        for n in PROMPTS:
            for side in SIDES:
                self._use(side)
                elapsed_s = self._timed(functools.partial(self._read, n + 1))
                self.prompt_ms[side, n].append(elapsed_s * 1e3)
        if self._peer is not None:
            self._on_step(self._peer.binary.name)
            self._ask(self._peer, FEW_COUNTS, self.rows_ms, _PEER_RUNS)
            self._ask(self._peer, PROMPTS, self.prompt_ms, 1)

    def _ask(
        self, peer: Peer, counts: Sequence[int], into: dict[tuple[str, int], list[float]], n: int
    ) -> None:
        found = prompts_ms(peer.binary, peer.model, counts, self._n_threads, n)
        for count in counts:
            into["peer", count] += found[count]


def sides(measured: Iterable[tuple[str, int]], n: int) -> list[str]:
    """Who was measured at so many rows, ours first."""
    found = {side for side, count in measured if count == n}
    return [side for side in ("ours", "llama", "peer") if side in found]
