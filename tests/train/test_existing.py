"""Heads that exist go on from where they are, and come out in the form they had."""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch

from mtp_cli.acceptance import Acceptance, Record
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target as EngineTarget
from mtp_cli.engine.drafters.opening import open_drafter
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import pair
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_cli.head_file import HiddenRow
from mtp_convert.cli import app
from mtp_convert.commands.detach import plan_extract
from mtp_convert.commands.output import is_ours
from mtp_convert.commands.pack import plan_pack
from mtp_convert.gguf.write import write
from mtp_train.corpus import Corpus, Role, Sample
from mtp_train.existing import has_own_heads, read_head
from mtp_train.fit import Run, Settings
from mtp_train.mark import mark_of
from mtp_train.preflight import check_output
from mtp_train.recipe import Choices, export, prepare, rows_to_read
from mtp_train.record import write_record
from mtp_train.target import Target
from tests.engine import tiny
from tests.engine.drafters.recorder import recorder

N, DEPTH = 24, 3
VALUE_DIM, N_ROT = 8, 8


def plain_chain() -> tiny.Spec:
    return tiny.mimo2()


def as_published() -> tiny.Spec:
    """Chained heads with what MiMo-V2's have: narrow values, which are scaled, keys that are
    rotated in part, a window and sinks."""
    spec = tiny.mimo2()
    rng = np.random.default_rng(21)
    n_blocks = spec.keys["mimo2.block_count"]
    for name in [name for name in spec.tensors if name.startswith("blk.")]:
        if "attn_qkv" in name:
            spec.tensors[name] = spec.tensors[name][: 6 * tiny.D_HEAD + 2 * VALUE_DIM]
        elif "attn_output" in name:
            spec.tensors[name] = spec.tensors[name][:, : tiny.N_HEAD * VALUE_DIM]
    for block in range(2, n_blocks):
        sinks = rng.uniform(-1, 1, tiny.N_HEAD).astype(np.float32)
        spec.tensors[f"blk.{block}.attn_sinks.weight"] = sinks
    spec.keys |= {
        "mimo2.attention.value_length": VALUE_DIM,
        "mimo2.attention.value_scale": 0.7,
        "mimo2.rope.dimension_count": N_ROT,
        "mimo2.rope.freq_base": 5000.0,
        "mimo2.rope.freq_base_swa": 700.0,
        "mimo2.attention.sliding_window_pattern": [index >= 1 for index in range(n_blocks)],
    }
    return spec


MODELS: tuple[Callable[[], tiny.Spec], ...] = (plain_chain, as_published)


def logits_of_draft(
    path: Path, heads: Path | None, tokens: Sequence[int], rows: Floats
) -> list[Floats]:
    """The logits of a draft after these tokens, of which all but the newest have rows."""
    pairing = pair(read_shards(path), heads)
    assert pairing is not None
    model = Model(path, n_gpu_layers=0)
    target = EngineTarget(
        model, n_ctx=128, n_threads=1, hidden=pairing.hidden, layers=pairing.layers
    )
    drafter = open_drafter(target, pairing, n_threads=1, n_gpu_layers=0)
    propose, seen = recorder()

    drafter.observe(tokens[:-1], 0, rows)
    drafter.draft(tokens[-1], DEPTH, propose=propose)
    for opened in (drafter, target, model):
        opened.close()
    return seen


def corpus_of(n_embd: int = tiny.N_EMBD) -> Corpus:
    """Texts of a chat's shape, with rows that are noise."""
    rng, texts = np.random.default_rng(5), []
    for _ in range(6):
        ids = rng.integers(1, tiny.EOS, 40, dtype=np.int32)
        roles = np.repeat(np.array([Role.GIVEN, Role.GREEDY], np.uint8), (10, 30))
        texts.append(Sample(ids, roles, rng.standard_normal((40, n_embd)).astype(np.float16)))
    return Corpus(texts, texts[:1])


def run_from(path: Path, start: Path, folder: Path, n_draft: int | None = None) -> Run:
    target = Target(path)
    choices = Choices(n_draft, None, *rows_to_read(target, folder, None, None, start))
    settings = Settings.going_on(4)
    return prepare(target, corpus_of(), folder, settings, choices, device="cpu", start=start)


