"""Who watches an answer sees each token beside the row that it was chosen from."""

from __future__ import annotations

import pytest

from mtp_cli.engine import Engine, Sampling
from tests.engine import tiny
from tests.engine.conftest import Files


@pytest.mark.parametrize("depth", [0, 4])
def test_greedy_tokens_are_the_best_of_their_rows(tiny_file: Files, depth: int) -> None:
    seen: list[tuple[int, int]] = []
    with Engine.open(tiny_file("llama-q8_0"), tiny_file("heads"), n_ctx=256) as engine:
        generation = engine.generate(
            tiny.random_ids(20) * 2,
            Sampling(temperature=0),
            max_tokens=40,
            depth=depth,
            watch=lambda token, logits: seen.append((token, int(logits.argmax()))),
        )
        list(generation)
    assert [token for token, _ in seen] == generation.tokens
    assert [best for _, best in seen] == generation.tokens
    assert (sum(generation.stats.verified) > 0) == (depth > 0)
