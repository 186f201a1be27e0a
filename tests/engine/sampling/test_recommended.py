"""What a GGUF recommends for sampling: followed, or said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mtp_cli.engine.sampling.recommended import Recommended
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling


def recommended(**values: str) -> Recommended:
    return Recommended.from_metadata({f"general.sampling.{k}": v for k, v in values.items()})


def unfollowed(**values: str) -> str:
    found = recommended(**values)
    assert not found.left_out
    return found.unfollowed(found.sampling)


def test_what_a_file_says_is_followed() -> None:
    found = recommended(temp="0.6", top_k="20", penalty_last_n="-1", penalty_repeat="1.050000")
    expected = Sampling(temperature=0.6, top_k=20, penalty_last_n=-1, penalty_repeat=1.05)
    assert found == Recommended(expected)


def test_a_file_that_says_nothing_leaves_the_defaults() -> None:
    assert Recommended.from_metadata({"other": "1"}) == Recommended(Sampling())


def test_a_whole_number_may_have_a_point() -> None:
    assert recommended(top_k="40.000000").sampling.top_k == 40


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("temp", "warm", "a number"),
        ("temp", "nan", "a number"),
        ("top_p", "inf", "a number from 0 to 1"),
        ("top_p", "95", "a number from 0 to 1"),
        ("min_p", "2", "a number from 0 to 1"),
        ("top_k", "2.5", "a number"),
        ("top_k", "inf", "a number"),
        ("penalty_last_n", "", "a number"),
        ("penalty_last_n", "a few", "a number"),
        ("penalty_repeat", "often", "a number from 0.001 to 1000"),
        ("penalty_repeat", "nan", "a number from 0.001 to 1000"),
        ("penalty_repeat", "0.000000", "a number from 0.001 to 1000"),
        ("penalty_repeat", "1e30", "a number from 0.001 to 1000"),
        ("mirostat", "true", "a number from 0 to 2"),
        ("xtc_probability", "[0.5]", "a number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_left_out_and_said(key: str, value: str, expected: str) -> None:
    line = f"general.sampling.{key}: expected {expected}, found {value!r}; it is left out"
    assert recommended(**{key: value}, seed="1") == Recommended(Sampling(), (line,))


def test_an_absurdly_long_number_is_a_number() -> None:
    assert Sampler(recommended(penalty_last_n="9" * 400).sampling).n_before == 0


def test_a_long_value_is_not_repeated_in_full() -> None:
    (line,) = recommended(temp="x" * 10_000).left_out
    assert len(line) < 200


def test_mirostat_is_said_with_what_llama_cpp_would_take() -> None:
    expected = "mirostat 2, mirostat_tau 5, mirostat_eta 0.3"
    assert unfollowed(mirostat="2", mirostat_eta="0.3") == expected
    assert unfollowed(mirostat="0", mirostat_tau="4") == ""


def test_greedy_mirostat_is_greedy() -> None:
    found = recommended(mirostat="1")
    assert found.unfollowed(dataclasses.replace(found.sampling, temperature=0.0)) == ""


def test_xtc_is_followed() -> None:
    assert recommended(xtc_probability="0.5").sampling.has_xtc
    assert recommended(xtc_probability="0.5").sampling.xtc_threshold == 0.1
    assert not recommended(xtc_probability="0.5", xtc_threshold="0.6").sampling.has_xtc
    assert not recommended(xtc_threshold="0.2").sampling.has_xtc
    without = recommended(xtc_probability="0.5", sequence="top_k;top_p;min_p;temperature")
    assert not without.sampling.has_xtc
    assert unfollowed(xtc_probability="0.5") == ""
    last = "top_k;top_p;min_p;temperature;xtc"
    assert unfollowed(xtc_probability="0.5", sequence=last) == f"the order {last}"


@pytest.mark.parametrize(
    "sequence",
    [
        "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
        "penalties;top-k;topp;min_p;temp",
        "min_p;temperature",  # top-p is off, as it is left out
        "top_k;top_p;min_p;temperature;penalties",  # which are off
        "temperature;top_k",
    ],
)
def test_an_order_that_changes_nothing_is_not_said(sequence: str) -> None:
    assert unfollowed(sequence=sequence) == ""


def test_another_order_is_said() -> None:
    said = "the order temperature;top_k;top_p"
    assert unfollowed(sequence="temp; top_k ;nucleus") == said
    assert unfollowed(sequence="temp;top_k;nucleus", temp="1.0") == ""
    assert unfollowed(sequence="min_p;top_p") == "the order min_p;top_p"
    assert unfollowed(sequence="temperature;penalties", penalty_repeat="1.1", temp="0") != ""
    assert unfollowed(sequence="infill;temperature") == "the order infill;temperature"


def test_what_is_said_depends_on_the_users_own_sampling() -> None:
    found = recommended(sequence="temp;top_k;top_p")
    assert found.unfollowed(dataclasses.replace(found.sampling, top_p=1.0)) == ""


def test_samplers_that_the_sequence_leaves_out_are_off() -> None:
    found = recommended(sequence="top_k;temperature", top_p="0.5", penalty_repeat="1.5", temp="0.7")
    assert found.sampling.penalties.n_before == 0
    values = (found.sampling.top_k, found.sampling.top_p, found.sampling.min_p)
    assert values == (40, 1.0, 0.0)
    assert found.sampling.temperature == 0.7
    assert recommended(sequence="top_k").sampling.temperature == 1.0


def test_a_sequence_has_no_say_under_mirostat() -> None:
    assert recommended(sequence="top_k", mirostat="2").sampling == Sampling()


def test_a_name_that_is_no_sampler_is_left_out_and_said() -> None:
    found = recommended(sequence="top_k;tail_free;top_p;min_p;temperature")
    (line,) = found.left_out
    assert line.startswith("general.sampling.sequence: 'tail_free' is no sampler of llama.cpp")
    assert found.unfollowed(found.sampling) == ""


ORDERS = ["min_p;top_k;temperature", "temperature;top_k", "top_k;temperature;min_p"]


@pytest.mark.parametrize("sequence", ORDERS)
def test_what_is_said_is_what_differs(sequence: str) -> None:
    """Beside the definition: each sampler cuts a row of logits, in the order that is named."""
    found = recommended(sequence=sequence, temp="0.3", top_k="5", min_p="0.2")
    random, differs = np.random.default_rng(1), False
    for _ in range(50):
        row = random.standard_normal(64).astype(np.float32)
        ours = Sampler(found.sampling).candidates(row)
        ids, probs = in_order(row, found.sequence or ())
        same = list(ours.ids) == list(ids) and np.allclose(ours.probs, probs, atol=1e-6)
        differs = differs or not same
    assert differs == bool(found.unfollowed(found.sampling))


def in_order(row: np.ndarray, sequence: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    ids, values = np.arange(len(row)), row.astype(np.float64)
    for name in sequence:
        if name == "temperature":
            values = values / 0.3
            continue
        is_kept = values >= values.max() + np.log(0.2)
        if name == "top_k":
            is_kept = values >= np.sort(values)[-min(5, len(values))]
        ids, values = ids[is_kept], values[is_kept]
    weights = np.exp(values - values.max())
    return ids, weights / weights.sum()
