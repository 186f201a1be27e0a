"""Reads the ids of a draft off a block that was run, place by place.

Owns what differs between the kinds of block drafters. Knows nothing of how blocks are run.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.files.block import Block
from mtp_cli.engine.sampling.proposals import Propose
from mtp_cli.engine.types import Floats


class Given(Protocol):
    """What a block that was run gives."""

    def logits(self) -> Floats:
        """(size, n_vocab) float32, a view."""

    def own_rows(self) -> Floats:
        """(size, n_embd) float32, a view."""


class Slots(Protocol):
    """The places of one block, from the first that drafts on."""

    def begin(self, given: Given) -> None: ...

    def take(self, draft: Draft, propose: Propose) -> bool:
        """Add the next place's id; False where nothing in the block follows such an id."""


def slots_of(block: Block) -> Slots:
    if block.kind == "DSpark":
        return ChainedSlots(block.first, has_confidence=block.has_confidence)
    if block.kind == "DFlash2":
        return LatticeSlots(block.first, block.n_candidates)
    return PlainSlots(block.first)


class PlainSlots:
    """DFlash: each place chooses by itself, whatever stands in the others."""

    def __init__(self, first: int) -> None:
        self._first = first

    def begin(self, given: Given) -> None:
        self._logits = given.logits()

    def take(self, draft: Draft, propose: Propose) -> bool:
        draft.take(self._logits[self._first + len(draft.ids)], propose)
        return True


class ChainedSlots:
    """DSpark: to each place's logits llama.cpp has added what the likeliest id before it says
    (a Markov head). So where another one is drafted, no place after it follows.

    has_confidence: its own rows hold at every number how likely the place's id is to be accepted
    """

    def __init__(self, first: int, *, has_confidence: bool) -> None:
        self._first, self._has_confidence = first, has_confidence

    def begin(self, given: Given) -> None:
        self._logits = given.logits()
        self._rows = given.own_rows() if self._has_confidence else None

    def take(self, draft: Draft, propose: Propose) -> bool:
        slot = self._first + len(draft.ids)
        row = self._logits[slot]
        likeliest = int(row.argmax())  # a grammar may change the row
        prob = None if self._rows is None else float(self._rows[slot, 0])
        return draft.take(row, propose, prob=prob) == likeliest


class LatticeSlots:
    """DFlash2: each place has a few candidates, and a score for each after each of the ones before.

    Its own rows hold n_candidates ids, then for each candidate of the place before the scores of
    this place's; the first one's place before has the newest id alone.
    """

    def __init__(self, first: int, n_candidates: int) -> None:
        self._first, self._n = first, n_candidates

    def begin(self, given: Given) -> None:
        self._rows = given.own_rows()
        self._before = 0  # which candidate was drafted

    def take(self, draft: Draft, propose: Propose) -> bool:
        row = self._rows[self._first + len(draft.ids)]
        start = self._n * (1 + self._before)
        ids, scores = row[: self._n].astype(np.int32), row[start : start + self._n]
        order = np.argsort(ids)  # `Propose` takes them increasing
        self._before = int(order[draft.take(scores[order], propose, ids[order])])
        return True
