"""The longest known beginning of a prompt is chosen, and the oldest conversation goes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mtp_cli.engine.prefix import n_common_array
from mtp_cli.engine.types import Saved
from mtp_cli.serve.timelines import N_WORTH_KEEPING, Timelines

A, B, C = ([n] * 100 for n in (1, 2, 3))
MORE = [9] * 10
N_STATE = 1000


class OneTimeline:
    """An engine that holds ids; what it saves takes N_STATE bytes and the ids."""

    def __init__(self, *, can_shorten: bool = True) -> None:
        self.can_shorten = can_shorten
        self.cached: Sequence[int] = []
        self.n_saved = self.n_restored = 0

    def save(self) -> Saved:
        self.n_saved += 1
        return Saved(tuple(self.cached), np.zeros(N_STATE, np.uint8))

    def restore(self, saved: Saved) -> None:
        self.n_restored += 1
        self.cached = list(saved.ids)

    def read(self, timelines: Timelines, prompt: list[int]) -> int:
        """Answer a prompt; how much of it was known."""
        timelines.prepare(prompt)
        n = n_common_array(np.array(self.cached), np.array(prompt[:-1]))
        if not self.can_shorten and n < len(self.cached):
            n = 0
        self.cached = [*prompt, 7]
        return n


def test_conversations_that_take_turns_are_read_once() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 1 << 20)
    assert [engine.read(timelines, ids) for ids in (A, B, C)] == [0, 0, 0]
    assert [engine.read(timelines, [*ids, 7, *MORE]) for ids in (A, B, C)] == [101] * 3
    assert len(timelines) == 2


def test_a_conversation_that_goes_on_needs_no_saving() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 1 << 20)
    engine.read(timelines, A)
    assert engine.read(timelines, [*A, 7, *MORE]) == 101
    assert (engine.n_saved, engine.n_restored) == (0, 0)


def test_a_beginning_that_many_share_is_used_where_nothing_longer_is_known() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 1 << 20)
    engine.read(timelines, [*A, *B])
    assert engine.read(timelines, [*A, *C]) == 100
    assert engine.read(timelines, [*A, *B, 7, *MORE]) == 201


def test_the_least_recently_used_goes_where_memory_ends() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 2 * (N_STATE + 8 * 101) + 1)
    for ids in (A, B, C, [4] * 100):
        engine.read(timelines, ids)
    assert len(timelines) == 2
    assert timelines.n_bytes == 2 * (N_STATE + 8 * 101)
    assert engine.read(timelines, [*A, 7, *MORE]) == 0
    assert engine.read(timelines, [*C, 7, *MORE]) == 101


def test_without_memory_nothing_is_kept() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 0)
    engine.read(timelines, A)
    engine.read(timelines, B)
    assert (len(timelines), timelines.n_bytes) == (0, 0)


def test_few_ids_are_not_worth_it() -> None:
    engine = OneTimeline()
    timelines = Timelines(engine, 1 << 20)
    engine.read(timelines, A[: N_WORTH_KEEPING - 1])
    engine.read(timelines, B)
    assert engine.n_saved == 0


@pytest.mark.parametrize("goes_on", [True, False])
def test_memories_that_cannot_drop_ids_are_used_whole_or_not_at_all(goes_on: bool) -> None:
    engine = OneTimeline(can_shorten=False)
    timelines = Timelines(engine, 1 << 20)
    engine.read(timelines, A)
    engine.read(timelines, B)
    prompt = [*A, 7, *MORE] if goes_on else [*A, 8, *MORE]
    assert engine.read(timelines, prompt) == (101 if goes_on else 0)


def test_what_both_begin_with() -> None:
    pairs: Sequence[tuple[list[int], list[int]]] = (
        ([1, 2, 3], [1, 2, 4]),
        ([1, 2], [1, 2, 4]),
        ([], [1]),
        ([5], [1]),
    )
    found = [n_common_array(np.array(a, np.int32), np.array(b, np.int32)) for a, b in pairs]
    assert found == [2, 2, 0, 0]
