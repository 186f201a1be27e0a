"""What of a draft stands: the target's own choices, one by one, up to the first that differs.

How often drawn drafts stand is `test_distribution.py`'s.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.verify import verify_block
from mtp_cli.engine.sampling.verify import verify_by_match as verify

END = 0
ids = st.integers(0, 5)


def is_end(token: int) -> bool:
    return token == END


def test_the_accepted_part_and_one_more() -> None:
    def choose(row: int) -> int:
        return row  # a row is what the target chooses there

    assert verify([], [4], choose, is_end) == [4]
    assert verify([4, 5], [4, 5, 6], choose, is_end) == [4, 5, 6]
    assert verify([4, 5], [4, 7, 6], choose, is_end) == [4, 7]
    assert verify([4, 5], [7, 5, 6], choose, is_end) == [7]


def test_nothing_follows_an_end() -> None:
    assert verify([4, END, 5], [4, END, 5, 6], lambda row: row, is_end) == [4, END]
    assert verify([4, 5], [END, 5, 6], lambda row: row, is_end) == [END]
    assert verify([], [END], lambda row: row, is_end) == [END]


@given(draft=st.lists(ids, max_size=8), rows=st.lists(ids, min_size=9, max_size=9))
def test_rows_after_a_rejected_token_are_never_looked_at(draft: list[int], rows: list[int]) -> None:
    looked_at = []

    def choose(row: tuple[int, int]) -> int:
        looked_at.append(row[0])
        return row[1]

    chosen = verify(draft, list(enumerate(rows))[: len(draft) + 1], choose, is_end)
    assert looked_at == list(range(len(chosen)))
    assert chosen == rows[: len(chosen)]
    assert chosen[:-1] == draft[: len(chosen) - 1]
    assert not any(map(is_end, chosen[:-1]))
    is_cut = len(chosen) <= len(draft)
    assert not is_cut or chosen[-1] != draft[len(chosen) - 1] or is_end(chosen[-1])


weights = st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0]), min_size=6, max_size=6).filter(any)


def dist(values: list[float]) -> Candidates:
    kept = np.flatnonzero(values).astype(np.int32)
    return Candidates(kept, np.array(values)[kept] / sum(values))


@given(
    draft=st.lists(ids, max_size=4),
    rows=st.lists(weights, min_size=5, max_size=5),
    seed=st.integers(0, 1000),
)
def test_drawn_drafts_stand_in_part_or_give_way_to_what_the_target_can_say(
    draft: list[int], rows: list[list[float]], seed: int
) -> None:
    drawn = {k: dist([0.5] * 6) for k in range(0, len(draft), 2)}
    random = np.random.default_rng(seed).random
    chosen = verify_block(draft, drawn, rows[: len(draft) + 1], dist, random, is_end)
    assert 0 < len(chosen) <= len(draft) + 1
    assert chosen[:-1] == draft[: len(chosen) - 1]
    assert all(dist(row).prob_of(token) > 0 for row, token in zip(rows, chosen, strict=False))
    assert not any(map(is_end, chosen[:-1]))


def test_a_draw_from_the_targets_own_distribution_always_stands() -> None:
    p = dist([0, 1, 2, 3, 4, 5])
    random = np.random.default_rng(0).random
    for _ in range(200):
        draft = [p.token_at(random()) for _ in range(3)]
        drawn = dict.fromkeys(range(3), p)
        chosen = verify_block(draft, drawn, [p] * 4, lambda row: row, random, is_end)
        assert chosen[:3] == draft


def test_what_is_no_number_keeps_nothing() -> None:
    nothing = Candidates(np.arange(2, dtype=np.int32), np.full(2, np.nan))
    draft, drawn = [0, 1], dict.fromkeys(range(2), dist([1, 1]))
    chosen = verify_block(draft, drawn, [nothing] * 3, lambda row: row, lambda: 0.5, is_end)
    assert len(chosen) == 1
