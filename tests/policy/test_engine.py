"""The policy inside the real engine, on tiny random models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.depth import FixedDepth, Seconds
from tests.engine import tiny

GREEDY = Sampling(temperature=0)
FORMATS = {
    "F32": gguf.GGMLQuantizationType.F32,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


@pytest.fixture(params=FORMATS)
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trunk = tiny.llama()
    model = trunk.quantized(FORMATS[request.param]).write(tmp_path / "tiny.gguf")
    heads = tiny.heads_for(trunk, hidden="pre_norm").write(tmp_path / "tiny-mtp.gguf")
    with Engine.open(model, heads, n_threads=1) as opened:
        yield opened


def prompt(engine: Engine) -> list[int]:
    """A prompt that repeats itself, and is in the cache but for its last token."""
    ids = tiny.random_ids(40) * 3
    list(engine.generate(ids, GREEDY, max_tokens=1, depth=0))
    return ids


def answer(engine: Engine, ids: list[int], **options: object) -> list[int]:
    generation = engine.generate(ids, GREEDY, max_tokens=60, **options)  # type: ignore[arg-type]
    list(generation)
    return generation.tokens


def test_exact_answers_are_plain_answers(engine: Engine) -> None:
    engine.costs()
    ids = prompt(engine)
    plain = answer(engine, ids, depth=0)
    for depth in ("auto", 1, 4, 8):
        assert answer(engine, ids, depth=depth, exact=True) == plain


def test_exact_answers_keep_to_the_exact_row_counts(engine: Engine) -> None:
    exact = engine.costs().table.exact
    assert exact[0] == 1
    ids = prompt(engine)
    generation = engine.generate(ids, GREEDY, max_tokens=60, depth=8, exact=True)
    list(generation)
    assert generation.stats.exact
    assert len(generation.stats.drafted) == max(exact) - 1


def test_costs_are_measured_once(engine: Engine) -> None:
    costs = engine.costs()
    assert all(seconds > 0 for seconds in costs.table.target_s)
    assert 0 < costs.table.step_s < float("inf")
    assert engine.costs() is costs


def test_a_policy_of_ones_own_can_decide(engine: Engine) -> None:
    seen = []

    class Noting(FixedDepth):
        def observe(self, chosen: object, seconds: Seconds) -> None:
            seen.append(seconds)

    answer(engine, prompt(engine), depth=Noting(2))
    assert seen
    assert all(part >= 0 for seconds in seen for part in (seconds.draft, seconds.verify))
