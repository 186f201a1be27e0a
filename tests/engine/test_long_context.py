"""A row is the same alone and among others, also where attention has many cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mtp_cli import models
from mtp_cli.engine.llama import HiddenSource, Model
from mtp_cli.engine.target import Target


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    model = Model(models.built_in_model())
    target = Target(model, n_ctx=1024, n_threads=2, hidden=HiddenSource.NONE)
    yield target
    target.close()
    model.close()


@pytest.mark.parametrize("n_past", [100, 300, 600])
def test_rows_do_not_depend_on_their_number(target: Target, n_past: int) -> None:
    """Two threads: from 512 cells on ggml shares a single row's keys among its threads."""
    ids = np.random.default_rng(0).integers(10, 40_000, n_past + 4).tolist()
    target.clear()
    target.prefill(ids[:n_past], 0, lambda: False)
    alone = [target.verify([token]).logits[0].copy() for token in ids[n_past:]]
    assert target.truncate(n_past) == n_past
    together = target.verify(ids[n_past:]).logits
    assert np.array_equal(together, np.stack(alone))
