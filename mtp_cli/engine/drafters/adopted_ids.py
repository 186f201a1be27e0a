"""Ids that a head's draft vocabulary lacks, and that it drafts in once the text holds them.

A draft vocabulary holds what a target writes most. What it lacks, names and rare words, comes in an
answer mostly after the text has held it: 0.62 of such ids in the built-in model's answers. So ids
of the text are adopted: the head drafts them by the target's own rows of them, behind its own
tables'. Owns which ids are adopted, and scoring them beside a head that llama.cpp runs, which reads
them by their surrogates. Knows nothing of drafting.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.one_thread import multiplied
from mtp_cli.engine.files.target_tables import TargetTables, to_q8_0
from mtp_cli.engine.types import Bytes, Floats, HeadContext, Ids, State
from mtp_cli.head_file import DraftVocabulary

N_ADOPTED = 512  # at most: a sixteenth of a usual draft vocabulary, which each step scores, too


class Adopts(Protocol):
    """A head that can read and score more ids than its file has."""

    def adopt(self, embedding: Bytes | None, output: Bytes, first: int, n: int) -> None:
        """The first n rows, in Q8_0, behind its own tables'.

        embedding: is read in place from then on; None for a head that reads all of the target's ids
        output:    of this it has the rows before `first` already
        """


class AdoptedIds(HeadIds, ABC):
    """Of a head that lacks ids of the target's, and drafts in those that the text holds.

    Adopted ids stand in the order in which the text came to hold them.
    """

    _kept: tuple[npt.NDArray[Any], ...]  # tables of N_ADOPTED rows

    def __init__(
        self,
        tables: TargetTables,
        vocabulary: DraftVocabulary | None,
        draft_ids: Ids | None = None,
    ) -> None:
        super().__init__(vocabulary, draft_ids)
        assert self.draft_ids is not None
        self._tables = tables
        self._n_draft, self._n = len(self.draft_ids), 0
        self.draft_ids = np.concatenate([self.draft_ids, np.zeros(N_ADOPTED, np.int32)])
        self._adopted = self.draft_ids[self._n_draft :]
        self._at = np.zeros(N_ADOPTED, np.int64)  # where the text came to hold each
        self._known = bytearray(tables.n_vocab)  # asked id by id in every round
        self._is_known = np.frombuffer(self._known, bool)  # the same, to set many
        self._is_known[self.draft_ids[: self._n_draft]] = True

    def hold(self, ids: Sequence[int], position: int) -> None:
        at: dict[int, int] = {}
        for place, token in enumerate(ids, position):
            if not self._known[token]:
                at.setdefault(token, place)
        if at:
            found = list(at.items())[-N_ADOPTED:]
            lacking, positions = zip(*found, strict=True)
            self._adopt(np.array(lacking, np.int32), np.array(positions, np.int64))

    def _adopt(self, ids: Ids, positions: npt.NDArray[np.int64]) -> None:
        with contextlib.suppress(OSError):  # the file is gone: then it drafts without them
            rows = self._rows(ids)
            if self._n + len(ids) > N_ADOPTED:
                self._keep_newest(min(N_ADOPTED // 2, N_ADOPTED - len(ids)))
            new = slice(self._n, self._n + len(ids))
            for table, found in zip(self._kept, rows, strict=True):
                table[new] = found
            self._at[new] = positions
            self._place(new, ids)

    def _keep_newest(self, n: int) -> None:
        kept = slice(self._n - n, self._n)
        ids = self._adopted[kept].copy()
        for table in (*self._kept, self._at):
            table[:n] = table[kept].copy()
        self._forget(0)
        self._place(slice(0, n), ids)

    def _place(self, places: slice, ids: Ids) -> None:
        """These ids' rows lie at these places now, the last ones."""
        self._adopted[places] = ids
        self._is_known[ids] = True
        self._n = places.stop

    def _forget(self, n: int) -> None:
        """All but the first n."""
        self._is_known[self._adopted[n : self._n]] = False
        self._n = n

    def truncate(self, n_past: int) -> None:
        n = int(np.searchsorted(self._at[: self._n], n_past))
        if n < self._n:
            self._forget(n)

    def save(self) -> State:
        return {"adopted": self._adopted[: self._n].copy(), "held": self._at[: self._n].copy()}

    def restore(self, state: State) -> None:
        self._forget(0)
        if len(state["adopted"]):
            self._adopt(state["adopted"], state["held"])

    def close(self) -> None:
        self._tables.close()

    @abstractmethod
    def _rows(self, ids: Ids) -> tuple[npt.NDArray[Any], ...]:
        """What `_kept` is to have of these ids; OSError where the target's file is gone."""


class CompiledIds(AdoptedIds):
    """A head of our own code reads and scores them."""

    def __init__(
        self,
        head: Adopts,
        tables: TargetTables,
        vocabulary: DraftVocabulary | None,
        draft_ids: Ids | None = None,
    ) -> None:
        super().__init__(tables, vocabulary, draft_ids)
        self._head = head
        n_bytes = to_q8_0(np.zeros((1, tables.n_embd), np.float32)).shape[1]
        self._output = np.zeros((N_ADOPTED, n_bytes), np.uint8)
        self._embedding: Bytes | None = None
        self._surrogates = self._places
        self._kept = (self._output,)
        if self._places is not None:
            self._places = self._places.copy()
            self._embedding = np.zeros_like(self._output)
            self._kept = (self._output, self._embedding)

    def _rows(self, ids: Ids) -> tuple[Bytes, ...]:
        output = to_q8_0(self._tables.output(ids))
        if self._embedding is None:
            return (output,)
        return output, to_q8_0(self._tables.embedding(ids))

    def _place(self, places: slice, ids: Ids) -> None:
        super()._place(places, ids)
        if self._places is not None:
            self._places[ids] = np.arange(places.start, places.stop) + self._n_draft
        self._head.adopt(self._embedding, self._output, places.start, self._n)

    def _forget(self, n: int) -> None:
        if self._places is not None and self._surrogates is not None:
            ids = self._adopted[n : self._n]
            self._places[ids] = self._surrogates[ids]
        super()._forget(n)
        self._head.adopt(self._embedding, self._output, self._n, self._n)


class ScoredIds(AdoptedIds):
    """They are scored here, beside a head that llama.cpp runs.

    norm: (n_embd,) float32, and eps: the head's own, between its last row and its output
    """

    def __init__(
        self, norm: Floats, eps: float, tables: TargetTables, vocabulary: DraftVocabulary
    ) -> None:
        super().__init__(tables, vocabulary)
        self._surrogates = vocabulary.surrogates
        self._norm, self._eps = norm, eps
        self._output = np.zeros((N_ADOPTED, tables.n_embd), np.float32)
        self._kept = (self._output,)

    def read_next(self, place: int, token: int) -> int:
        return place if place < self._n_draft else int(self._surrogates[token])

    def logits(self, context: HeadContext) -> Floats:
        logits, hidden = super().logits(context), context.hidden()
        if hidden is None or not self._n:
            return logits
        row = hidden[0]
        scale = 1 / np.sqrt(np.mean(row * row) + self._eps)
        normed = (row * scale * self._norm).astype(np.float32)
        more = multiplied(normed, self._output[: self._n])
        return np.concatenate([logits, more])

    def _rows(self, ids: Ids) -> tuple[Floats]:
        return (self._tables.output(ids),)
