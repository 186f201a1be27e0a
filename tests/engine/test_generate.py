"""The loop, on a scripted target: the order of events, every way to end, statistics.

`test_lossless.py` runs the same loop over llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.drafters import NoDrafter
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.generate import Generation, _proposers
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.stats import Stats
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from tests.engine.scripted import (
    GREEDY,
    N_VOCAB,
    SKILLS,
    ScriptedDrafter,
    ScriptedTarget,
    finish,
    new_generation,
    wander,
)

PROMPT = [5, 6, 7]


def text(n: int, prompt: list[int] = PROMPT) -> list[int]:
    """What follows the prompt."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(wander(ids))
    return ids[len(prompt) :]


def perfect(target: ScriptedTarget, prompt: list[int] = PROMPT) -> ScriptedDrafter:
    return ScriptedDrafter(target, prompt + text(64, prompt), lambda: True)


def test_plain_decoding_is_one_row_a_round() -> None:
    target = ScriptedTarget()
    generation = new_generation(target, NoDrafter(), PROMPT, depth=0, max_tokens=4)
    rounds = list(generation)
    assert rounds == [(token,) for token in text(4)]
    calls = [call for call in target.log if call[0] != "truncate"]
    assert calls == [("prefill", PROMPT), *(("verify", [token]) for token in text(3))]
    assert generation.finish_reason == "length"
    assert target.ids == PROMPT + text(3)


def test_a_round_verifies_the_newest_id_and_its_draft() -> None:
    target = ScriptedTarget()
    generation = new_generation(target, perfect(target), PROMPT, depth=3, max_tokens=9)
    expected = text(9)
    assert list(generation) == [(expected[0],), tuple(expected[1:5]), tuple(expected[5:9])]
    assert [call for call in target.log if call[0] == "verify"] == [
        ("verify", expected[0:4]),
        ("verify", expected[4:8]),
    ]
    assert target.ids == PROMPT + expected[:8]


def test_who_proposed_each_token() -> None:
    target = ScriptedTarget()
    generation = new_generation(target, perfect(target), PROMPT, depth=2, max_tokens=7)
    list(generation)
    assert generation.proposers == ["target", *["drafter", "drafter", "target"] * 2]


def test_a_wrong_draft_is_the_targets_own() -> None:
    target = ScriptedTarget()
    drafter = ScriptedDrafter(target, PROMPT + text(64), lambda: len(target.ids) % 2 == 0)
    generation = new_generation(target, drafter, PROMPT, depth=3, max_tokens=20)
    rounds = list(generation)
    owners = iter(generation.proposers)
    for ids in rounds:
        own = [next(owners) for _ in ids]
        assert own == ["drafter"] * (len(ids) - 1) + ["target"]


@pytest.mark.parametrize(("n_window", "is_shown"), [(1, True), (8, False)])
def test_a_prompts_window_is_read_after_the_first_token(n_window: int, is_shown: bool) -> None:
    """What reads none sees the prompt before, since it would miss it if the answer ended."""
    target = ScriptedTarget()
    drafter = perfect(target)
    drafter.n_window = n_window
    generation = new_generation(target, drafter, PROMPT, depth=3, max_tokens=9)
    next(generation)
    assert bool(drafter.seen) == is_shown
    next(generation)
    assert drafter.seen


class Copying(FixedDepth):
    """Verifies whatever can be copied."""

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        self._match = match
        return 0

    def choose(self, draft: Draft) -> list[int]:
        return self._match.ids


def test_what_was_copied_is_a_copy() -> None:
    def in_fours(ids: Sequence[int]) -> Floats:
        row = np.zeros(N_VOCAB, np.float32)
        row[1 + len(ids) % 4] = 10
        return row

    target, sampler = ScriptedTarget(in_fours), Sampler(GREEDY)
    generation = Generation(
        target, NoDrafter(), sampler, Copying(0), [9], max_tokens=60, is_end=lambda _id: False
    )
    rounds = list(generation)
    assert generation.tokens == [1 + n % 4 for n in range(1, 61)]
    owners = iter(generation.proposers)
    for ids in rounds:
        assert [next(owners) for _ in ids] == ["copy"] * (len(ids) - 1) + ["target"]
    assert generation.proposers.count("copy") > 30


def test_what_a_grammar_forces_is_the_grammars() -> None:
    """Its first two ids of each round, of which a copy goes on."""
    match = Match([1, 2, 3], 3, [1, 1, 1], n_forced=2)
    draft = Draft([1, 2, 9], [1.0] * 3)
    owners = [*_proposers(match, draft, [1, 2, 3], [1, 2, 3, 4])]
    assert owners == ["grammar", "grammar", "copy", "target"]
    assert [*_proposers(match, draft, [1, 2, 9], [1, 7])] == ["grammar", "target"]


