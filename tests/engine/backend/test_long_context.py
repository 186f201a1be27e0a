"""A row is the same alone and among others, also where attention has many cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mtp_cli import models
from mtp_cli.engine.backend import ggml_reference
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import HiddenSource


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model(models.built_in_model())
    yield model
    model.close()


def open_target(model: Model) -> Target:
    """Two threads: from 512 cells on ggml shares a single row's keys among its threads."""
    return Target(model, n_ctx=1024, n_threads=2, hidden=HiddenSource.NONE)


def check_rows(target: Target, n_past: int, n_rows: int) -> None:
    ids = np.random.default_rng(0).integers(10, 40_000, n_past + n_rows).tolist()
    target.clear()
    target.prefill(ids[:n_past], 0, lambda: False)
    alone = [target.decode([token]).logits[0].copy() for token in ids[n_past:]]
    assert target.truncate(n_past) == n_past
    together = target.decode(ids[n_past:]).logits
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize(("n_past", "n_rows"), [(100, 4), (254, 4), (300, 9), (510, 4), (600, 16)])
def test_rows_do_not_depend_on_their_number(model: Model, n_past: int, n_rows: int) -> None:
    """The cells are counted in steps of 256: rows at 254 to 257 alone meet 256 and 512."""
    target = open_target(model)
    check_rows(target, n_past, n_rows)
    target.close()


@pytest.mark.parametrize("n_prompt", [60, 137, 400, 513, 700])
def test_a_prompts_answer_does_not_tell_whether_it_was_cached(model: Model, n_prompt: int) -> None:
    """Read whole, and with all but its last row still there: an answer regenerated is the same."""
    target = open_target(model)
    ids = np.random.default_rng(1).integers(10, 40_000, n_prompt).tolist()
    whole = target.prefill(ids, 0, lambda: False)
    assert whole is not None
    expected = whole.logits[-1].copy()
    target.truncate(n_prompt - 1)
    cached = target.prefill(ids[-1:], 0, lambda: False)
    assert cached is not None
    assert np.array_equal(cached.logits[-1], expected)
    target.close()


def test_nor_where_the_kernels_are_out_of_reach(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a library that does not export llama_context::get_sched."""
    monkeypatch.setattr(ggml_reference, "get_sched", None)
    target = open_target(model)
    check_rows(target, 600, 4)
    target.close()
