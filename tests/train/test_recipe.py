"""A second run starts from an earlier run's head, also over another draft vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mtp_cli import models
from mtp_cli.errors import MtpError
from mtp_train.corpus import Corpus, Role, Sample, make_vocabulary
from mtp_train.export import read_head, write_head
from mtp_train.fit import Run, Settings
from mtp_train.head import HeadShape
from mtp_train.recipe import export, new_head, prepare, take_over
from mtp_train.target import Target
from tests.train.test_export import EXACT, SHAPE, weights


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(models.built_in_model())


def shape(n_ff: int) -> HeadShape:
    return HeadShape(576, 9, 3, 64, n_ff, 32, 1e-5, 1e5)


def corpus_of(first: int, end: int) -> Corpus:
    """One answer of the ids from first to end."""
    n = end - first
    ids, roles = np.arange(first, end, dtype=np.int32), np.full(n, Role.GREEDY, np.uint8)
    return Corpus([Sample(ids, roles, np.zeros((n, 576), np.float16))], [])


def test_weights_go_over_and_new_ids_keep_the_targets_rows(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "head.gguf"
    first = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    write_head(path, target, first, SHAPE, weights(), EXACT)
    second = make_vocabulary(np.arange(15, 47, dtype=np.int32), target.token_embd)
    head = new_head(target, shape(64), second, seed=1)
    take_over(head, target, second, path)
    output = head.output.detach().numpy()
    np.testing.assert_array_equal(output[:22], weights()["output"][10:])
    np.testing.assert_array_equal(output[22:], target.output[37:47])
    for name, value in head.named_parameters():
        if name != "output":
            np.testing.assert_array_equal(value.detach().numpy(), weights()[name])
    np.testing.assert_array_equal(head.token_embd.numpy(), target.token_embd[15:47])


def test_a_head_of_another_width_is_refused(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "head.gguf"
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    write_head(path, target, vocabulary, SHAPE, weights(), EXACT)
    head = new_head(target, shape(96), vocabulary, seed=1)
    with pytest.raises(MtpError, match="ffn_gate: expected"):
        take_over(head, target, vocabulary, path)


@pytest.mark.parametrize(("n_draft", "expected"), [(None, range(5, 37)), (16, range(20, 36))])
def test_a_run_drafts_in_the_ids_of_the_head_it_starts_from_unless_told(
    target: Target, tmp_path: Path, n_draft: int | None, expected: range
) -> None:
    path = tmp_path / "head.gguf"
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    write_head(path, target, vocabulary, SHAPE, weights(), EXACT)
    run = prepare(
        target,
        corpus_of(20, 36),
        tmp_path,
        Settings(9),
        n_draft=n_draft,
        n_ff=64,
        device="cpu",
        start=path,
    )
    assert run.vocabulary.draft_ids.tolist() == list(expected)


def test_a_resumed_run_keeps_its_settings(target: Target, tmp_path: Path) -> None:
    corpus = corpus_of(0, 20)

    def run(settings: Settings) -> Run:
        return prepare(target, corpus, tmp_path, settings, n_draft=32, n_ff=64, device="cpu")

    run(Settings.cooldown(9)).save()
    assert run(Settings(12)).settings == Settings.cooldown(12)


def test_a_checkpoint_is_averaged_with_another_head_over_the_same_ids(
    target: Target, tmp_path: Path
) -> None:
    start, other, out = (tmp_path / name for name in ("start.gguf", "other.gguf", "out.gguf"))
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    write_head(start, target, vocabulary, SHAPE, weights(), EXACT)
    others = {name: 3 * value for name, value in weights().items()}
    write_head(other, target, vocabulary, SHAPE, others, EXACT)
    run = prepare(
        target,
        corpus_of(20, 36),
        tmp_path,
        Settings(9),
        n_draft=None,
        n_ff=64,
        device="cpu",
        start=start,
    )
    run.save()
    export(target, tmp_path, out, average=other, exact=True)
    ids, found = read_head(out, target)
    assert ids.tolist() == list(range(5, 37))
    for name, value in weights().items():
        np.testing.assert_array_equal(found[name], 2 * value)
    shifted = make_vocabulary(np.arange(6, 38, dtype=np.int32), target.token_embd)
    write_head(other, target, shifted, SHAPE, weights(), EXACT)
    with pytest.raises(MtpError, match=r"other\.gguf: these heads draft in other ids"):
        export(target, tmp_path, out, average=other)
    write_head(
        other,
        target,
        vocabulary,
        {**SHAPE, "n_ff": 32},
        {
            **weights(),
            "ffn_gate": weights()["ffn_gate"][:32],
            "ffn_up": weights()["ffn_up"][:32],
            "ffn_down": weights()["ffn_down"][:, :32],
        },
        EXACT,
    )
    with pytest.raises(MtpError, match="ffn_gate: expected"):
        export(target, tmp_path, out, average=other)
