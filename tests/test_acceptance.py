"""What heads accepted when made: kept in metadata, and compared with what they accept now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtp_cli.acceptance import (
    KEY_COUNTS,
    KEY_DEPTH,
    KEY_FORMAT,
    KEY_MAX_TOKENS,
    KEY_PROMPTS,
    KEYS,
    Acceptance,
    Record,
    compare,
    total,
)
from mtp_cli.errors import MtpError

RECORD = Record(
    "held-out-00000000",
    "Be brief.",
    "q4_1",
    200,
    (Acceptance(19, 10, 10, (6, 3)), Acceptance(7, 5, 4, (2, 0))),
)


def drawn(rate: float, n_answers: int, seed: int) -> list[Acceptance]:
    """Answers of 80 rounds at depth 3, each draft accepted with this chance."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n_answers):
        reached = np.logical_and.accumulate(rng.random((80, 3)) < rate, axis=1).sum(0)
        counts = tuple(int(n) for n in reached)
        found.append(Acceptance(80 + sum(counts), 80, 80, counts))
    return found


def test_a_record_is_read_as_it_was_written() -> None:
    assert set(RECORD.metadata()) == set(KEYS)
    assert Record.from_metadata(RECORD.metadata()) == RECORD
    bare = Record("x", None, "f16", 1, RECORD.answers)
    assert Record.from_metadata(bare.metadata()) == bare
    assert Record.from_metadata({}) is None


def test_rates_are_of_drafts_whose_predecessor_was_accepted() -> None:
    both = RECORD.total
    assert both == Acceptance(26, 15, 14, (8, 3))
    assert both.conditional == [8 / 14, 3 / 8]
    assert str(both) == "0.571 0.375  tokens/round 1.73  (26 tokens)"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEY_PROMPTS, 1),
        (KEY_FORMAT, None),
        (KEY_MAX_TOKENS, 0),
        (KEY_MAX_TOKENS, "200"),
        (KEY_DEPTH, 9),
        (KEY_DEPTH, 3),
        (KEY_COUNTS, []),
        (KEY_COUNTS, [1.5] * 10),
        (KEY_COUNTS, [-1] * 10),
        (KEY_COUNTS, "counts"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(MtpError, match=KEY_COUNTS if key == KEY_DEPTH and value == 3 else key):
        Record.from_metadata({**RECORD.metadata(), key: value})


def test_the_same_answers_are_as_good() -> None:
    found = compare(RECORD.answers, RECORD.answers)
    assert found.difference == 0
    assert not found.is_worse
    assert not found.is_better


@pytest.mark.parametrize("n_answers", [10, 50])
def test_equal_heads_seldom_look_worse(n_answers: int) -> None:
    """In one of 60 pairs of ten answers, by Student's t: here in 8 of 200 at most."""
    pairs = [(drawn(0.6, n_answers, n), drawn(0.6, n_answers, 1000 + n)) for n in range(200)]
    assert sum(compare(then, now).is_worse for then, now in pairs) <= 8


@pytest.mark.parametrize(("n_answers", "fallen"), [(10, 0.45), (50, 0.53)])
def test_a_fall_is_seen_and_so_is_a_rise(n_answers: int, fallen: float) -> None:
    then, now = drawn(0.6, n_answers, 1), drawn(fallen, n_answers, 2)
    assert compare(then, now).is_worse
    assert compare(now, then).is_better
    before, after = total(then, 3), total(now, 3)
    difference = after.tokens_per_round - before.tokens_per_round
    assert compare(then, now).difference == pytest.approx(difference)


def test_a_certain_difference_that_nobody_feels_is_none() -> None:
    then = [Acceptance(200, 100, 100, (60, 40))] * 10
    now = [Acceptance(199, 100, 100, (60, 39))] * 10
    assert not compare(then, now).is_worse