def stored(path: Path) -> dict[str, tuple[str, bytes]]:
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


def said(path: Path) -> dict[str, object]:
    fields = GGUFReader(path).fields.items()
    return {key: field.contents() for key, field in fields if not key.startswith("GGUF.")}


@pytest.mark.parametrize("spec", MODELS)
@torch.no_grad()
def test_every_chained_step_is_what_the_engine_computes(
    spec: Callable[[], tiny.Spec], tmp_path: Path
) -> None:
    path = spec().write(tmp_path / "model.gguf")
    head = run_from(path, path, tmp_path).head
    tokens = np.random.default_rng(6).integers(0, tiny.EOS, N).tolist()
    rows = np.random.default_rng(7).normal(0, 3, (N - 1, tiny.N_EMBD)).astype(np.float32)
    seen = logits_of_draft(path, None, tokens, rows)
    assert len(seen) == DEPTH
    ids = [int(np.argmax(logits)) for logits in seen]
    read = np.pad(rows / head.row_scale.numpy(), ((0, DEPTH - 1), (0, 0)))
    outs = head.unroll(torch.tensor([[*tokens[1:], *ids[:-1]]]), torch.tensor(read)[None], DEPTH)
    for step, found in enumerate(seen):
        expected = head.logits(outs[step], step)[0, N - 2 + step].numpy()
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("spec", MODELS)
def test_own_heads_come_out_inside_their_model_and_nothing_else_changes(
    spec: Callable[[], tiny.Spec], tmp_path: Path
) -> None:
    path = spec().quantized(GGMLQuantizationType.Q8_0).write(tmp_path / "model.gguf")
    out, trained = tmp_path / "out.gguf", tmp_path / "trained.gguf"
    assert has_own_heads(Target(path))
    run = run_from(path, path, tmp_path)
    run.save()
    export(Target(path), tmp_path, out)
    assert stored(out) == stored(path)
    assert said(out) == {**said(path), "mtp.written_by": mark_of(tmp_path)}
    run.train(corpus_of().held_out, lambda _at, _loss: None, lambda _at, _found: None)
    export(Target(path), tmp_path, trained)
    before, after = stored(path), stored(trained)
    changed = {name for name in before if before[name] != after[name]}
    assert {kind for kind, _ in after.values()} == {kind for kind, _ in before.values()}
    own = {name for name in before if name.startswith(("blk.2.", "blk.3.", "blk.4."))}
    assert changed == own
    assert_it_drafts(trained, None)


def test_what_a_folder_wrote_before_may_be_written_over_from_there_alone(tmp_path: Path) -> None:
    path, out = plain_chain().write(tmp_path / "model.gguf"), tmp_path / "out.gguf"
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (there, here):  # the second run's is there in the end
        run_from(path, path, folder).save()
        export(Target(path), folder, out)
    kept = out.read_bytes()
    check_output(out, path, here)
    write_record(
        out, Record("some prompts", None, "f32", 8, (Acceptance(5, 3, 3, (1, 1)),))
    )  # what a run measures
    assert out.read_bytes() != kept
    check_output(out, path, here)
    with pytest.raises(MtpError, match=f"nor written from {there} before; name another"):
        check_output(out, path, there)
    strip = ["strip", str(out), "-o", str(tmp_path / "bare.gguf")]
    assert CliRunner().invoke(app, strip).exit_code == 0
    for name, other in (("of others", path), ("made of it", tmp_path / "bare.gguf")):
        with pytest.raises(MtpError, match="exists, and is no head file"):
            check_output(other, Path(shutil.copy(path, tmp_path / f"{name}.gguf")), here)
    with pytest.raises(MtpError, match="exists, and is no head file"):
        check_output(out, out, here)  # the target itself


def test_mtp_convert_does_not_take_a_trained_model_for_its_own(tmp_path: Path) -> None:
    """Though the model that it was trained from is."""
    spec = plain_chain()
    spec.keys["mtp.written_by"] = "mtp-convert"
    path, out = spec.write(tmp_path / "model.gguf"), tmp_path / "out.gguf"
    run_from(path, path, tmp_path).save()
    export(Target(path), tmp_path, out)
    assert is_ours(path)
    assert not is_ours(out)


