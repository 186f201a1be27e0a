"""Steps multiply in bfloat16 where that is faster, in float32 elsewhere, and train in both."""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from mtp_train import precision
from mtp_train.precision import autocast, product_type
from tests.train.test_fit import new_run, train

CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def faster(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[torch.dtype]:
    """This processor takes products faster in this type."""
    monkeypatch.setattr(precision, "_seconds", lambda dtype: 1.0 if dtype == request.param else 3.0)
    product_type.cache_clear()
    yield request.param
    product_type.cache_clear()


def test_products_are_taken_in_the_faster_type(faster: torch.dtype) -> None:
    assert product_type(CPU) == faster
    with autocast(CPU):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == faster


def test_a_run_trains_in_either_type(faster: torch.dtype, tmp_path: Path) -> None:
    run = new_run(tmp_path, 40)
    train(run)
    # The first half has one draft step.
    losses = run.progress.losses[:20]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_gpus_take_bfloat16() -> None:
    assert product_type(torch.device("cuda")) == torch.bfloat16
    assert product_type(torch.device("mps")) == torch.bfloat16
