"""A second run starts from an earlier run's head, also over another draft vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from mtp_cli import models
from mtp_cli.errors import MtpError
from mtp_train.corpus import Corpus, Role, Sample, make_vocabulary
from mtp_train.existing import read_head
from mtp_train.export import write_head
from mtp_train.fit import Run, Settings
from mtp_train.layer_rows import unit_rows
from mtp_train.recipe import (
    PROMPT_ROWS,
    Choices,
    export,
    new_head,
    prepare,
    rows_to_read,
    take_over,
)
from mtp_train.target import Target
from tests.train.test_export import EXACT, SHAPE, weights


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(models.built_in_model())


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
    head = new_head(target, SHAPE, second, seed=1)
    take_over(head, target, second, read_head(path, target))
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
    head = new_head(target, replace(SHAPE, n_ff=96), vocabulary, seed=1)
    with pytest.raises(MtpError, match="ffn_gate: expected"):
        take_over(head, target, vocabulary, read_head(path, target))


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
        Choices(n_draft, 64),
        device="cpu",
        start=path,
    )
    assert run.vocabulary.draft_ids.tolist() == list(expected)


def test_a_resumed_run_keeps_its_settings(target: Target, tmp_path: Path) -> None:
    corpus = corpus_of(0, 20)

    def run(settings: Settings) -> Run:
        return prepare(target, corpus, tmp_path, settings, Choices(32, 64), device="cpu")

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
        Choices(None, 64),
        device="cpu",
        start=start,
    )
    run.save()
    export(target, tmp_path, out, average=other, exact=True)
    made = read_head(out, target)
    assert made.draft_ids.tolist() == list(range(5, 37))
    for name, value in weights().items():
        np.testing.assert_array_equal(made.weights[name], 2 * value)
    shifted = make_vocabulary(np.arange(6, 38, dtype=np.int32), target.token_embd)
    write_head(other, target, shifted, SHAPE, weights(), EXACT)
    with pytest.raises(MtpError, match=r"other\.gguf: these heads draft in other ids"):
        export(target, tmp_path, out, average=other)
    write_head(
        other,
        target,
        vocabulary,
        replace(SHAPE, n_ff=32),
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


def layered_corpus(n_texts: int, mixing: np.ndarray) -> Corpus:
    """Texts whose final row is a mixture of two layers' rows."""
    rng, samples = np.random.default_rng(3), []
    for _ in range(n_texts):
        layers = [unit_rows(rng.standard_normal((200, 576), np.float32), 0) for _ in range(2)]
        rows = np.concatenate(layers, 1).astype(np.float32) @ mixing.T
        roles = np.full(200, Role.GREEDY, np.uint8)
        ids = np.arange(200, dtype=np.int32)
        samples.append(Sample(ids, roles, rows.astype(np.float16), tuple(layers)))
    return Corpus(samples, [])


def test_a_fusion_starts_where_it_comes_nearest_to_the_final_row(
    target: Target, tmp_path: Path
) -> None:
    """From a head that reads that row: the new one, before it is trained, does as well."""
    path = tmp_path / "head.gguf"
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    write_head(path, target, vocabulary, SHAPE, weights(), EXACT)
    mixing = np.random.default_rng(4).standard_normal((576, 1152)).astype(np.float32)
    mixing *= target.output_norm[:, None] / np.sqrt(1152)
    corpus = layered_corpus(20, mixing)
    choices = Choices(None, 64, (2, 27), 8)
    run = prepare(target, corpus, tmp_path, Settings(9), choices, device="cpu", start=path)
    sample = corpus.training[0]
    with torch.no_grad():
        fused = run.head.read(torch.tensor(sample.read, dtype=torch.float32))
    final = sample.rows.astype(np.float32) / target.output_norm
    final /= np.sqrt(np.square(final).mean(1, keepdims=True))
    assert np.abs(fused.numpy() - final).mean() < 0.05
    np.testing.assert_array_equal(run.head.qkv.detach().numpy(), weights()["qkv"])


def test_a_run_reads_the_rows_of_its_checkpoint_or_of_the_head_it_starts_from(
    target: Target, tmp_path: Path
) -> None:
    plain, fused = tmp_path / "plain.gguf", tmp_path / "fused.gguf"
    vocabulary = make_vocabulary(np.arange(32, dtype=np.int32), target.token_embd)
    write_head(plain, target, vocabulary, SHAPE, weights(), EXACT)
    shape = replace(SHAPE, fused_layers=(3, 9), prompt_rows=64)
    write_head(fused, target, vocabulary, shape, weights(shape), EXACT)
    both, too = tmp_path / "both.gguf", replace(shape, with_final=True)
    write_head(both, target, vocabulary, too, weights(too), EXACT)

    def found(
        layers: str | None,
        prompt_rows: int | None,
        start: Path | None,
        final: bool | None = None,
    ) -> object:
        return rows_to_read(target, tmp_path, layers, prompt_rows, start, with_final=final)

    assert found(None, None, None) == ((2, 15, 27), PROMPT_ROWS, True)
    assert found(None, None, None, False) == ((2, 15, 27), PROMPT_ROWS, False)
    assert found(None, None, plain) == ((), 1, False)
    assert found("2,15,27", None, plain) == ((2, 15, 27), PROMPT_ROWS, True)
    assert found(None, None, fused) == ((3, 9), 64, False)
    assert found(None, None, fused, True) == ((3, 9), 64, True)
    assert found(None, 16, fused) == ((3, 9), 16, False)
    assert found(None, None, both) == ((3, 9), 64, True)
    assert found("4,5", None, fused) == ((4, 5), PROMPT_ROWS, True)
    assert found("none", 16, fused) == ((), 1, False)
    corpus = layered_corpus(1, np.ones((576, 1152), np.float32))
    choices = Choices(32, 64, (1, 8), 5)
    prepare(target, corpus, tmp_path, Settings(9), choices, device="cpu").save()
    assert found("4,5", 16, fused) == ((1, 8), 5, False)
    with pytest.raises(MtpError, match=r"plain\.gguf: these heads"):
        export(target, tmp_path, tmp_path / "out.gguf", average=plain)
