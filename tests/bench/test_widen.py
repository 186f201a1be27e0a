"""A widened model computes what the narrow one does, through the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.widen import Scale, plan_heads, plan_target
from mtp_cli.bench.trace import Recorder, Trace
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.errors import MtpError
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.write import write
from tests.engine import tiny

SCALES = pytest.mark.parametrize("scale", [Scale(7), Scale(3, 3), Scale(1, 2)])
PROMPT = tiny.random_ids(24, seed=51)
Pair = tuple[Path, Path]
Widen = Callable[[Pair, Scale], Pair]


@pytest.fixture(params=["one row", "layers"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    target = tiny.llama(n_blocks=3)
    if request.param == "layers":
        heads = tiny.fused_heads_for(target, (1, 2), prompt_rows=8, n_draft=100, with_final=True)
    else:
        heads = tiny.heads_for(target, hidden="pre_norm", n_draft=100)
    return target.write(tmp_path / "target.gguf"), heads.write(tmp_path / "heads.gguf")


@pytest.fixture
def widen(tmp_path: Path) -> Widen:
    def widened(pair: Pair, scale: Scale) -> Pair:
        target, heads = tmp_path / "wide-target.gguf", tmp_path / "wide-heads.gguf"
        write(plan_target(open_model(pair[0]), scale, "f32"), target)
        write(plan_heads(open_model(pair[1]), open_model(target), scale), heads)
        return target, heads

    return widened


def logits(path: Path) -> Floats:
    model = Model(path, n_gpu_layers=0)
    context = Context(
        model, n_ctx=64, n_batch=32, n_outputs=32, n_threads=1, hidden=HiddenSource.NONE
    )
    context.decode(PROMPT, 0)
    found = context.logits().copy()
    context.close()
    model.close()
    return found


def trace(pair: Pair) -> Trace:
    """A greedy answer, and what the heads drafted at every place of it."""
    recorder = Recorder()
    with Engine.open(*pair, n_ctx=256, n_threads=1) as engine:
        answer = engine.generate(PROMPT, Sampling(temperature=0), max_tokens=40, depth=recorder)
        for _ in answer:
            pass
        return recorder.trace(PROMPT, answer.tokens)


@SCALES
def test_the_logits_are_the_narrow_ones(narrow: Pair, widen: Widen, scale: Scale) -> None:
    found, expected = logits(widen(narrow, scale)[0]), logits(narrow[0])
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(found, expected, atol=2e-2)  # keys and values are in half precision


@SCALES
def test_answers_and_drafts_are_the_narrow_ones(narrow: Pair, widen: Widen, scale: Scale) -> None:
    found, expected = trace(widen(narrow, scale)), trace(narrow)
    assert tiny.is_varied(expected.tokens)
    assert found.tokens == expected.tokens
    first, known = ([d.ids[0] for d in t.drafts if d.ids] for t in (found, expected))
    assert len(known) > 30
    assert first == known
    for one, other in zip(found.drafts, expected.drafts, strict=True):
        assert np.allclose(one.probs[:1], other.probs[:1], atol=0.01)


def test_biases_are_widened(tmp_path: Path) -> None:
    narrow, wide = tiny.qwen2().write(tmp_path / "narrow.gguf"), tmp_path / "wide.gguf"
    write(plan_target(open_model(narrow), Scale(3, 3), "f32"), wide)
    expected = logits(narrow)
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(logits(wide), expected, atol=2e-2)
    with pytest.raises(MtpError, match="qwen2 is widened as a whole"):
        plan_target(open_model(narrow), Scale(3), "f32")


def test_it_is_as_wide_as_asked(narrow: Pair, widen: Widen) -> None:
    target, heads = (open_model(path) for path in widen(narrow, Scale(3, 2)))
    assert target.n_embd == heads.n_embd == 3 * tiny.N_EMBD
    assert target.matrix("blk.0.ffn_down.weight") == (3 * tiny.N_EMBD, 2 * tiny.N_FF)
    assert target.matrix("blk.0.attn_k.weight") == (2 * 2 * tiny.D_HEAD, 3 * tiny.N_EMBD)
    assert heads.matrix("blk.0.attn_qkv.weight") == (2 * 8 * tiny.D_HEAD, 3 * tiny.N_EMBD)
    assert heads.matrix("blk.0.nextn.eh_proj.weight") == (3 * tiny.N_EMBD, 6 * tiny.N_EMBD)
    assert target.file.get("llama.attention.head_count") == 2 * tiny.N_HEAD
    assert target.file.get("llama.rope.dimension_count") == tiny.D_HEAD
    assert "scaled" in target.file.get("general.name")


@pytest.mark.parametrize("outtype", ["q8_0", "q4_0"])
def test_quantized_values_do_not_change(
    narrow: Pair, widen: Widen, tmp_path: Path, outtype: str
) -> None:
    quantize(narrow[0], tmp_path / "narrow", outtype)
    quantize(widen(narrow, Scale(5))[0], tmp_path / "wide", outtype)
    name = "blk.1.ffn_gate.weight"
    expected = open_model(tmp_path / "narrow").values(name)
    found = open_model(tmp_path / "wide").values(name)
    np.testing.assert_array_equal(found[:, : tiny.N_EMBD], expected)
    assert not found[:, tiny.N_EMBD :].any()


def test_other_models_are_refused(tmp_path: Path) -> None:
    path = tiny.mimo2().write(tmp_path / "mimo2.gguf")
    with pytest.raises(MtpError, match="architecture mimo2; only llama and qwen2"):
        plan_target(open_model(path), Scale(2), "f32")
