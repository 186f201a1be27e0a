"""DeepSeek-V4-Flash base: its head runs from a file of its own, beside its target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import HiddenSource
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.checkpoints_newer import deepseek4, deepseek4_with_head
from tests.convert.conftest import convert
from tests.convert.expectation import dequantized
from tests.convert.forward_newer import deepseek4_head
from tests.convert.heads import write_head_file
from tests.convert.native import head_rows, target_rows
from tests.convert.test_families import PROMPT
from tests.convert.test_heads_forward import close


@dataclass(frozen=True)
class Files:
    """The folder of the tiny checkpoint, its target and its head."""

    folder: Path
    target: Path
    head: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("deepseek4")
    folder = write_checkpoint(root / "x", deepseek4_with_head())
    target = convert(folder, root / "target.gguf", "target")
    return Files(folder, target, convert(folder, root / "head.gguf", "heads"))


def test_its_head_beside_a_plain_forward(files: Files) -> None:
    _, hidden = target_rows(files.target, PROMPT)
    assert hidden.shape == (len(PROMPT), 4 * 64)
    tokens, rows = [*PROMPT[1:], 5], np.concatenate([hidden[:-1], hidden[:1]])
    assert len(tokens) > 16  # longer than the sliding window
    found, own = head_rows(files.head, tokens, rows)
    logits, row = deepseek4_head(deepseek4_with_head(), tokens, rows)
    close(found, logits)
    close(own, row)


def test_drafted_greedy_output_is_plain_output(files: Files) -> None:
    plain, _ = generate(files.target, None, 0)
    for depth in (1, 3):
        drafted, n_drafted = generate(files.target, files.head, depth)
        assert drafted == plain
        assert n_drafted >= 30


def generate(target: Path, heads: Path | None, depth: int) -> tuple[list[int], int]:
    """40 greedy tokens, and how many were drafted on the way."""
    with Engine.open(target, heads=heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        run = engine.generate(PROMPT, Sampling(temperature=0.0), max_tokens=40, depth=depth)
        for _ in run:
            pass
        return run.tokens, sum(run.stats.verified)


def test_a_rejected_draft_is_taken_back(files: Files) -> None:
    """From a snapshot: keys that were compressed cannot be taken apart."""
    model = Model(files.target, n_gpu_layers=0)
    sizes: dict[str, Any] = {"n_ctx": 128, "n_threads": 1, "hidden": HiddenSource.NEXTN}
    target, fresh = Target(model, **sizes), Target(model, **sizes)
    target.decode(PROMPT[:10])
    target.decode(PROMPT[10:])
    assert target.truncate(14) == 14
    fresh.decode(PROMPT[:10])
    fresh.decode(PROMPT[10:14])
    for token in (5, 6, 7):  # with the last a key is compressed
        np.testing.assert_allclose(
            target.decode([token]).logits, fresh.decode([token]).logits, atol=1e-3
        )
    target.close()
    fresh.close()
    model.close()


def test_heads_that_read_rows_it_does_not_give(files: Files, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", files.target)
    with pytest.raises(MtpError, match="gives heads no rows of a deepseek4 model"):
        Engine.open(files.target, heads=heads, n_ctx=128, n_threads=1, n_gpu_layers=0)


def test_what_joins_the_streams_is_the_heads_own(files: Files) -> None:
    plain = dequantized(deepseek4_with_head())
    found = {t.name: np.asarray(t.data) for t in GGUFReader(files.head).tensors}
    for name in ("fn", "base", "scale"):
        wanted = plain[f"mtp.0.hc_head_{name}"]
        np.testing.assert_array_equal(found[f"output_hc_{name}.weight"], wanted)
    both = np.concatenate([plain[f"mtp.0.{name}_proj.weight"] for name in "eh"], axis=1)
    np.testing.assert_allclose(found["blk.4.nextn.eh_proj.weight"], both, rtol=3e-7)
    np.testing.assert_array_equal(found["output_norm.weight"], plain["norm.weight"])


def test_it_has_no_place_in_its_targets_file(files: Files) -> None:
    checkpoint = open_checkpoint(files.folder)
    with pytest.raises(MtpError, match=r"one place for output_hc_fn\.weight.*--heads-only"):
        plan_checkpoint(checkpoint, Options())
    with pytest.raises(MtpError, match="runs from a file of its own"):
        plan_graft(files.target, files.folder)


def test_inspect_says_how_it_runs(files: Files) -> None:
    lines = list(inspect_lines(files.folder))
    assert "heads: 1 (reused, plain KV)" in lines
    assert "runs in: mtp-chat, after mtp-convert convert --no-heads and --heads-only" in lines
    assert not [line for line in lines if line.startswith("convert refuses")]
    assert "runs in: mtp-chat --heads, beside its target" in list(inspect_lines(files.head))
    assert not [line for line in inspect_lines(files.target) if line.startswith("warning")]


def planned(tiny: Tiny, folder: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(folder, tiny))
    write(plan_checkpoint(checkpoint, Options(outtype="f32")), folder / "x.gguf")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"expert_dtype": "fp4"}, "experts stored as fp4; this converter reads FP8"),
        ({"hc_mult": 2}, "hc_mult: llama.cpp's graph has 4 streams"),
        ({"compress_ratios": [0, 4, 64, 4]}, "compress_ratios: llama.cpp's graph has 0, 4 and 128"),
        ({"scoring_func": "sigmoid"}, "scoring_func: llama.cpp's graph has sqrtsoftplus only"),
        ({"norm_topk_prob": False}, "norm_topk_prob: false"),
        ({"index_head_dim": 128}, "index_head_dim is head_dim"),
    ],
)
def test_what_the_graph_does_not_compute(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tiny = deepseek4()
    tiny.config |= changed
    with pytest.raises(MtpError) as error:
        planned(tiny, tmp_path / "x")
    assert said in str(error.value)


def test_an_experts_number_of_more_than_32_bits(tmp_path: Path) -> None:
    tiny = deepseek4()
    tiny.tensors["layers.0.ffn.gate.tid2eid"][3, 1] = 1 << 33
    with pytest.raises(MtpError, match="tid2eid: an integer of more than 32 bits"):
        planned(tiny, tmp_path / "x")


def test_numbers_of_experts_that_are_no_integers(tmp_path: Path) -> None:
    tiny = deepseek4()
    tiny.formats["layers.0.ffn.gate.tid2eid"] = "F32"
    with pytest.raises(MtpError, match="tid2eid: expected integers, found F32"):
        planned(tiny, tmp_path / "x")
