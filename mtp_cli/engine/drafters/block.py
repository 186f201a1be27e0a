"""Drafts with a block drafter, by llama.cpp's graph of it: many ids in one pass.

Owns the rows that wait to become cells, and the order of events in a draft. Knows nothing of
verification, or of how ids are read off a block (`slots.py`).

A block stands after the text: the newest id, then masks. Each place of it reads the whole block and
cells that were made of the target's own rows, those that chosen layers read of each token, and says
what is to stand there (DFlash, arXiv:2602.06036; common/speculative.cpp of the pinned llama.cpp).
Four things follow.

- How many ids are drafted changes nothing of what a draft costs: the block is what it was trained
  to be, and runs as a whole.
- Cells hold rows of the target and nothing else. So nothing is read again where a text is taken
  back, and a prompt's last rows are read before the answer, for a small part of what a row costs
  the target.
- The block's own cells are dropped with the next rows.
- The target's row of the newest id is not known yet: the block has its token instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mtp_cli.engine.backend.block import BlockContext
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.base import Draft, always, with_rows
from mtp_cli.engine.drafters.cells import Cells
from mtp_cli.engine.drafters.mtp import N_CTX, N_WAITING
from mtp_cli.engine.drafters.slots import Given, Slots, slots_of
from mtp_cli.engine.files.block import Block
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_COPIED, Bytes, Floats, State

_N_BATCH = 128  # rows of the target that become cells at once


class Taking(Given, Protocol):
    """What runs blocks; `backend.block.BlockContext` is the real one."""

    n_ctx: int
    n_batch: int

    def take(self, rows: Floats, position: int) -> None: ...
    def run(self, block: Sequence[int], position: int) -> None: ...
    def remove_from(self, position: int) -> bool: ...
    def remove_before(self, position: int) -> bool: ...
    def clear(self) -> None: ...
    def save(self) -> Bytes: ...
    def restore(self, state: Bytes) -> bool: ...
    def close(self) -> None: ...


class _Waiting:
    """Rows of the target that are no cells yet: of consecutive positions from `start` on."""

    def __init__(self, capacity: int, width: int) -> None:
        self._rows = np.empty((capacity, width), np.float32)
        self.start = self.end = 0

    def append(self, rows: Floats) -> None:
        n_old = self.end - self.start
        self._rows[n_old : n_old + len(rows)] = rows
        self.end += len(rows)

    def restart(self, position: int) -> None:
        self.start = self.end = position

    def truncate(self, position: int) -> None:
        self.start, self.end = min(self.start, position), min(self.end, position)

    def rows(self, start: int, end: int) -> Floats:
        return self._rows[start - self.start : end - self.start]


class BlockDrafter:
    """One drafter, in a context of its own.

    width:       of a row of the target: those of several layers side by side
    prompt_rows: how many of a prompt's last rows it reads
    """

    def __init__(self, context: Taking, block: Block, *, width: int, prompt_rows: int) -> None:
        self._context, self._block = context, block
        self._slots: Slots = slots_of(block)
        self.max_depth = min(block.n_drafted, MAX_COPIED)
        self.n_window = max(1, prompt_rows)
        self._cells = Cells(context)
        self._n_waiting_most = min(N_WAITING, context.n_batch)
        self._waiting = _Waiting(self._n_waiting_most + context.n_batch, width)

    @property
    def n_waiting(self) -> int:
        return self._waiting.end - self._waiting.start

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        if hidden is None:
            return
        position = with_rows(ids, position, hidden)[1]
        if position != self._waiting.end:  # rows were left out, as in a prompt
            self._waiting.restart(position)
        for start in range(0, len(hidden), self._context.n_batch):
            self._waiting.append(hidden[start : start + self._context.n_batch])
            if self.n_waiting >= self._n_waiting_most:
                self._take()

    def _take(self, n_more: int = 0) -> None:
        """Make cells of what waits, with room for n_more after them."""
        start, end = self._waiting.start, self._waiting.end
        self._cells.make_place(start, end + n_more)
        for first in range(start, end, self._context.n_batch):
            rows = self._waiting.rows(first, min(first + self._context.n_batch, end))
            self._context.take(rows, first)
        self._cells.end = end
        self._waiting.restart(end)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = Draft(is_block=True)
        depth = min(depth, self.max_depth)
        has_cells = self._cells.first < self._cells.end == self._waiting.end
        if depth <= 0 or not (has_cells or self.n_waiting):
            return draft
        self._take(self._block.size)
        masks = [self._block.mask] * (self._block.size - 1)
        self._context.run([newest, *masks], self._waiting.end)
        self._slots.begin(self._context)
        while len(draft.ids) < depth and (not draft.ids or keep_going(draft)):
            if not self._slots.take(draft, propose):
                break
        return draft

    def truncate(self, n_past: int) -> None:
        self._waiting.truncate(n_past)
        self._cells.truncate(n_past)

    def save(self) -> State:
        start, end = self._waiting.start, self._waiting.end
        # Of a window llama.cpp saves what the token after the last cell sees, and a block's are no
        # text. Where they cannot be dropped, the drafter starts anew later.
        self._context.remove_from(self._cells.end)
        return {
            "context": self._context.save(),
            "places": np.array([start, self._cells.end, self._cells.first], np.int64),
            "rows": self._waiting.rows(start, end).copy(),
        }

    def restore(self, state: State) -> None:
        start, self._cells.end, self._cells.first = state["places"].tolist()
        if not self._context.restore(state["context"]):
            self._cells.end = self._cells.first = 0  # it starts anew with the rows that wait
        self._waiting.restart(start)
        self._waiting.append(state["rows"])

    def close(self) -> None:
        self._context.close()


def open_block(
    target: Target, heads: Header, block: Block, n_threads: int, n_gpu_layers: int
) -> tuple[BlockDrafter, BlockContext]:
    """A drafter that was found to fit, and its context; MtpError where its vocabulary does not."""
    target.check_rows()
    prompt_rows = TUNING.heads.n_prompt_block
    n_ctx = min(N_CTX + prompt_rows, target.n_ctx) + block.size
    width = len(block.layers) * target.model.n_embd
    model = Model(heads.path, n_gpu_layers=n_gpu_layers)
    with contextlib.ExitStack() as opened:
        opened.callback(model.close)
        target.check_vocabulary(model)
        context = BlockContext(
            model,
            target.context,
            width=width,
            size=block.size,
            sees_only_back=block.sees_only_back,
            gives_logits=block.n_candidates == 0,
            gives_rows=block.n_candidates > 0 or block.has_confidence,
            n_ctx=n_ctx,
            n_batch=min(_N_BATCH, n_ctx),
            n_threads=n_threads,
            owns_model=True,
        )
        opened.pop_all()
    return BlockDrafter(context, block, width=width, prompt_rows=prompt_rows), context
