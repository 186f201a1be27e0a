"""The target: the target's context and its one timeline of ids.

Owns what has been decoded (`ids`), the chunking of prompts and every rollback of the target's
memory. Knows nothing of drafts, sampling or text.

Rollback differs by memory, and `truncate` is its one owner:

    plain KV                 any suffix can go
    sliding window           a suffix can go while the window before it is still held
    recurrent, hybrid        `n_rs_seq` snapshots, valid for the rows of the last decode only
    recurrent, no snapshots  a saved state is put back and the accepted rows are decoded again
                             (llama.cpp does not roll these back; Qwen3-Next is one)

Where nothing can be dropped the memory is cleared, and the caller decodes the prefix again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.backend.abort import Stopped
from mtp_cli.engine.backend.cache import F16, CacheTypes
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.cores import FreeCores
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.rope import AS_TRAINED, Rope
from mtp_cli.engine.backend.spare import SpareThread
from mtp_cli.engine.types import (
    MAX_COPIED,
    MAX_DEPTH,
    N_OUTPUTS,
    Floats,
    HiddenSource,
    OnRead,
    Rows,
    Saved,
)
from mtp_cli.errors import MtpError

N_BATCH = 512
_ROWS_PER_OUTPUT = 16  # an output row costs the output matrix: a short prompt gives few


class Target:
    """One timeline over a model's target.

    layers:    of HiddenSource.LAYER and LAYER_AND_EMBD, see `Context`
    cores:     how many threads its decodes have at most, and who says how many now; n_threads
               always without
    cache:     what its memory keeps keys and values in
    rope:      how it rotates positions
    max_draft: how many ids can be verified at once; recurrent models keep as many snapshots
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_threads: int,
        hidden: HiddenSource,
        layers: Sequence[int] = (),
        cores: FreeCores | None = None,
        cache: CacheTypes = F16,
        rope: Rope = AS_TRAINED,
    ) -> None:
        self.model = model
        self._context = Context(
            model,
            n_ctx=n_ctx,
            n_batch=min(N_BATCH, n_ctx),
            n_outputs=N_OUTPUTS,
            n_threads=n_threads,
            hidden=hidden,
            layers=layers,
            n_rs_seq=MAX_DEPTH if model.is_recurrent else 0,
            cache=cache,
            one_kernel=True,
            rope=rope,
            adapts=True,
        )
        self.cores = cores
        self._spare = SpareThread()
        if cores is not None:
            cores.follow(self._context.use_threads)
            cores.follow_spare(self._spare.use)
        self.max_draft = MAX_DEPTH if model.is_recurrent else MAX_COPIED
        self._hidden = hidden
        self._suppressed = model.suppressed()
        self._needs_replay = model.is_recurrent and self._context.n_rs_seq == 0
        self._checkpoint: tuple[int, bytes] | None = None
        self._n_last_decode = 0
        self.ids: list[int] = []
        self.n_ctx = min(n_ctx, self._context.n_ctx)

    @property
    def n_batch(self) -> int:
        """Ids of a prompt that are read at once."""
        return self._context.n_batch

    @property
    def context(self) -> Context:
        """For drafters that read its memory; only the target changes it."""
        return self._context

    def check_rows(self) -> None:
        """Raise MtpError where the model gives heads no rows, before anyone relies on them."""
        self._append([0], first_output=0)
        try:
            self._context.hidden()
        except MtpError as error:
            raise MtpError(f"{self.model.path}: {error}") from None
        self.clear()

    def check_vocabulary(self, drafter: Model) -> None:
        """Raise MtpError where what drafts numbers another count of ids."""
        if drafter.n_vocab != self.model.n_vocab:
            raise MtpError(
                f"{drafter.path}: this drafter was made for a vocabulary of {drafter.n_vocab}, "
                f"{self.model.path.name} has {self.model.n_vocab}"
            )

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows | None:
        """Append a prompt, however long; logits for its last row, hidden rows for its last ones.

        The last row is a decode of its own, as the rows of the answer are: in the same pass as many
        others it would be rounded otherwise, and the answer would tell whether the others were
        cached.

        n_hidden:   how many hidden rows are wanted; there may be fewer, and are where they would
                    cost a noticeable part of the prompt's time: one where they cost their logits
                    (EMBD)
        is_stopped: asked all the time until the last row; once it says so the rest is left out, and
                    there are no rows
        on_read:    takes the hidden rows but the last, before that one is decoded
        """
        before, newest = tokens[:-1], tokens[-1:]
        unseen = len(before) - self._n_window(n_hidden, len(tokens))  # rows before the window
        window: list[Floats] = []
        for start in range(0, len(before), self._context.n_batch):
            part = before[start : start + self._context.n_batch]
            n_window = max(0, min(len(part), start + len(part) - unseen))
            try:
                window += self._append_prompt(part, n_window, is_stopped)
            except Stopped:
                return None
            if is_stopped():
                return None
        if on_read is not None:
            on_read(np.concatenate(window) if window else None)
            window.clear()
        self._append(newest, first_output=0)
        rows = self._rows()
        if not window or rows.hidden is None:
            return rows
        return Rows(rows.logits, np.concatenate([*window, rows.hidden]))

    def _n_window(self, n_hidden: int, n_tokens: int) -> int:
        """How many hidden rows to take of a prompt before its last one."""
        if self._hidden is HiddenSource.NEXTN:
            n_hidden = min(n_hidden, N_OUTPUTS, n_tokens // _ROWS_PER_OUTPUT)
        elif not self._hidden.is_of_layers:  # which are there for every row, at no cost
            n_hidden = 1
        return max(0, n_hidden - 1)

    def _append_prompt(
        self, tokens: Sequence[int], n_window: int, is_stopped: Callable[[], bool]
    ) -> list[Floats]:
        """Append rows that choose nothing; a copy of the last n_window hidden rows."""
        n_outputs = n_window if self._hidden is HiddenSource.NEXTN else 0
        self._append(tokens, first_output=len(tokens) - n_outputs, is_stopped=is_stopped)
        hidden = self._context.hidden() if n_window > 0 else None
        return [] if hidden is None else [hidden[-n_window:].copy()]

    def decode(self, tokens: Sequence[int]) -> Rows:
        """Append the newest id and a draft; outputs for every row."""
        if self._needs_replay and len(tokens) > 1:
            self._checkpoint = (len(self.ids), self._context.save_partial())
        self._append(tokens, first_output=0)
        return self._rows()

    def _append(
        self,
        tokens: Sequence[int],
        *,
        first_output: int,
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        if len(self.ids) + len(tokens) > self.n_ctx:
            raise MtpError(f"the context of {self.n_ctx} tokens is full")
        if self.cores is not None:
            self.cores.look()
        self._spare.offer()
        try:
            self._context.decode(
                tokens, len(self.ids), first_output=first_output, is_stopped=is_stopped
            )
            self.ids.extend(tokens)
        except Stopped:
            self._settle()
            raise
        except BaseException:  # an interrupt too: how much of the batch is in memory is unknown
            self.clear()
            raise
        self._n_last_decode = len(tokens)

    def _settle(self) -> None:
        """After a decode that was ended: keep what was there before it, if that is sure."""
        n_past = len(self.ids)
        is_kept = not self.model.is_recurrent and self._can_drop(n_past, 0)
        if not (is_kept and self._context.remove_from(n_past)):
            self.clear()
        self._n_last_decode = 0

    def _rows(self) -> Rows:
        logits = self._context.logits()
        if self._suppressed:  # here, so that every choice, plain or verified, is among the others
            logits[:, self._suppressed] = -np.inf
        return Rows(logits, self._context.hidden())

    def truncate(self, n_past: int) -> int:
        """Keep the first `n_past` ids, or none where the memory cannot; returns how many."""
        n_dropped = len(self.ids) - n_past
        if n_dropped <= 0:
            return len(self.ids)
        if self._can_drop(n_past, n_dropped) and self._context.remove_from(n_past):
            del self.ids[n_past:]
            self._n_last_decode = 0
            return n_past
        if self._checkpoint is not None and self._checkpoint[0] <= n_past:
            self._replay(n_past)
            return n_past
        self.clear()
        return 0

    def _can_drop(self, n_past: int, n_dropped: int) -> bool:
        if self.model.is_recurrent:
            # A snapshot further back than the last decode's rows is stale, and llama.cpp would
            # hand it out all the same.
            return n_dropped < self._n_last_decode and n_dropped <= self._context.n_rs_seq
        if self.model.n_swa == 0:
            return True
        return self._context.first_position() <= max(0, n_past - self.model.n_swa)

    def _replay(self, n_past: int) -> None:
        assert self._checkpoint is not None
        n_saved, state = self._checkpoint
        replayed = self.ids[n_saved:n_past]
        self._context.restore_partial(state)
        if not self._context.remove_from(n_saved):
            raise MtpError("llama.cpp could not return to a saved recurrent state")
        del self.ids[n_saved:]
        self._checkpoint = None
        n_batch = self._context.n_batch
        for start in range(0, len(replayed), n_batch):
            part = replayed[start : start + n_batch]
            self._append(part, first_output=len(part))

    @property
    def can_repeat(self) -> bool:
        """Whether all rows of the last decode can be dropped, and decoded again."""
        return not self.model.is_recurrent  # windows hold the whole context: `swa_full`

    def save(self) -> Saved:
        return Saved(tuple(self.ids), self._context.save())

    def restore(self, saved: Saved) -> None:
        """Go back to what was saved; empty where llama.cpp cannot."""
        self.clear()
        if self._context.restore(saved.state):
            self.ids.extend(saved.ids)

    def clear(self) -> None:
        self._context.clear()
        self._checkpoint = None
        self._n_last_decode = 0
        self.ids.clear()

    def close(self) -> None:
        self._spare.use(False)
        self._context.close()
