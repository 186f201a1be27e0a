"""Log-probabilities against numpy's own arithmetic, and in the order that they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mtp_cli.engine.sampling.logprobs import of_row


def test_they_are_the_logarithms_of_the_whole_rows_probabilities() -> None:
    row = np.random.default_rng(3).normal(0, 8, 500).astype(np.float32)
    probs = np.exp(row.astype(np.float64))
    probs /= probs.sum()
    found = of_row(17, row, 5)
    assert found.logprob == pytest.approx(np.log(probs[17]))
    order = np.argsort(-probs)[:5]
    assert [token for token, _ in found.top] == order.tolist()
    assert [logprob for _, logprob in found.top] == pytest.approx(np.log(probs[order]).tolist())


def test_of_equals_the_first_comes_first_and_none_too_many() -> None:
    row = np.zeros(6, np.float32)
    assert [token for token, _ in of_row(4, row, 3).top] == [0, 1, 2]
    assert of_row(4, row, 0).top == ()
    assert len(of_row(4, row, 20).top) == 6


def test_tokens_that_cannot_come_are_no_obstacle() -> None:
    row = np.array([0, -np.inf, 0], np.float32)
    assert of_row(0, row, 1).logprob == pytest.approx(np.log(0.5))


def test_an_id_that_is_ruled_out_is_never_likely() -> None:
    logits = np.full(9, -np.inf, np.float32)
    logits[[2, 5]] = 1.0, 0.0
    found = of_row(5, logits, 4)
    assert [token for token, _ in found.top] == [2, 5]
    assert np.exp([logprob for _, logprob in found.top]).sum() == pytest.approx(1)
