"""A GGUF that announces heads it lacks: inspect, check, strip and the engine take it for the same
model without heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from mtp_convert.commands.build import Options
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import as_they_are
from mtp_convert.gguf.write import write
from tests.convert.conftest import FAMILIES, WITH_HEADS, Convert

TARGET = Options("target", outtype="f32")
# Lists with an entry for each block stop llama.cpp where blocks of heads are counted.
NEEDS_STRIP = ("qwen35", "qwen35_vision", "qwen35moe", "qwen38", "qwen3next", "nemotron_h",
               "nemotron35")  # fmt: skip


def announcing(family: str, counted: bool, converted: Convert, out: Path) -> Path:
    """The target with the metadata of the whole, or with the number of heads put on top."""
    _, arch, n_heads = FAMILIES[family]
    target = read_gguf(converted(family, TARGET))
    whole = read_gguf(converted(family, Options(outtype="f32")))
    metadata = dict(whole.pairs if counted else target.pairs)
    metadata[f"{arch}.nextn_predict_layers"] = pair(n_heads)
    tensors = (taken.planned(None) for taken in as_they_are(target, target.tensors))
    write(Plan(metadata, tuple(tensors)), out)
    return out


def answer(path: Path) -> list[int]:
    with Engine.open(path, n_ctx=64, n_gpu_layers=0) as engine:
        assert engine.drafter is None
        run = engine.generate([5, 6, 7, 8], Sampling(temperature=0.0), max_tokens=8)
        return [token for tokens in run for token in tokens]


@pytest.mark.parametrize("counted", [True, False], ids=["blocks counted", "on top"])
@pytest.mark.parametrize("family", WITH_HEADS)
def test_all_commands_agree(family: str, counted: bool, converted: Convert, tmp_path: Path) -> None:
    _, _, n_heads = FAMILIES[family]
    plain = converted(family, TARGET)
    path = announcing(family, counted, converted, tmp_path / "announcing.gguf")
    lines = list(inspect_lines(path))
    assert lines[1] == next(line for line in inspect_lines(plain) if line.startswith("target: "))
    assert f"warning: the metadata announces {n_heads} head(s), the file holds none" in lines
    assert open_model(path).n_heads == 0
    with pytest.raises(MtpError, match="holds no MTP heads"):
        plan_extract(path)
    stripped = tmp_path / "stripped.gguf"
    write(plan_strip(path), stripped)
    ours, theirs = (dict(read_gguf(file).pairs) for file in (stripped, plain))
    for pairs in (ours, theirs):
        del pairs["general.size_label"]  # of the checkpoint, with its heads
    assert ours == theirs
    wanted = answer(plain)
    assert answer(stripped) == wanted
    if counted and family in NEEDS_STRIP:
        with pytest.raises(MtpError, match="announces heads that it lacks; mtp-convert strip"):
            answer(path)
    else:
        assert answer(path) == wanted


def test_a_model_with_its_heads_is_left_alone(converted: Convert) -> None:
    with Engine.open(converted("glm4moe"), n_ctx=64, n_gpu_layers=0) as engine:
        assert engine.drafter is not None
