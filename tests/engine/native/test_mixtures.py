"""Mixtures of experts with our kernels: a row's bits are ggml's alone, whatever is beside it.

Their router is F32 in every GGUF. The last bit of a router's logit moves the weights of all
experts, so that its product has to keep a row's bits before any expert's can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import MAX_COPIED, Floats, HiddenSource
from tests.engine import tiny

pytestmark = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")

FEW = MAX_COPIED + 1
SUPER_BLOCK = 256  # the narrowest that k-quants can be
MODELS: dict[str, Callable[..., tiny.Spec]] = {"qwen3moe": tiny.qwen3moe, "glm4moe": tiny.glm4moe}
FORMATS = ("q4_0", "q8_0", "q4_k_m", "q6_k", "mxfp4")  # q4_k_m: some of it is Q6_K
IDS = tiny.random_ids(48, seed=3)


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    our_kernels.enable()


def written(model: Callable[..., tiny.Spec], name: str, folder: Path) -> Path:
    """By llama.cpp's own quantizer where it takes the name, else by gguf-py's."""
    path = folder / f"{name}.gguf"
    if name not in OUTTYPES:
        return model().quantized(gguf.GGMLQuantizationType[name.upper()]).write(path)
    quantize(model(n_embd=SUPER_BLOCK, n_ff=SUPER_BLOCK).write(folder / "f32.gguf"), path, name)
    return path


def rows_of(path: Path, n_rows: int, *, lays_out: bool = False) -> Floats:
    """(len(IDS), n_vocab + n_embd): logits and hidden rows of a text, decoded n_rows at a time.

    Hidden rows are compared, too: what follows them is rounded, which hides most last bits.
    """
    model = Model(path, lays_out=lays_out)
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


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_every_row_has_the_bits_that_ggml_gives_it_alone(
    model: str, name: str, tmp_path: Path
) -> None:
    if name not in OUTTYPES and name not in our_kernels.formats():
        pytest.skip(f"no kernel for {name}")
    path = written(MODELS[model], name, tmp_path)
    our_kernels.enable(products=False)
    alone = rows_of(path, 1)
    our_kernels.enable()
    for n_rows in range(1, FEW + 1):
        assert np.array_equal(rows_of(path, n_rows), alone), f"{n_rows} rows"


@pytest.mark.parametrize("name", ["q4_1", "q5_0", "q8_0"])
@pytest.mark.parametrize("model", MODELS)
def test_laid_out_they_have_bits_of_their_own_in_any_company(
    model: str, name: str, tmp_path: Path
) -> None:
    path = written(MODELS[model], name, tmp_path)
    alone, as_in_file = rows_of(path, 1, lays_out=True), rows_of(path, 1)
    assert not np.array_equal(alone, as_in_file)
    assert np.abs(alone - as_in_file).max() < 0.05 * np.abs(as_in_file).max()
    for n_rows in (2, 5, FEW):
        assert np.array_equal(rows_of(path, n_rows, lays_out=True), alone), f"{n_rows} rows"
    # The output, which llama.cpp makes a Q6_K, is ggml's there without AVX-512.
    hidden = slice(tiny.N_VOCAB, None)
    many = rows_of(path, 24, lays_out=True)
    assert np.array_equal(many[:, hidden], alone[:, hidden])


@pytest.mark.parametrize("name", ["q4_0", "q8_0"])
def test_with_ggmls_products_company_changes_them(name: str, tmp_path: Path) -> None:
    """A control: the router's product is what does it."""
    path = written(tiny.qwen3moe, name, tmp_path)
    our_kernels.enable(products=False)
    assert not np.array_equal(rows_of(path, 2), rows_of(path, 1))
