"""The distribution a row is sampled from, against llama.cpp's own; and the sampler's random
numbers."""

from __future__ import annotations

import ctypes
import math
from typing import TypeVar

import numpy as np
import pytest

from mtp_cli.engine import Sampling
from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from tests.engine.scripted import N_VOCAB, ScriptedTarget, StubbornDrafter, finish, new_generation

N_ROW = 1500


def reference(logits: Floats, sampling: Sampling) -> dict[int, float]:
    """What llama.cpp's own chain of samplers leaves of a row."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for link in (
        lib.llama_sampler_init_top_k(sampling.top_k),
        lib.llama_sampler_init_top_p(sampling.top_p, 1),
        lib.llama_sampler_init_min_p(sampling.min_p, 1),
        lib.llama_sampler_init_temp(sampling.temperature),
    ):
        lib.llama_sampler_chain_add(chain, link)
    data = (lib.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit = token, logit
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    kept = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    lib.llama_sampler_free(chain)
    weights = {token: math.exp(logit - max(kept.values())) for token, logit in kept.items()}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 40, 1000, 5000])
@pytest.mark.parametrize("top_p", [0.0, 0.4, 0.95, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.5])
@pytest.mark.slow
def test_the_truncated_distribution(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    sampling = Sampling(temperature, top_k, top_p, min_p, seed=1)
    sampler = Sampler(sampling)
    rng = np.random.default_rng(61)
    for spread in (0.5, 3.0, 12.0):
        logits = (rng.standard_normal(N_ROW) * spread).astype(np.float32)
        found = sampler.candidates(logits)
        expected = reference(logits, sampling)
        assert set(found.ids.tolist()) == set(expected)
        for token, probability in zip(found.ids.tolist(), found.probs, strict=True):
            assert probability == pytest.approx(expected[token], rel=1e-4)
        assert found.probs.sum() == pytest.approx(1)
        assert sampler.choose(logits) in expected


def test_a_row_that_is_no_numbers_is_one_line_and_no_draw() -> None:
    nothing = np.full(5000, np.nan, np.float32)
    sampler = Sampler(Sampling(), draws_drafts=True)
    with pytest.raises(MtpError, match="NaN"):
        sampler.choose(nothing)
    assert sampler.propose(nothing, None, (), lambda _prob: True).drawn is None


def test_greedy_is_the_first_of_the_best() -> None:
    logits = np.zeros(N_ROW, np.float32)
    logits[[17, 130]] = 5
    for sampling in (Sampling(0), Sampling(0, seed=4), Sampling(-1.0), Sampling(1e-40, seed=4)):
        assert Sampler(sampling).choose(logits) == 17


def test_a_choice_leaves_the_logits_alone() -> None:
    logits = np.random.default_rng(62).standard_normal(N_ROW).astype(np.float32)
    before = logits.copy()
    Sampler(Sampling()).choose(logits)
    assert np.array_equal(logits, before)


def test_a_seed_gives_the_same_choices_and_no_seed_others() -> None:
    rows = np.random.default_rng(63).standard_normal((40, N_ROW)).astype(np.float32)

    def choices(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed))
        return [sampler.choose(row) for row in rows]

    assert choices(5) == choices(5)
    assert choices(5) != choices(6)
    assert choices(None) != choices(None)


def test_choices_come_as_often_as_they_are_likely() -> None:
    sampling = Sampling(temperature=1.0, top_k=5, top_p=1.0, min_p=0.0, seed=9)
    logits = np.random.default_rng(64).standard_normal(N_ROW).astype(np.float32)
    sampler, n = Sampler(sampling), 5000
    counts: dict[int, int] = dict.fromkeys(reference(logits, sampling), 0)
    for _ in range(n):
        counts[sampler.choose(logits)] += 1
    assert _chi_squared(counts, reference(logits, sampling), n) < 20  # 4 degrees: one in 2000


@pytest.mark.slow
def test_drafted_choices_come_as_often_as_the_plain_ones() -> None:
    """Triples of tokens under a drafter that always proposes the same ones, right or wrong: what
    is accepted and what replaces the rejected together have the model's own distribution."""
    table = np.random.default_rng(65).standard_normal((N_VOCAB, N_VOCAB)).astype(np.float32)
    sampling = Sampling(temperature=1.0, top_k=2, top_p=1.0, min_p=0.0, seed=10)
    sampler, n = Sampler(sampling), 4000
    expected = {
        f"{a} {b} {c}": p * q * r
        for a, p in reference(table[7], sampling).items()
        for b, q in reference(table[a], sampling).items()
        for c, r in reference(table[b], sampling).items()
    }
    proposals = [[int(token) for token in triple.split()[1:]] for triple in expected]
    counts = dict.fromkeys(expected, 0)
    n_accepted = 0
    for index in range(n):
        target = ScriptedTarget(next_logits=lambda ids: table[ids[-1]])
        drafter = StubbornDrafter(target, proposals[index % len(proposals)])
        generation = new_generation(target, drafter, [3, 7], depth=2, max_tokens=4, sampler=sampler)
        counts[" ".join(map(str, finish(generation)[:3]))] += 1
        n_accepted += generation.stats.accepted[0]
    assert 0.1 < n_accepted / n < 0.9
    assert _chi_squared(counts, expected, n) < 26.1  # 7 degrees: one in 2000


Key = TypeVar("Key")


def _chi_squared(counts: dict[Key, int], expected: dict[Key, float], n: int) -> float:
    return float(sum((counts[key] - n * p) ** 2 / (n * p) for key, p in expected.items()))
