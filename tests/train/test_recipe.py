"""A second run starts from an earlier run's head, also over another draft vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mtp_cli import models
from mtp_cli.errors import MtpError
from tests.train.test_export import EXACT, SHAPE, weights
from train.corpus import make_vocabulary
from train.export import write_head
from train.head import HeadShape
from train.recipe import new_head, take_over
from train.trunk import Trunk


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return Trunk(models.built_in_model())


def shape(n_ff: int) -> HeadShape:
    return HeadShape(576, 9, 3, 64, n_ff, 32, 1e-5, 1e5)


def test_weights_go_over_and_new_ids_keep_the_trunks_rows(trunk: Trunk, tmp_path: Path) -> None:
    path = tmp_path / "head.gguf"
    first = make_vocabulary(np.arange(5, 37, dtype=np.int32), trunk.token_embd)
    write_head(path, trunk, first, SHAPE, weights(), EXACT)
    second = make_vocabulary(np.arange(15, 47, dtype=np.int32), trunk.token_embd)
    head = new_head(trunk, shape(64), second, seed=1)
    take_over(head, trunk, second, path)
    output = head.output.detach().numpy()
    np.testing.assert_array_equal(output[:22], weights()["output"][10:])
    np.testing.assert_array_equal(output[22:], trunk.output[37:47])
    for name, value in head.named_parameters():
        if name != "output":
            np.testing.assert_array_equal(value.detach().numpy(), weights()[name])
    np.testing.assert_array_equal(head.token_embd.numpy(), trunk.token_embd[15:47])


def test_a_head_of_another_width_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    path = tmp_path / "head.gguf"
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), trunk.token_embd)
    write_head(path, trunk, vocabulary, SHAPE, weights(), EXACT)
    head = new_head(trunk, shape(96), vocabulary, seed=1)
    with pytest.raises(MtpError, match="ffn_gate: expected"):
        take_over(head, trunk, vocabulary, path)
