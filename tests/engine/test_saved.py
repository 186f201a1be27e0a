"""A timeline that is saved and put back goes on as if nothing had come between."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.engine import Depth, Engine, Sampling
from tests.engine import tiny
from tests.engine.conftest import Files

GREEDY = Sampling(temperature=0)
KINDS = {
    "llama": None, "gemma2": None, "mimo2": None, "mamba": None, "jamba": None, "qwen3next": None,
    "qwen35": None, "lfm2": None, "lfm2-window": None, "llama-q8_0": "heads-trimmed",
}  # fmt: skip
PROMPT, OTHER, MORE = (tiny.random_ids(n, seed=n) for n in (40, 33, 12))


def answered(
    engine: Engine, prompt: list[int], depth: Depth = 2
) -> tuple[list[int], int, list[int], list[int]]:
    """The answer to a prompt, how much of it was in the timeline, and what became of drafts."""
    generation = engine.generate(prompt, GREEDY, max_tokens=20, depth=depth)
    list(generation)
    stats = generation.stats
    return generation.tokens, stats.cached_tokens, stats.verified, stats.accepted


@pytest.mark.parametrize("name", KINDS)
def test_a_conversation_goes_on_as_if_no_other_had_come_between(
    tiny_file: Files, name: str
) -> None:
    heads = KINDS[name]
    beside = None if heads is None else tiny_file(heads)
    with Engine.open(tiny_file(name), beside, n_ctx=256, n_threads=1) as engine:
        said, *_ = answered(engine, PROMPT)
        longer = [*PROMPT, *said[:-1], *MORE]
        saved = engine.save()
        expected = answered(engine, longer)
        answered(engine, OTHER)
        engine.restore(saved)
        assert list(engine.cached) == [*PROMPT, *said[:-1]]
        assert answered(engine, longer) == expected
        assert expected[1] == len(PROMPT) + len(said) - 1


def test_a_small_model_that_drafts_has_read_what_is_put_back(tiny_file: Files) -> None:
    model: Path = tiny_file("llama")
    with Engine.open(model, draft_model=model, n_ctx=256, n_threads=1) as engine:
        said, *_ = answered(engine, PROMPT, depth=0)
        saved = engine.save()
        answered(engine, OTHER, depth=0)
        engine.restore(saved)
        generation = engine.generate([*PROMPT, *said], GREEDY, max_tokens=30, depth=4)
        list(generation)
        assert sum(generation.stats.accepted) == sum(generation.stats.verified) > 0


def test_what_has_no_room_leaves_an_empty_timeline(tiny_file: Files) -> None:
    with Engine.open(tiny_file("llama"), n_ctx=512, n_threads=1) as large:
        answered(large, tiny.random_ids(400))
        saved = large.save()
    with Engine.open(tiny_file("llama"), n_ctx=256, n_threads=1) as small:
        expected = answered(small, PROMPT)
        small.restore(saved)
        assert list(small.cached) == []
        assert answered(small, PROMPT) == expected


def test_saved_states_are_as_large_as_the_text_is_long(tiny_file: Files) -> None:
    with Engine.open(tiny_file("llama"), n_ctx=512, n_threads=1) as engine:
        answered(engine, tiny.random_ids(40))
        short = engine.save().n_bytes
        answered(engine, tiny.random_ids(400))
        assert short * 4 < engine.save().n_bytes
