"""A match of a single id is copied from once an answer is long enough to win something back."""

from __future__ import annotations

import math

from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.policy import Seconds
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.tuning import TUNING

N_BEFORE = TUNING.policy.n_before_weak
# Rows that cost next to nothing, as memory-bound ones do
CHEAP = CostTable(
    target_s=tuple(0.02 + 0.0002 * n for n in range(16)),
    growth_s=(0.0,) * 16,
    first_s=math.inf,
    row_s=0.0,
    step_s=math.inf,
    switch_s=0.0,
)


def verified(length: int, n_said: int) -> list[int]:
    """Of ids that such a match proposes, after so many tokens of an answer."""
    policy = ExpectedValue(CostModel(CHEAP))
    policy.open_answer()
    for n_past in range(n_said):
        policy.begin(100, n_past, 0, Match())
        policy.choose(Draft())
        policy.observe([7], Seconds(0.0, 0.02))
    policy.begin(100, n_said, 0, Match([1, 2], length, [1, 1]))
    return list(policy.choose(Draft()))


def test_it_waits() -> None:
    assert verified(1, 0) == verified(1, N_BEFORE - 1) == []
    assert verified(1, N_BEFORE)[:1] == [1]


def test_longer_ones_do_not() -> None:
    assert verified(2, 0)[:1] == [1]