def assert_it_drafts(path: Path, heads: Path | None) -> None:
    with Engine.open(path, heads, n_ctx=128, n_threads=1) as engine:
        run = engine.generate(
            tiny.random_ids(8), Sampling(temperature=0), max_tokens=20, depth=DEPTH
        )
        assert len(list(run)) > 0
        assert sum(run.stats.verified) > 0


@pytest.mark.parametrize(
    ("hidden", "n_draft"), [("pre_norm", None), ("post_norm", 100), ("layers", 100)]
)
def test_a_head_file_keeps_its_names_its_vocabulary_and_what_it_reads(
    hidden: HiddenRow, n_draft: int | None, tmp_path: Path
) -> None:
    target = tiny.llama(n_blocks=4)
    path = target.write(tmp_path / "target.gguf")
    if hidden == "layers":
        spec = tiny.fused_heads_for(target, (1, 3), prompt_rows=30, n_draft=n_draft)
    else:
        spec = tiny.heads_for(target, hidden=hidden, n_draft=n_draft)
    spec.keys["mtp.accepted.counts"] = [1, 2, 3]  # of the weights as they were
    heads = spec.quantized(GGMLQuantizationType.Q8_0).write(tmp_path / "heads.gguf")
    out = tmp_path / "out.gguf"
    run = run_from(path, heads, tmp_path)
    assert len(run.vocabulary.draft_ids) == (n_draft or tiny.N_VOCAB)
    run.save()
    export(Target(path), tmp_path, out)
    assert stored(out) == stored(heads)
    expected = {**said(heads), "mtp.trunk.name": "target"}
    del expected["mtp.accepted.counts"]
    assert said(out) == expected
    assert_it_drafts(path, out)


@torch.no_grad()
def test_a_head_on_final_rows_is_what_the_engine_computes(tmp_path: Path) -> None:
    target = tiny.llama()
    path = target.write(tmp_path / "target.gguf")
    heads = tiny.heads_for(target, hidden="post_norm").write(tmp_path / "heads.gguf")
    head = run_from(path, heads, tmp_path).head
    assert head.shape.row_is_final
    tokens = np.random.default_rng(6).integers(0, tiny.EOS, N).tolist()
    rows = np.random.default_rng(7).normal(0, 3, (N - 1, tiny.N_EMBD)).astype(np.float32)
    seen = logits_of_draft(path, heads, tokens, rows)
    outs = head.unroll(torch.tensor([tokens[1:]]), torch.tensor(rows)[None], 1)
    expected = head.logits(outs[0])[0, -1].numpy()
    assert np.abs(seen[0] - expected).max() < 0.02 * np.abs(expected).max()


def test_heads_out_of_a_model_train_and_run_beside_it(tmp_path: Path) -> None:
    path = plain_chain().write(tmp_path / "model.gguf")
    heads, out = tmp_path / "heads.gguf", tmp_path / "out.gguf"
    write(plan_extract(path), heads)
    run = run_from(path, heads, tmp_path)
    run.train(corpus_of().held_out, lambda _at, _loss: None, lambda _at, _found: None)
    export(Target(path), tmp_path, out)
    before, after = stored(heads), stored(out)
    assert before["output.weight"] != after["output.weight"]
    assert before["token_embd.weight"] == after["token_embd.weight"]
    assert said(out)["mimo2.nextn_predict_layers"] == 3
    assert_it_drafts(path, out)


def test_a_packed_head_is_the_models_own(tmp_path: Path) -> None:
    target = tiny.llama()
    heads = tiny.heads_for(target, hidden="pre_norm").write(tmp_path / "heads.gguf")
    packed, out = tmp_path / "packed.gguf", tmp_path / "out.gguf"
    write(plan_pack(target.write(tmp_path / "target.gguf"), heads), packed)
    run = run_from(packed, packed, tmp_path)
    assert (run.head.shape.n_blocks, run.form) == (1, packed.resolve())
    run.save()
    export(Target(packed), tmp_path, out)
    assert stored(out) == stored(packed)


