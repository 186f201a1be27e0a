"""Row counts that change bits are found out on the text, and answers stay plain decoding's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from mtp_cli.engine.depth.exactness import CheckedTarget, Exactness
from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.drafters.base import NoDrafter
from mtp_cli.engine.generate import Generation
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, Rows
from tests.engine.scripted import (
    GREEDY,
    ScriptedDrafter,
    ScriptedTarget,
    finish,
    new_generation,
)

N_MAX = 16
PROMPT = [1, 2, 3] * 6
N_TOKENS = 200


@dataclass
class Rounding(ScriptedTarget):
    """Rows in some companies are rounded otherwise, so much that another id is the best.

    is_off: of how many rows, and how many ids were before; each decode takes a millisecond a row
    """

    is_off: Callable[[int, int], bool] = lambda n_rows, n_past: False
    now: float = 0.0
    n_ctx: int = 1024
    counts: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def decode(self, tokens: Sequence[int]) -> Rows:
        n_past = len(self.ids)
        rows = super().decode(tokens)
        self.now += 1e-3 * len(tokens)
        self.counts.append(len(tokens))
        if self.is_off(len(tokens), n_past):
            return Rows(np.roll(rows.logits, 1, axis=1), rows.hidden)
        return rows


def plain() -> list[int]:
    return finish(new_generation(Rounding(), NoDrafter(), PROMPT, depth=0, max_tokens=N_TOKENS))


def checked(
    target: Rounding, exactness: Exactness, *, can_repeat: bool = True
) -> tuple[list[int], CheckedTarget]:
    """An answer at a fixed depth, with heads that are always right."""
    seen = CheckedTarget(target, exactness, can_repeat=can_repeat, clock=target.clock)
    heads = ScriptedDrafter(seen, [*PROMPT, *plain(), *[0] * 20], lambda: True)
    generation = Generation(
        seen,
        heads,
        Sampler(GREEDY),
        FixedDepth(MAX_DEPTH, exactness),
        PROMPT,
        max_tokens=N_TOKENS,
        is_end=lambda token: False,
        clock=seen.clock,
    )
    seen.stats = generation.stats
    return finish(generation), seen


def test_where_nothing_changes_a_bit_all_counts_are_believed() -> None:
    exactness = Exactness(N_MAX)
    for _ in range(6):
        tokens, seen = checked(Rounding(), exactness)
        assert tokens == plain()
    assert exactness.proven == (1, *range(2, 10), 12, 16)
    assert len(seen.stats.verified) == MAX_DEPTH
    assert seen.stats.inexact == []


@pytest.mark.parametrize("off", [{2}, {4, 5, 6, 7, 8, 9, 12, 16}, set(range(2, 17))])
def test_counts_that_change_bits_are_never_verified(off: set[int]) -> None:
    exactness = Exactness(N_MAX)
    for _ in range(6):
        tokens, seen = checked(Rounding(is_off=lambda n, _past: n in off), exactness)
        assert tokens == plain()
        assert seen.stats.inexact == []
    assert not off & set(exactness.proven)
    assert all(exactness.is_refused(n) for n in off if n in (*range(2, 10), 12, 16))
    assert set(exactness.proven) == {1, *range(2, 10), 12, 16} - off


def test_a_count_is_proven_for_each_size_of_context_anew() -> None:
    exactness = Exactness(N_MAX)
    for _ in range(6):
        checked(Rounding(), exactness)
    exactness.n_past = 300
    assert exactness.proven == (1,)


def test_one_difference_ends_the_belief_and_is_reported() -> None:
    """Proven on six answers; then the machine changes."""
    exactness = Exactness(N_MAX)
    for _ in range(6):
        checked(Rounding(), exactness)
    tokens, seen = checked(Rounding(is_off=lambda n, _past: n == 9), exactness)
    assert tokens == plain(), "the first decodes of a count in an answer are compared"
    assert seen.stats.inexact == [9]
    assert exactness.is_refused(9)
    assert 8 in exactness


def test_a_memory_that_cannot_drop_rows_gets_single_rows_only() -> None:
    exactness = Exactness(N_MAX)
    target = Rounding()
    tokens, _ = checked(target, exactness, can_repeat=False)
    assert tokens == plain()
    assert set(target.counts) == {1}


def test_comparing_takes_a_share_of_the_time_and_no_rounds() -> None:
    exactness = Exactness(N_MAX)
    target = Rounding()
    _, seen = checked(target, exactness)
    tuning = TUNING.exactness
    once_s = 1e-3 * (N_MAX + 1)
    assert seen.stats.checking_s <= tuning.first_s + tuning.share * target.now + once_s
    assert target.now == pytest.approx(seen.stats.decode_s + seen.stats.checking_s)


def test_what_is_known_comes_back_from_a_file() -> None:
    exactness = Exactness(N_MAX)
    for _ in range(6):
        checked(Rounding(is_off=lambda n, _past: n == 4), exactness)
    again = Exactness.from_json(exactness.to_json(), N_MAX)
    assert again is not None
    assert again.proven == exactness.proven
    assert again.is_refused(4)


@pytest.mark.parametrize(
    "entry",
    [
        *(None, 5, [], {}, {"agreed": [], "refused": 4}, {"agreed": 4, "refused": []}),
        *({"agreed": [[0, 2]], "refused": []}, {"agreed": [[0, 2, -1]], "refused": []}),
        *({"agreed": [[0, 2, True]], "refused": []}, {"agreed": [[0, 2, 8]], "refused": ["4"]}),
        {"agreed": [[0, [2], 8]], "refused": []},
    ],
)
def test_what_is_no_such_file_is_found_out_anew(entry: object) -> None:
    assert Exactness.from_json(entry, N_MAX) is None
