"""What of a draft stands: the target's own choices, one by one, up to the first that differs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.engine.verify import verify

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
