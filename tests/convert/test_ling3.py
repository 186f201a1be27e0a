"""Ling-3.0: the variants that are published, and those that llama.cpp's graph does not compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import Tiny, write_checkpoint, write_tokenizer
from tests.convert.checkpoints_newer import ling3, ling3_tiny
from tests.convert.forward_newer import ling3_head
from tests.convert.native import head_rows, target_rows
from tests.convert.test_families import PROMPT
from tests.convert.test_heads_forward import close

RULE = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


def converted(tiny: Tiny, folder: Path) -> Path:
    out = folder / "x.gguf"
    checkpoint = open_checkpoint(write_checkpoint(folder / "x", tiny))
    write(plan_checkpoint(checkpoint, Options(outtype="f32")), out)
    return out


def test_queries_of_low_rank(tmp_path: Path) -> None:
    path = converted(ling3_tiny(), tmp_path)
    _, hidden = target_rows(path, PROMPT)
    found, _ = head_rows(path, PROMPT[1:], hidden[:-1])
    close(found, ling3_head(ling3_tiny(), PROMPT[1:], hidden[:-1]))


def test_the_limits_of_its_head_are_felt(tmp_path: Path) -> None:
    tiny = ling3()
    path = converted(tiny, tmp_path)
    _, hidden = target_rows(path, PROMPT)
    found, _ = head_rows(path, PROMPT[1:], hidden[:-1])
    tiny.config["expert_swiglu_limit_list"] = [1e9] * 5
    assert np.abs(found - ling3_head(tiny, PROMPT[1:], hidden[:-1])).max() > 0.1


def test_decays_in_four_dimensions(tmp_path: Path) -> None:
    """As vLLM allows them."""
    tiny = ling3()
    for i in (0, 2):
        name = f"model.layers.{i}.attention.A_log"
        tiny.tensors[name] = tiny.tensors[name].reshape(1, 1, -1, 1)
    plain = {t.name: t for t in GGUFReader(converted(ling3(), tmp_path / "a")).tensors}
    for tensor in GGUFReader(converted(tiny, tmp_path / "b")).tensors:
        assert tensor.data.tobytes() == plain[tensor.name].data.tobytes()
        assert list(tensor.shape) == list(plain[tensor.name].shape)


def test_its_rule_for_words_has_a_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", ling3())
    write_tokenizer(folder, RULE)
    plan = plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))
    assert plan.metadata["tokenizer.ggml.pre"].value == "bailingmoe2"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"no_kda_lora": False}, "no_kda_lora: delta attention with projections of low rank"),
        ({"kda_safe_gate": False}, "kda_safe_gate: false: a gate without a lower bound"),
        ({"kda_lower_bound": 0.5}, "kda_lower_bound: expected a number below zero"),
        (
            {"gated_attention_proj_granularity_type": "element_wise"},
            "gated_attention_proj_granularity_type: llama.cpp has gates for whole heads only",
        ),
        ({"mtp_use_kda": True}, "mtp_use_kda: a head with delta attention"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling: yarn"),
    ],
)
def test_what_the_graph_does_not_compute(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tiny = ling3()
    tiny.config |= changed
    with pytest.raises(MtpError) as error:
        converted(tiny, tmp_path)
    assert said in str(error.value)
