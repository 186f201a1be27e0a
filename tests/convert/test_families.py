"""Every family end to end: convert, compare with an independent expectation, load, draft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader

from mtp_cli.engine import Engine, Sampling
from mtp_convert.commands.build import Options
from tests.convert.conftest import ALL, FAMILIES, WITH_HEADS, Convert
from tests.convert.expectation import expected

PROMPT = [84, 104, 101, 32, 116, 104, 105, 110, 103, 32, 105, 110, 32, 116, 104, 101, 32, 119]


def values(tensor: Any) -> npt.NDArray[Any]:
    data = np.asarray(tensor.data)
    return data.reshape(tuple(reversed(tensor.shape.tolist())))


@pytest.mark.parametrize("family", ALL)
def test_names_shapes_and_values_are_as_worked_out_by_hand(family: str, converted: Convert) -> None:
    build, arch, _ = ALL[family]
    found = {tensor.name: tensor for tensor in GGUFReader(converted(family)).tensors}
    wanted = expected(build(), arch)
    if family == "llama" or family.startswith("gemma4"):
        found.pop("rope_freqs.weight")
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        shape = values(found[name]).shape
        assert shape == array.shape, name
        # One rounding apart at most: exp and FP8's product are computed in another order.
        np.testing.assert_allclose(values(found[name]), array, rtol=3e-7, err_msg=name)


@pytest.mark.parametrize("family", WITH_HEADS)
@pytest.mark.parametrize("outtype", ["q8_0"])
def test_drafted_greedy_output_is_plain_output(
    family: str, outtype: str, converted: Convert
) -> None:
    path = converted(family, Options(outtype=outtype))
    plain, _ = generate(path, 0)
    assert len(plain) == 40
    for depth in (1, 3):
        drafted, n_drafted = generate(path, depth)
        assert drafted == plain
        assert n_drafted >= 30


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITH_HEADS])
def test_a_target_without_heads_generates(family: str, converted: Convert) -> None:
    tokens, n_drafted = generate(converted(family), 3)
    assert (len(tokens), n_drafted) == (40, 0)


def generate(path: Path, depth: int) -> tuple[list[int], int]:
    """40 greedy tokens, and how many were drafted on the way."""
    with Engine.open(path, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        run = engine.generate(PROMPT, Sampling(temperature=0.0), max_tokens=40, depth=depth)
        for _ in run:
            pass
        return run.tokens, sum(run.stats.verified)
