"""Mixtures of experts with our kernels: a row's bits stay, whatever is decoded beside it.

Their router is F32 in every GGUF. The last bit of a router's logit moves the weights of all
experts, so that its product has to keep a row's bits before any expert's can.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import MAX_COPIED, Floats, HiddenSource
from tests.engine import tiny

pytestmark = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")

FEW = MAX_COPIED + 1
KINDS = [gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q8_0")]
IDS = tiny.random_ids(48, seed=3)


@pytest.fixture
def products_of_ggml() -> Iterator[None]:
    our_kernels.enable(products=False)
    yield
    our_kernels.enable()


def rows_of(path: Path, n_rows: int) -> Floats:
    """(len(IDS), n_vocab + n_embd): logits and hidden rows of a text, decoded n_rows at a time.

    Hidden rows are compared, too: what follows them is rounded, which hides most last bits.
    """
    model = Model(path)
    target = Target(model, n_ctx=128, n_threads=2, hidden=HiddenSource.EMBD)
    try:
        found = []
        for start in range(0, len(IDS), n_rows):
            rows = target.decode(IDS[start : start + n_rows])
            assert rows.hidden is not None
            found.append(np.concatenate([rows.logits, rows.hidden], axis=1))
        return np.concatenate(found)
    finally:
        target.close()
        model.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_row_has_the_same_bits_in_any_company(
    kind: gguf.GGMLQuantizationType, tmp_path: Path
) -> None:
    path = tiny.qwen3moe().quantized(kind).write(tmp_path / "m.gguf")
    alone = rows_of(path, 1)
    for n_rows in range(2, FEW + 1):
        assert np.array_equal(rows_of(path, n_rows), alone), f"{n_rows} rows"


@pytest.mark.usefixtures("products_of_ggml")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_with_ggmls_products_company_changes_them(
    kind: gguf.GGMLQuantizationType, tmp_path: Path
) -> None:
    """A control: the router's product is what does it."""
    path = tiny.qwen3moe().quantized(kind).write(tmp_path / "m.gguf")
    assert not np.array_equal(rows_of(path, 2), rows_of(path, 1))