def test_a_rejected_draft_is_dropped_at_once() -> None:
    target = ScriptedTarget()
    drafter = ScriptedDrafter(target, PROMPT + text(64), iter([True, False, True] * 9).__next__)
    generation = new_generation(target, drafter, PROMPT, depth=3, max_tokens=64)
    next(generation)
    assert len(target.ids) == 3
    assert next(generation) == tuple(text(3)[1:])
    assert target.ids == PROMPT + text(2)
    assert target.log[-1] == ("truncate", 5)
    assert generation.stats.verified == [1, 1, 1]
    assert generation.stats.accepted == [1, 0, 0]


def test_the_drafter_sees_every_row_of_the_answer_once_and_true() -> None:
    target = ScriptedTarget()
    drafter = ScriptedDrafter(target, PROMPT + text(64), SKILLS["random"]())
    finish(new_generation(target, drafter, PROMPT, depth=4, max_tokens=30))
    ids = PROMPT + text(29)
    assert target.ids == ids
    for position, (token, hidden) in drafter.seen.items():
        assert token == ids[position]
        assert hidden is not None
        assert hidden.tolist() == [position, token]
    assert sorted(drafter.seen) == list(range(len(ids)))


# Ways to end


@pytest.mark.parametrize("max_tokens", range(1, 12))
@pytest.mark.parametrize("skill", SKILLS)
def test_never_more_than_max_tokens(max_tokens: int, skill: str) -> None:
    target = ScriptedTarget()
    drafter = ScriptedDrafter(target, PROMPT + text(64), SKILLS[skill]())
    generation = new_generation(target, drafter, PROMPT, depth=4, max_tokens=max_tokens)
    assert finish(generation) == text(max_tokens)
    assert generation.finish_reason == "length"
    assert generation.stats.completion_tokens == max_tokens
    assert target.ids == PROMPT + text(max_tokens - 1)


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_no_tokens_are_none(max_tokens: int) -> None:
    target = ScriptedTarget()
    generation = new_generation(target, NoDrafter(), PROMPT, depth=0, max_tokens=max_tokens)
    assert list(generation) == []
    assert generation.finish_reason == "length"
    assert target.log == []
    assert generation.stats.tokens_per_s == 0


@pytest.mark.parametrize("position", range(9))
@pytest.mark.parametrize("skill", SKILLS)
def test_an_end_inside_a_draft_is_the_end(position: int, skill: str) -> None:
    """Tokens drafted and right beyond the end do not come out, and are not in the timeline."""
    answer = text(64)
    end = answer[position]
    n = answer.index(end) + 1
    target = ScriptedTarget()
    drafter = ScriptedDrafter(target, PROMPT + answer, SKILLS[skill]())
    generation = new_generation(
        target, drafter, PROMPT, depth=4, max_tokens=64, is_end=lambda token: token == end
    )
    assert finish(generation) == answer[:n]
    assert generation.finish_reason == "stop"
    assert target.ids == PROMPT + answer[: n - 1]
    if skill == "perfect":  # the end itself is drafted and accepted, where it is not a round's last
        assert sum(generation.stats.accepted) == n - 1 - (n - 1) // 5


@pytest.mark.parametrize("n_ctx", range(4, 16))
@pytest.mark.parametrize("skill", SKILLS)
def test_up_to_a_full_context(n_ctx: int, skill: str) -> None:
    """Every position is used; the last token needs none."""
    target = ScriptedTarget(n_ctx=n_ctx)
    drafter = ScriptedDrafter(target, PROMPT + text(64), SKILLS[skill]())
    generation = new_generation(target, drafter, PROMPT, depth=4, max_tokens=64)
    assert finish(generation) == text(n_ctx - len(PROMPT) + 1)
    assert generation.finish_reason == "length"
    assert len(target.ids) == n_ctx


def test_stop_ends_after_the_round_in_progress() -> None:
    target = ScriptedTarget()
    generation = new_generation(target, perfect(target), PROMPT, depth=3, max_tokens=64)
    next(generation)
    next(generation)
    generation.stop()
    assert list(generation) == []
    assert generation.finish_reason == "interrupted"
    assert generation.tokens == text(5)
    assert target.ids == PROMPT + text(4)


