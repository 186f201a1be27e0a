"""Acceptance is learned from what survives, follows a text that changes, and stays cautious."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mtp_cli.engine.depth.survival import HeadAcceptance, Logistic, MatchAcceptance, log_odds


def test_overconfident_heads_are_found_out() -> None:
    acceptance = HeadAcceptance()
    rng = np.random.default_rng(1)
    for _ in range(300):
        acceptance.learn(0, 0.9, 0, bool(rng.random() < 0.3))
    assert acceptance.predict(0, 0.9, 0) == pytest.approx(0.3, abs=0.12)


def test_the_heads_probability_orders_their_tokens() -> None:
    acceptance = HeadAcceptance()
    rng = np.random.default_rng(2)
    for probability in rng.random(500):
        acceptance.learn(0, probability, 0, bool(rng.random() < probability**2))
    found = [acceptance.predict(0, p, 0) for p in (0.2, 0.4, 0.6, 0.8, 0.95)]
    assert found == sorted(found)
    assert found == pytest.approx([0.04, 0.16, 0.36, 0.64, 0.9], abs=0.15)


def test_positions_are_apart_and_deep_ones_together() -> None:
    acceptance = HeadAcceptance()
    before = acceptance.predict(3, 0.5, 0)
    for _ in range(50):
        acceptance.learn(0, 0.5, 0, False)
    assert acceptance.predict(3, 0.5, 0) == before
    acceptance.learn(7, 0.5, 0, True)
    assert acceptance.predict(5, 0.5, 0) > before


def test_a_match_that_agrees_raises_a_token_and_one_that_does_not_lowers_it() -> None:
    acceptance = HeadAcceptance()
    agreeing, alone, against = (acceptance.predict(0, 0.6, a) for a in (4, 0, -4))
    assert agreeing > alone > against


def test_longer_matches_survive_more_often() -> None:
    acceptance = MatchAcceptance()
    found = [acceptance.predict(length, 0) for length in (2, 3, 5, 9, 17, 64)]
    assert found == sorted(found)
    assert found[0] < 0.5 < 0.8 < found[-1]


def test_a_place_before_that_went_on_otherwise_makes_a_match_doubtful() -> None:
    acceptance = MatchAcceptance()
    found = [acceptance.predict(4, support) for support in (-1, 0, 1)]
    assert found == sorted(found)
    assert found[0] < 0.5 < 0.75 < found[2]


def test_a_text_that_changes_is_followed() -> None:
    acceptance = MatchAcceptance()
    for survived in [True] * 200 + [False] * 20:
        acceptance.learn(6, 0, survived)
    assert acceptance.predict(6, 0) < 0.7


def test_what_is_known_less_counts_for_less() -> None:
    weights = (1.0, 0.0, 0.0)
    known, unknown = Logistic(weights, (0.0, 0.0, 0.0)), Logistic(weights, (2.0, 0.0, 0.0))
    assert unknown.predict(0, 0) < known.predict(0, 0) == pytest.approx(1 / (1 + np.exp(-1)))


def test_what_is_written_out_is_the_extended_kalman_filter() -> None:
    rng = np.random.default_rng(3)
    weights, covariance = np.array([0.2, 0.85, 0.6]), np.diag([0.3, 0.05, 0.1])
    found = Logistic((0.2, 0.85, 0.6), (0.3, 0.05, 0.1))

    def sure_of(features: npt.NDArray[np.float64], caution: float) -> float:
        deviation = np.sqrt(features @ covariance @ features)
        return float(1 / (1 + np.exp(caution * deviation - weights @ features)))

    for _ in range(200):
        x, y = rng.normal(size=2)
        features = np.array([1.0, x, y])
        assert found.predict(x, y) == pytest.approx(sure_of(features, 0.5))
        predicted, survived = sure_of(features, 0.0), bool(rng.random() < 0.5)
        curvature = predicted * (1 - predicted)
        covariance[0, 0] += 0.001
        gain = covariance @ features / (1 + curvature * features @ covariance @ features)
        covariance = covariance - curvature * np.outer(gain, features @ covariance)
        weights = weights + gain * (survived - predicted)
        found.learn(x, y, survived)


@pytest.mark.parametrize("probability", [0.0, 1e-9, 1.0])
def test_estimates_stay_inside_their_bounds(probability: float) -> None:
    acceptance = HeadAcceptance()
    for survived in [True, False] * 20 + [True] * 200:
        acceptance.learn(0, probability, 0, survived)
        assert 0 < acceptance.predict(0, probability, 0) < 1
    assert abs(log_odds(probability)) < 10
