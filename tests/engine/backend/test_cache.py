"""A target's cache in other number formats: lossless, exact in any company, refused in a line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import HiddenSource
from mtp_cli.errors import MtpError
from mtp_cli.models import built_in_heads, built_in_model
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.engine.scripted import finish

MIXED = (CacheTypes("q8_0", "q8_0"), CacheTypes("q8_0"), CacheTypes(v="q8_0"))
F32 = CacheTypes("f32", "f32")
SOME = (*MIXED, F32, CacheTypes("bf16", "bf16"), CacheTypes("q4_0", "q4_0"))
GREEDY = Sampling(temperature=0.0)


def named(cache: CacheTypes) -> str:
    return f"{cache.k}-{cache.v}"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    loaded = Model(built_in_model())
    yield loaded
    loaded.close()


@pytest.fixture(params=[True, False], ids=["ours", "llama"])
def attention(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whose attention it is: ours, or llama.cpp's, where there are kernels of ours."""
    if our_kernels.install() is None:
        pytest.skip("no kernels here")
    our_kernels.enable(attention=request.param)
    yield request.param
    our_kernels.enable()


@pytest.mark.parametrize(
    ("n_past", "cache"), [*((250, cache) for cache in SOME), (505, SOME[0]), (505, F32)]
)
def test_rows_are_exact_in_any_company(
    model: Model, cache: CacheTypes, n_past: int, attention: bool
) -> None:
    """Across 256 or 512 cells; with our attention, however the prompt is cut."""
    ids, logits = tiny.random_ids(12, seed=9), []
    prompt = [7 * n % 61 + 1 for n in range(n_past)]
    for n_rows, n_part in ((1, 256), (3, 256), (12, 101 if attention else 256)):
        target = Target(model, n_ctx=1024, n_threads=1, hidden=HiddenSource.NONE, cache=cache)
        for start in range(0, n_past, n_part):
            target.prefill(prompt[start : start + n_part], 0, lambda: False)
        rows = [target.decode(ids[i : i + n_rows]).logits.copy() for i in range(0, 12, n_rows)]
        logits.append(np.concatenate(rows))
        target.close()
    assert all(np.array_equal(logits[0], other) for other in logits[1:])


def test_a_smaller_cache_is_another_one(model: Model) -> None:
    logits = []
    for cache in (CacheTypes(), CacheTypes("q8_0"), CacheTypes(v="q8_0"), CacheTypes("q4_0")):
        target = Target(model, n_ctx=64, n_threads=1, hidden=HiddenSource.NONE, cache=cache)
        rows = target.prefill(tiny.random_ids(9, seed=9), 0, lambda: False)
        assert rows is not None
        logits.append(rows.logits[-1].copy())
        target.close()
    apart = [np.abs(logits[0] - other).max() for other in logits[1:]]
    assert min(apart[:2]) > 0
    assert max(apart[:2]) < apart[2]


@pytest.mark.parametrize("cache", MIXED, ids=named)
def test_greedy_answers_are_plain_decodings(cache: CacheTypes) -> None:
    with Engine.open(built_in_model(), built_in_heads(), n_ctx=512, cache=cache) as engine:
        prompt = engine.tokenize("Count to thirty: 1, 2, 3,", add_special=True, parse_special=False)
        plain, *drafted = (
            engine.generate(prompt, GREEDY, max_tokens=60, depth=depth) for depth in (0, 2, 7)
        )
        answer = finish(plain)
        for generation in drafted:
            assert finish(generation) == answer
            assert sum(generation.stats.accepted) > 0


def test_a_width_that_blocks_do_not_divide_is_refused(tiny_file: Files) -> None:
    with pytest.raises(MtpError, match="--cache-type-k") as refused:
        Engine.open(tiny_file("llama"), n_ctx=64, cache=CacheTypes("q8_0"))
    assert str(refused.value).endswith(": its heads have 16 numbers, and blocks have 32")
