"""A head file that was not made for the target is refused in one line, before llama.cpp sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from mtp_cli import head_file
from mtp_cli.engine.files import preflight
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.engine.opening import refusal


def _heads(**own: object) -> tiny.Spec:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm", n_draft=100)
    spec.keys.update({f"mtp.{name.replace('__', '.')}": value for name, value in own.items()})
    return spec


def _fused(**own: object) -> tiny.Spec:
    spec = tiny.fused_heads_for(tiny.llama(), [1])
    spec.keys.update({f"mtp.{name}": value for name, value in own.items()})
    return spec


def _with_final_row(**own: object) -> tiny.Spec:
    spec = tiny.fused_heads_for(tiny.llama(), [1], with_final=True)
    spec.keys.update({f"mtp.{name}": value for name, value in own.items()})
    return spec


def _fused_without(name: str) -> tiny.Spec:
    spec = _fused()
    (spec.keys if name in spec.keys else spec.tensors).pop(name)
    return spec


def _fused_heads(n_heads: int) -> tiny.Spec:
    spec = _fused()
    spec.keys.update({f"mimo2.{key}": n_heads for key in ("block_count", "nextn_predict_layers")})
    return spec


def _fewer_rows() -> tiny.Spec:
    spec = _heads()
    spec.keys["mimo2.vocab_size"] = 90
    for name in ("token_embd.weight", "output.weight"):
        spec.tensors[name] = spec.tensors[name][:90]
    return spec


def _without(key: str) -> tiny.Spec:
    spec = _heads()
    del spec.keys[key]
    return spec


WRONG_HEADS: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "another width": (
        lambda: _heads(trunk__embedding_length=576),
        "these heads were made for rows of width 576, llama.gguf has 64",
    ),
    "another vocabulary": (
        lambda: _without_maps(trunk__vocab_size=49152),
        "these heads were made for a vocabulary of 49152, llama.gguf has 258",
    ),
    "another target": (
        lambda: tiny.heads_for(tiny.llama(seed=77), hidden="pre_norm"),
        "these heads were made for another model (tiny), of the same width and vocabulary as "
        "llama.gguf",
    ),
    "fewer rows than ids": (_fewer_rows, "expected a vocabulary of 100, found 90"),
    "ids out of order": (
        lambda: _heads(draft_ids=[1] * 100),
        "mtp.draft_ids: expected strictly increasing ids, at least one",
    ),
    "ids beyond the target's": (
        lambda: _heads(draft_ids=[*range(99), 258]),
        "mtp.draft_ids: ids outside the target's vocabulary of 258",
    ),
    "surrogates beyond the draft's": (
        lambda: _heads(surrogates=[100] * 258),
        "mtp.surrogates: ids outside the draft vocabulary of 100",
    ),
    "too few surrogates": (lambda: _heads(surrogates=[0]), "mtp."),
    "ids that are text": (lambda: _heads(draft_ids="abc"), "expected an array of ids"),
    "only one map": (
        lambda: _without(head_file.KEY_DRAFT_IDS),
        "expected both mtp.draft_ids and mtp.surrogates, or neither",
    ),
    "a width that is text": (
        lambda: _heads(trunk__embedding_length="64"),
        "mtp.trunk.embedding_length: expected an integer, found '64'",
    ),
    "a row nobody knows": (
        lambda: _heads(hidden="middle"),
        "mtp.hidden: expected one of pre_norm, post_norm, nextn, last_layer, layers, found "
        "'middle'",
    ),
    "a later version": (lambda: _heads(version=2), "mtp.version: expected 1, found 2"),
    "no fingerprint": (
        lambda: _without(head_file.KEY_FINGERPRINT),
        "not a head file of this project: mtp.trunk.fingerprint is missing",
    ),
    "layers that the target lacks": (
        lambda: tiny.fused_heads_for(tiny.llama(), [1, 2]),
        "mtp.fused_layers: layer 2, and llama.gguf has 2",
    ),
    "the embedding's layer": (
        lambda: _fused(fused_layers=[0]),
        "mtp.fused_layers: expected strictly increasing layers from 1 on",
    ),
    "no layers": (
        lambda: _fused_without(head_file.KEY_FUSED_LAYERS),
        "mtp.fused_layers is missing, which mtp.hidden layers needs",
    ),
    "layers of a head that reads one row": (
        lambda: _heads(fused_layers=[1]),
        "mtp.fused_layers: expected with mtp.hidden layers only",
    ),
    "a prompt of a head that reads one row": (
        lambda: _heads(prompt_rows=8),
        "mtp.prompt_rows: expected with mtp.hidden layers only",
    ),
    "more of a prompt than anyone keeps": (
        lambda: _fused(prompt_rows=4097),
        "mtp.prompt_rows: expected 0 to 4096, found 4097",
    ),
    "a part of a row": (
        lambda: _fused(prompt_rows=0.5),
        "mtp.prompt_rows: expected an integer, found 0.5",
    ),
    "final rows too, of a head that reads one row": (
        lambda: _heads(with_final=True),
        "mtp.with_final: expected with mtp.hidden layers only",
    ),
    "final rows or not": (
        lambda: _fused(with_final=1),
        "mtp.with_final: expected true or false, found 1",
    ),
    "final rows without their norm": (
        lambda: _fused(with_final=True),
        "mtp.final_norm.weight is missing, which mtp.fused_layers needs",
    ),
    "a norm of final rows that nobody reads": (
        lambda: _with_final_row(with_final=False),
        "mtp.final_norm.weight: expected with mtp.with_final only",
    ),
    "no fusion": (
        lambda: _fused_without(head_file.FUSE),
        "mtp.fuse.weight is missing, which mtp.fused_layers needs",
    ),
    "a fusion of other layers": (
        lambda: _fused(fused_layers=[1, 2]),
        "mtp.fuse_norm.weight: expected (128,), found (64,)",
    ),
    "a coarse fusion": (
        lambda: _fused().quantized(gguf.GGMLQuantizationType.Q4_0),
        "mtp.fuse.weight: expected F32 or F16 or BF16 or Q8_0, found another",
    ),
    "chained heads that fuse": (
        lambda: _fused_heads(2),
        "mtp.fused_layers: expected one head, which is reused",
    ),
    "not heads": (
        tiny.llama,
        "not a head file (general.type is not mtp-head); a smaller model drafts with --draft-model",
    ),
}


def _without_maps(**own: object) -> tiny.Spec:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm")
    spec.keys.update({f"mtp.{name.replace('__', '.')}": value for name, value in own.items()})
    return spec


@pytest.mark.parametrize("name", WRONG_HEADS)
def test_heads_that_are_not_this_targets(
    tiny_file: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    build, line = WRONG_HEADS[name]
    heads = build().write(tmp_path / "heads.gguf")
    # As after the first start with this file: the pairing is checked every time.
    monkeypatch.setattr(preflight, "_examine_in_child", lambda *files: None)
    assert line in refusal(tiny_file("llama"), heads)


def test_heads_are_not_a_model(tiny_file: Files) -> None:
    assert "pass them with --heads" in refusal(tiny_file("heads"))


def test_heads_that_are_missing_or_damaged(tiny_file: Files, tmp_path: Path) -> None:
    target, path = tiny_file("llama"), tmp_path / "heads.gguf"
    assert refusal(target, path) == "No such file or directory"
    path.write_bytes(tiny_file("heads").read_bytes()[:-1])
    assert refusal(target, path).startswith("truncated: ")


def test_a_target_that_gives_heads_no_rows(tiny_file: Files, tmp_path: Path) -> None:
    """LFM2 computes rows or logits, not both: with heads it would answer from stale logits."""
    heads = tiny.heads_for(tiny.lfm2(), hidden="post_norm").write(tmp_path / "heads.gguf")
    target = tiny_file("lfm2")
    assert "gives heads no rows of a lfm2 model" in refusal(target, heads, named=target)
