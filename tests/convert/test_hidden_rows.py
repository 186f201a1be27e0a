"""The rows a target hands to its heads are the ones they were trained on, in every family.

Families differ in which row that is. Both follow from the row after the final norm, which any
context gives, by way of a public request of llama.cpp's and not of the one under test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import Floats, HiddenSource
from tests.convert.conftest import WITH_HEADS, Convert
from tests.convert.test_families import PROMPT

# All others hand out the row after the final norm.
PRE_NORM = ("mimo2", "mimo25", "step35", "step37")
N_BATCH = 512  # of which the graphs' memory is laid out for


def rows(path: Path, source: HiddenSource, pieces: list[int], first_output: int = 0) -> Floats:
    """(n, n_embd): the hidden rows of PROMPT's outputs, decoded in pieces of these lengths."""
    model = Model(path, n_gpu_layers=0)
    context = Context(
        model, n_ctx=512, n_batch=N_BATCH, n_outputs=32, n_threads=1, hidden=source, n_rs_seq=1
    )
    found, position = [], 0
    for n in pieces:
        context.decode(PROMPT[position : position + n], position, first_output=first_output)
        given = context.hidden()
        assert given is not None
        found.append(given.copy())
        position += n
    context.close()
    model.close()
    return np.concatenate(found)


def before_norm(path: Path, normed: Floats) -> Floats:
    """The direction of the row before an RMS norm."""
    norm = next(t for t in GGUFReader(path).tensors if t.name == "output_norm.weight")
    return unit(np.divide(normed, norm.data, dtype=np.float32))


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("pieces", [[len(PROMPT)], [5, 1, 3]])
@pytest.mark.parametrize("family", WITH_HEADS)
def test_rows_are_of_the_right_side_of_the_norm(
    family: str, pieces: list[int], converted: Convert
) -> None:
    path = converted(family)
    found, normed = (rows(path, s, pieces) for s in (HiddenSource.NEXTN, HiddenSource.EMBD))
    before = before_norm(path, normed)
    right, wrong = (before, unit(normed)) if family in PRE_NORM else (unit(normed), before)
    np.testing.assert_allclose(unit(found), right, atol=1e-4)
    assert np.abs(unit(found) - wrong).max() > 0.01, "the comparison could not tell them apart"


@pytest.mark.parametrize("family", WITH_HEADS)
def test_a_prompts_last_rows_are_its_last_rows(family: str, converted: Convert) -> None:
    path, n = converted(family), len(PROMPT)
    every = rows(path, HiddenSource.NEXTN, [n])
    last = rows(path, HiddenSource.NEXTN, [n], first_output=n - 4)
    assert last.shape == (4, every.shape[1])
    np.testing.assert_allclose(last, every[-4:], rtol=1e-3, atol=1e-3)