def test_a_fine_tuned_models_file_names_its_own_target(tmp_path: Path) -> None:
    """Whose norms, and so its fingerprint, are others than those of the model it was made of."""
    base, tuned = tiny.llama(), tiny.llama()
    tuned.tensors["output_norm.weight"] = 1.1 * tuned.tensors["output_norm.weight"]
    path = tuned.write(tmp_path / "tuned.gguf")
    heads = tiny.heads_for(base, hidden="pre_norm").write(tmp_path / "heads.gguf")
    found = read_head(heads, Target(path))
    assert not found.is_for(Target(path))
    out = tmp_path / "out.gguf"
    run_from(path, heads, tmp_path).save()
    export(Target(path), tmp_path, out)
    assert said(out)["mtp.trunk.fingerprint"] == Target(path).fingerprint
    assert_it_drafts(path, out)


def test_a_smaller_vocabulary_makes_a_head_file_of_our_own(tmp_path: Path) -> None:
    target = tiny.llama()
    path = target.write(tmp_path / "target.gguf")
    heads = tiny.heads_for(target, hidden="pre_norm").write(tmp_path / "heads.gguf")
    run = run_from(path, heads, tmp_path, n_draft=50)
    assert (run.form, len(run.vocabulary.draft_ids)) == (None, 50)
    chain = plain_chain().write(tmp_path / "chain.gguf")
    with pytest.raises(MtpError, match="these heads keep their form; leave out --vocabulary"):
        run_from(chain, chain, tmp_path, n_draft=50)


def biased() -> tiny.Spec:
    spec = tiny.mimo2()
    spec.tensors["blk.3.attn_qkv.bias"] = np.zeros(8 * tiny.D_HEAD, np.float32)
    return spec


def unequal() -> tiny.Spec:
    spec = tiny.mimo2()
    spec.keys["mimo2.attention.head_count_kv"] = [2, 2, 2, 2, 1]
    return spec


def scaled() -> tiny.Spec:
    spec = tiny.mimo2()
    spec.keys["mimo2.rope.scaling.type"] = "yarn"
    return spec


def short() -> tiny.Spec:
    spec = tiny.mimo2()
    del spec.tensors["blk.4.nextn.shared_head_norm.weight"]
    return spec


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (tiny.llama, "holds no heads to start from"),
        (tiny.qwen35, "heads of architecture qwen35; mtp-train goes on from blocks of mimo2 only"),
        (biased, "blk.3.attn_qkv.bias: mtp-train's blocks have no such tensor"),
        (unequal, "heads of different shapes"),
        (scaled, "heads with yarn rotary scaling cannot be trained here"),
        (short, "blk.4.nextn.shared_head_norm.weight is missing"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_line(
    spec: Callable[[], tiny.Spec], why: str, tmp_path: Path
) -> None:
    path = spec().write(tmp_path / "model.gguf")
    with pytest.raises(MtpError) as caught:
        read_head(path, Target(path))
    assert str(caught.value).startswith(f"{path}: {why}")
    assert "\n" not in str(caught.value)


def test_another_models_heads_are_refused(tmp_path: Path) -> None:
    path = tiny.llama().write(tmp_path / "target.gguf")
    wider = tiny.heads_for(tiny.llama(), hidden="pre_norm")
    wider.keys["mtp.trunk.vocab_size"] = 300
    with pytest.raises(MtpError, match="for a model of width 64 with 300 ids"):
        read_head(wider.write(tmp_path / "heads.gguf"), Target(path))
    chain = plain_chain().write(tmp_path / "chain.gguf")
    with pytest.raises(MtpError, match="not a head file; mtp-convert extract"):
        read_head(chain, Target(path))


@pytest.mark.parametrize("tables", ["the target's", "its own", "its own, and told to"])
def test_a_run_counts_ids_of_its_texts_where_the_engine_will(tables: str, tmp_path: Path) -> None:
    target = tiny.llama()
    spec = tiny.heads_for(target, hidden="pre_norm", n_draft=100)
    if tables == "the target's":
        ids = tiny.trimmed(100).draft_ids
        names = ("token_embd.weight", "output.weight")
        spec = replace(
            spec, tensors={**spec.tensors, **{name: target.tensors[name][ids] for name in names}}
        )
    elif tables == "its own, and told to":
        spec = replace(spec, keys={**spec.keys, "mtp.adopts": True})
    path = target.write(tmp_path / "target.gguf")
    run = run_from(path, spec.write(tmp_path / "heads.gguf"), tmp_path)
    assert (run.tables is not None) == (tables != "its own")
