"""XTC and top-n-sigma, beside llama.cpp's own chain of samplers."""

from __future__ import annotations

import ctypes
import dataclasses

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest

from mtp_cli.engine import Sampling
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import Floats
from tests.engine.scripted import ScriptedTarget, TableDrafter, finish, new_generation

N_ROW = 500


def llama_cpp(logits: Floats, by: Sampling, *, excludes: bool) -> dict[int, float]:
    """What llama.cpp's chain leaves of a row; excludes: with XTC's throw of the dice won."""
    chain = [
        lib.llama_sampler_init_top_n_sigma(by.top_n_sigma),
        lib.llama_sampler_init_top_k(by.top_k),
        lib.llama_sampler_init_top_p(by.top_p, 1),
        lib.llama_sampler_init_min_p(by.min_p, 1),
        lib.llama_sampler_init_xtc(1.0 if excludes else 0.0, by.xtc_threshold, 1, 1),
        lib.llama_sampler_init_temp(by.temperature),
        lib.llama_sampler_init_dist(1),  # computes the probabilities
    ]
    data = (lib.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit = token, logit
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    for sampler in chain:
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        lib.llama_sampler_free(sampler)
    left = (array.data[i] for i in range(array.size))
    return {entry.id: entry.p for entry in left if entry.p > 0}


def expected(logits: Floats, by: Sampling) -> dict[int, float]:
    """XTC's two outcomes, by their probabilities."""
    share = by.xtc_probability
    found: dict[int, float] = {}
    for excludes, weight in ((False, 1 - share), (True, share)):
        for token, prob in llama_cpp(logits, by, excludes=excludes).items():
            found[token] = found.get(token, 0) + weight * prob
    return {token: prob for token, prob in found.items() if prob > 0}


@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0])
@pytest.mark.parametrize(
    "by",
    [
        Sampling(top_n_sigma=1.0, top_k=0, top_p=1.0, min_p=0.0),
        Sampling(top_n_sigma=2.0),
        Sampling(xtc_probability=0.5, xtc_threshold=0.05),
        Sampling(xtc_probability=1.0, xtc_threshold=0.02, top_k=0, min_p=0.0),
        Sampling(xtc_probability=0.3, xtc_threshold=0.1, top_n_sigma=3.0, temperature=1.5),
        Sampling(xtc_probability=0.5, xtc_threshold=0.0, top_k=8),
    ],
)
def test_the_distribution_is_llama_cpps(by: Sampling, spread: float) -> None:
    rng = np.random.default_rng(6)
    for _ in range(8):
        logits = (spread * rng.standard_normal(N_ROW)).astype(np.float32)
        found = Sampler(by).candidates(logits)
        wanted = expected(logits, by)
        probs = dict(zip(found.ids.tolist(), found.probs.tolist(), strict=True))
        assert {token for token, prob in probs.items() if prob > 1e-9} == {
            token for token, prob in wanted.items() if prob > 1e-9
        }
        for token, prob in wanted.items():
            assert probs.get(token, 0) == pytest.approx(prob, rel=1e-3, abs=1e-7)


def test_a_threshold_above_one_half_is_off() -> None:
    logits = np.random.default_rng(1).standard_normal(N_ROW).astype(np.float32)
    by = Sampling(xtc_probability=1.0, xtc_threshold=0.51)
    off = Sampler(dataclasses.replace(by, xtc_probability=0.0)).candidates(logits)
    assert np.array_equal(Sampler(by).candidates(logits).probs, off.probs)


def test_at_temperature_0_xtc_chooses_between_two() -> None:
    logits = np.array([3.0, 2.0, 1.9, -5.0], np.float32)
    by = Sampling(temperature=0.0, xtc_probability=0.25, xtc_threshold=0.1, seed=3)
    assert not by.is_greedy
    found = Sampler(by).candidates(logits)
    probs = dict(zip(found.ids.tolist(), found.probs.tolist(), strict=True))
    assert probs[0] == pytest.approx(0.75)
    assert probs[2] == pytest.approx(0.25)


def test_drafted_choices_have_the_same_distribution() -> None:
    """Pairs of tokens, of which the second was drawn by a drafter and verified."""
    table = 2 * np.random.default_rng(5).standard_normal((64, 64)).astype(np.float32)
    by = Sampling(temperature=1.0, top_k=3, xtc_probability=0.5, xtc_threshold=0.1, seed=11)
    plain, n = Sampler(by), 4000
    probs = {(a, b): p * q for a, p in _probs(plain, table[7]) for b, q in _probs(plain, table[a])}
    counts = dict.fromkeys(probs, 0)
    sampler = Sampler(by, draws_drafts=True)
    for _ in range(n):
        target = ScriptedTarget(next_logits=lambda ids: table[ids[-1]])
        drafter = TableDrafter(target, np.roll(table, 1, axis=0))
        generation = new_generation(target, drafter, [3, 7], depth=2, max_tokens=4, sampler=sampler)
        a, b, *_rest = finish(generation)
        counts[a, b] += 1
    off = sum((counts[pair] - n * prob) ** 2 / (n * prob) for pair, prob in probs.items())
    assert len(probs) == 9
    assert off < 35  # 8 degrees of freedom: one in 40,000


def _probs(sampler: Sampler, logits: Floats) -> list[tuple[int, float]]:
    found = sampler.candidates(logits)
    return [pair for pair in zip(found.ids.tolist(), found.probs.tolist(), strict=True) if pair[1]]