def test_stop_before_the_first_token() -> None:
    """A long prompt can be interrupted; what was read of it stays."""
    target = ScriptedTarget(n_batch=8)
    prompt = list(range(1, 31))
    generation = new_generation(target, NoDrafter(), prompt, depth=0)
    generation.stop()
    assert list(generation) == []
    assert generation.tokens == []
    assert generation.finish_reason == "interrupted"
    assert target.ids == prompt[:8]
    again = new_generation(target, NoDrafter(), prompt, depth=0, max_tokens=5)
    assert finish(again) == text(5, prompt)
    assert again.stats.cached_tokens == 8


def test_an_abandoned_answer_leaves_the_timeline_consistent() -> None:
    target = ScriptedTarget()
    generation = new_generation(target, perfect(target), PROMPT, depth=3, max_tokens=64)
    next(generation)
    next(generation)
    del generation
    assert target.ids == PROMPT + text(4)
    following = [*PROMPT, *text(5), 9]
    again = new_generation(target, perfect(target, following), following, depth=3, max_tokens=7)
    assert finish(again) == text(7, following)
    assert again.stats.cached_tokens == len(PROMPT) + 4


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ([], "the prompt is empty"),
        (list(range(1, 9)), "the prompt has 8 tokens and the context 8: no room for an answer"),
    ],
)
def test_prompts_that_cannot_be_answered(prompt: list[int], line: str) -> None:
    target = ScriptedTarget(n_ctx=8)
    generation = new_generation(target, NoDrafter(), prompt, depth=0)
    with pytest.raises(MtpError, match=f"^{line}"):
        next(generation)
    assert target.log == []


def test_a_memory_that_cannot_drop_a_draft_is_an_error() -> None:
    target = ScriptedTarget(can_drop=False)
    drafter = ScriptedDrafter(target, PROMPT + text(64), lambda: False)
    generation = new_generation(target, drafter, PROMPT, depth=2)
    next(generation)
    with pytest.raises(MtpError, match="could not drop a rejected draft"):
        next(generation)


# Statistics


def test_what_an_answer_cost() -> None:
    target = ScriptedTarget()
    drafter = ScriptedDrafter(
        target, PROMPT + text(64), iter([True, True, False, True, False, True]).__next__
    )
    generation = new_generation(target, drafter, PROMPT, depth=3, max_tokens=6)
    finish(generation)
    stats = generation.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (3, 0, 6)
    assert stats.rounds == 2  # 3 tokens of the first, 2 of the second; 1 of the prompt's pass
    assert stats.verified == [2, 1, 1]  # in the second, the answer had room for one
    assert stats.accepted == [2, 1, 0]
    assert stats.tokens_per_round == 2.5
    assert stats.prefill_s > 0
    assert stats.time_to_first_token_s == stats.prefill_s
    assert stats.tokens_per_s == pytest.approx(5 / stats.decode_s)


def test_an_answer_is_compared_with_plain_rounds_at_its_own_context() -> None:
    def answer(depth: int, row_s: float | None) -> Stats:
        target = ScriptedTarget()
        generation = new_generation(
            target,
            perfect(target),
            PROMPT,
            depth=depth,
            max_tokens=11,
            single_row_s=lambda n_past: None if row_s is None else row_s + n_past,
        )
        finish(generation)
        return generation.stats

    stats = answer(3, 0.5)
    after = [3 + 4, 3 + 8, 3 + 10]  # tokens in context after rounds of 4, 4 and 2
    assert stats.plain_s == sum(n * (0.5 + m) for n, m in zip((4, 4, 2), after, strict=True))
    assert stats.compared_s == pytest.approx(stats.decode_s)
    assert stats.times_plain == pytest.approx(stats.plain_s / stats.decode_s)
    assert answer(3, None).times_plain is None
    assert answer(0, 0.5).times_plain is None  # it is plain


def test_how_much_of_a_prompt_is_read_can_be_asked_meanwhile() -> None:
    target = ScriptedTarget(n_batch=8)
    generation = new_generation(target, NoDrafter(), list(range(1, 31)), depth=0, max_tokens=5)
    assert generation.n_read == 0
    generation.stop()
    finish(generation)
    assert generation.n_read == 8
    again = new_generation(target, NoDrafter(), list(range(1, 31)), depth=0, max_tokens=5)
    finish(again)
    assert again.n_read == 30


def test_an_answer_of_one_token_has_no_rates() -> None:
    generation = new_generation(ScriptedTarget(), NoDrafter(), PROMPT, depth=0, max_tokens=1)
    finish(generation)
    assert generation.stats.tokens_per_s == 0
    assert generation.stats.tokens_per_round == 0
    assert generation.stats.rounds == 0
