"""The n-gram index against a plain search, and what it does at the edges."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_cli.engine.drafters.ngram import Match, NgramDrafter
from mtp_cli.engine.types import MAX_COPIED

texts = st.lists(st.integers(0, 3), max_size=60)


def following(text: list[int], *, is_alone: bool = False) -> NgramDrafter:
    drafter = NgramDrafter(is_alone=is_alone)
    drafter.observe(text)
    return drafter


def n_agreeing(text: list[int], end: int, other: int) -> int:
    """How many ids before `end` and before `other` are the same."""
    n = 0
    while n < min(end, other) and text[end - 1 - n] == text[other - 1 - n]:
        n += 1
    return n


@settings(deadline=None)
@given(texts, st.integers(0, 3), st.booleans())
def test_a_match_is_the_latest_place_that_agrees_in_enough_ids(
    text: list[int], newest: int, is_alone: bool
) -> None:
    whole = [*text, newest]
    match = following(text, is_alone=is_alone).match(newest, MAX_COPIED)
    agreeing = {place: n_agreeing(whole, len(whole), place) for place in range(1, len(whole))}
    longest = max(agreeing.values(), default=0)
    sizes = [size for size in (1, 2, 3, 6, 12) if size <= longest and size >= 2 - is_alone]
    if not sizes:
        assert match == Match()
        return
    size = max(sizes)
    place = max(place for place, n in agreeing.items() if n >= size)
    expected = list(whole)
    for k in range(MAX_COPIED):  # the copy may run into what it has just copied
        expected.append(expected[place + k])
    assert match.ids == expected[len(whole) :]
    assert match.length == agreeing[place]


@settings(deadline=None)
@given(texts, st.integers(0, 60), texts, st.integers(0, 3))
def test_what_is_forgotten_leaves_no_trace(
    text: list[int], n_past: int, more: list[int], newest: int
) -> None:
    drafter = following(text)
    drafter.truncate(n_past)
    drafter.observe(more)
    fresh = following(text[:n_past] + more)
    assert drafter.n_past == fresh.n_past
    assert drafter.match(newest, 8) == fresh.match(newest, 8)


def test_a_loop_is_copied_round_and_round() -> None:
    assert following([7, 8, 9, 7, 8]).match(9, 7).ids == [7, 8, 9, 7, 8, 9, 7]


def test_room_limits_the_copy() -> None:
    drafter = following([1, 2, 3, 4, 1])
    assert drafter.match(2, 1).ids == [3]
    assert drafter.match(2, 0).ids == []
    assert len(drafter.match(2, 1000).ids) == MAX_COPIED
