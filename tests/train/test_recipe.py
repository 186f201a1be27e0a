"""A second run starts from an earlier run's head, also over another draft vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mtp_cli import models
from mtp_cli.errors import MtpError
from tests.train.test_export import EXACT, SHAPE, weights
from train.corpus import Corpus, Role, Sample, make_vocabulary
from train.export import write_head
from train.fit import SECOND_CURRICULUM, Run, Settings
from train.head import HeadShape
from train.recipe import new_head, prepare, take_over
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


@pytest.mark.parametrize(("n_draft", "expected"), [(None, range(5, 37)), (16, range(20, 36))])
def test_a_run_drafts_in_the_ids_of_the_head_it_starts_from_unless_told(
    trunk: Trunk, tmp_path: Path, n_draft: int | None, expected: range
) -> None:
    path = tmp_path / "head.gguf"
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), trunk.token_embd)
    write_head(path, trunk, vocabulary, SHAPE, weights(), EXACT)
    ids = np.arange(20, 36, dtype=np.int32)
    roles = np.full(16, Role.GREEDY, np.uint8)
    corpus = Corpus([Sample(ids, roles, np.zeros((16, 576), np.float16))], [])
    run = prepare(
        trunk, corpus, tmp_path, Settings(9), n_draft=n_draft, n_ff=64, device="cpu", start=path
    )
    assert run.vocabulary.draft_ids.tolist() == list(expected)


def test_a_resumed_run_keeps_its_curriculum(trunk: Trunk, tmp_path: Path) -> None:
    ids = np.arange(20, dtype=np.int32)
    roles = np.full(20, Role.GREEDY, np.uint8)
    corpus = Corpus([Sample(ids, roles, np.zeros((20, 576), np.float16))], [])

    def run(settings: Settings) -> Run:
        return prepare(trunk, corpus, tmp_path, settings, n_draft=32, n_ff=64, device="cpu")

    run(Settings(9, curriculum=SECOND_CURRICULUM)).save()
    again = run(Settings(12))
    assert again.settings == Settings(12, curriculum=SECOND_CURRICULUM)
