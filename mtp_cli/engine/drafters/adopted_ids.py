"""Ids that a head's draft vocabulary lacks, and that it drafts in once the text holds them.

A draft vocabulary holds what a target writes most. What it lacks, names and rare words, comes in an
answer mostly after the text has held it: 0.62 of such ids in the built-in model's answers. So ids
of the text are adopted: the head reads and drafts them by the target's own rows of them, behind its
own tables'. Owns which ids are adopted. Knows nothing of drafting, or of what runs the head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.files.target_tables import TargetTables, to_q8_0
from mtp_cli.engine.types import Bytes, Ids, State
from mtp_cli.head_file import DraftVocabulary

N_ADOPTED = 512  # at most: a sixteenth of a usual draft vocabulary, which each step scores, too


class Adopts(Protocol):
    """A head that can read and score more ids than its file has."""

    def adopt(self, embedding: Bytes | None, output: Bytes, n: int) -> None:
        """The first n rows, in Q8_0, behind its own tables'; they are read in place from then on.
        embedding: None for a head that reads all of the target's ids."""


class AdoptedIds(HeadIds):
    """Of a head that lacks ids of the target's, and drafts in those that the text holds.

    Adopted ids stand in the order in which the text came to hold them.
    """

    def __init__(
        self,
        head: Adopts,
        tables: TargetTables,
        vocabulary: DraftVocabulary | None,
        draft_ids: Ids | None = None,
    ) -> None:
        super().__init__(vocabulary, draft_ids)
        assert self.draft_ids is not None
        self._head, self._tables = head, tables
        self._n_draft, self._n = len(self.draft_ids), 0
        self.draft_ids = np.concatenate([self.draft_ids, np.zeros(N_ADOPTED, np.int32)])
        self._adopted = self.draft_ids[self._n_draft :]
        self._at = np.zeros(N_ADOPTED, np.int64)  # where the text came to hold each
        self._is_known = np.zeros(tables.n_vocab, bool)
        self._is_known[self.draft_ids[: self._n_draft]] = True
        row = to_q8_0(np.zeros((1, tables.n_embd), np.float32))
        self._surrogates = self._places
        self._embedding: Bytes | None = None
        if self._places is not None:
            self._places = self._places.copy()
            self._embedding = np.zeros((N_ADOPTED, row.shape[1]), np.uint8)
        self._output = np.zeros((N_ADOPTED, row.shape[1]), np.uint8)

    def hold(self, ids: Sequence[int], position: int) -> None:
        text = np.array(ids, np.int32)
        lacking = np.flatnonzero(~self._is_known[text])
        if not len(lacking):
            return
        _, first = np.unique(text[lacking], return_index=True)
        at = lacking[np.sort(first)][-N_ADOPTED:]
        self._adopt(text[at], (position + at).astype(np.int64))

    def _adopt(self, ids: Ids, positions: npt.NDArray[np.int64]) -> None:
        with contextlib.suppress(OSError):  # the file is gone: then it drafts without them
            output = to_q8_0(self._tables.output(ids))
            embedding = None if self._embedding is None else self._tables.embedding(ids)
            if self._n + len(ids) > N_ADOPTED:
                self._keep_newest(min(N_ADOPTED // 2, N_ADOPTED - len(ids)))
            new = slice(self._n, self._n + len(ids))
            self._output[new] = output
            self._adopted[new], self._at[new] = ids, positions
            if embedding is not None and self._embedding is not None:
                self._embedding[new] = to_q8_0(embedding)
            self._n = new.stop
            self._is_known[ids] = True
            if self._places is not None:
                self._places[ids] = np.arange(new.start, new.stop) + self._n_draft
            self._tell()

    def _keep_newest(self, n: int) -> None:
        kept = slice(self._n - n, self._n)
        ids = self._adopted[kept].copy()
        for table in (self._output, self._embedding, self._at):
            if table is not None:
                table[:n] = table[kept].copy()
        self._forget(0)
        self._n = n
        self._adopted[:n] = ids
        self._is_known[ids] = True
        if self._places is not None:
            self._places[ids] = np.arange(n) + self._n_draft

    def truncate(self, n_past: int) -> None:
        n = int(np.searchsorted(self._at[: self._n], n_past))
        if n < self._n:
            self._forget(n)
            self._tell()

    def _forget(self, n: int) -> None:
        """All but the first n."""
        ids = self._adopted[n : self._n]
        self._is_known[ids] = False
        if self._places is not None and self._surrogates is not None:
            self._places[ids] = self._surrogates[ids]
        self._n = n

    def _tell(self) -> None:
        self._head.adopt(self._embedding, self._output, self._n)

    def save(self) -> State:
        return {"adopted": self._adopted[: self._n].copy(), "held": self._at[: self._n].copy()}

    def restore(self, state: State) -> None:
        self._forget(0)
        self._tell()
        if len(state["adopted"]):
            self._adopt(state["adopted"], state["held"])

    def close(self) -> None:
        self._tables.close()
