"""Tiny converted models that several tests share. Each family is converted once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, Part, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert import (
    checkpoints,
    checkpoints_gemma4,
    checkpoints_meta,
    checkpoints_more,
    checkpoints_mtp,
    checkpoints_newer,
)
from tests.convert.checkpoints import Tiny, write_checkpoint

# builder -> (llama.cpp's architecture, heads)
FAMILIES: dict[str, tuple[Callable[[], Tiny], str, int]] = {
    "llama": (checkpoints.llama, "llama", 0),
    "mistral": (checkpoints.mistral, "llama", 0),
    "smollm": (checkpoints.smollm, "llama", 0),
    "qwen2": (checkpoints.qwen2, "qwen2", 0),
    "qwen3": (checkpoints.qwen3, "qwen3", 0),
    "gemma4": (checkpoints_gemma4.gemma4, "gemma4", 0),
    "gemma4_e2b": (checkpoints_gemma4.gemma4_e2b, "gemma4", 0),
    "gemma4_moe": (checkpoints_gemma4.gemma4_moe, "gemma4", 0),
    "gemma4_unified": (checkpoints_gemma4.gemma4_unified, "gemma4", 0),
    "qwen35": (checkpoints_mtp.qwen35, "qwen35", 1),
    "qwen35_vision": (checkpoints_mtp.qwen35_vision, "qwen35", 1),
    "qwen35moe": (checkpoints_mtp.qwen35moe, "qwen35moe", 1),
    "qwen3next": (checkpoints_mtp.qwen3next, "qwen3next", 1),
    "glm4moe": (checkpoints_mtp.glm4moe, "glm4moe", 1),
    "deepseek3": (checkpoints_mtp.deepseek3, "deepseek2", 1),
    "deepseek32": (checkpoints_mtp.deepseek32, "deepseek32", 1),
    "deepseek4": (checkpoints_newer.deepseek4, "deepseek4", 0),
    "glm4moelite": (checkpoints_mtp.glm4moelite, "deepseek2", 1),
    "glm4v": (checkpoints_mtp.glm4v, "glm4moe", 1),
    "glm5": (checkpoints_mtp.glm5, "glm-dsa", 1),
    "hy3": (checkpoints_mtp.hy3, "hy_v3", 1),
    "ling3": (checkpoints_newer.ling3, "bailingmoe3", 1),
    "mimo2": (checkpoints_more.mimo2, "mimo2", 3),
    "mimo25": (checkpoints_newer.mimo25, "mimo2", 3),
    "nemotron35": (checkpoints_newer.nemotron35, "nemotron_h_moe", 1),
    "nemotron_h": (checkpoints_more.nemotron_h, "nemotron_h_moe", 1),
    "north": (checkpoints_newer.north, "cohere2moe", 1),
    "qwen38": (checkpoints_newer.qwen38, "qwen35", 1),
    "step35": (checkpoints_more.step35, "step35", 3),
    "step37": (checkpoints_more.step37, "step35", 3),
}
# Heads that are a checkpoint of their own, and run only with a target's context.
BESIDE: dict[str, tuple[Callable[[], Tiny], str, int]] = {
    "gemma4_assistant": (checkpoints_gemma4.gemma4_assistant, "gemma4-assistant", 0),
    "gemma4_e2b_assistant": (checkpoints_gemma4.gemma4_e2b_assistant, "gemma4-assistant", 0),
}
ALL = FAMILIES | BESIDE
ASSISTANTS = {
    "gemma4": "gemma4_assistant",
    "gemma4_moe": "gemma4_assistant",
    "gemma4_e2b": "gemma4_e2b_assistant",
}
# Whose heads have a file of their own (test_deepseek4.py).
APART = ("deepseek4",)
WITH_HEADS = [name for name, (_, _, n_heads) in FAMILIES.items() if n_heads]

Convert = Callable[..., Path]
MakeFiles = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")

    def make(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else write_checkpoint(folder, ALL[family][0]())

    return make


@pytest.fixture(scope="session")
def converted(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path]
) -> Convert:
    """The GGUF of a family, with options; converted once for each set of them."""
    root = tmp_path_factory.mktemp("converted")

    def make(family: str, options: Options | None = None) -> Path:
        options = options or Options(outtype="f32")
        out = root / options.head_type / f"{family}-{options.part}-{options.outtype}.gguf"
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            write(plan_checkpoint(open_checkpoint(checkpoint(family)), options), out)
        return out

    return make


def convert(folder: Path, out: Path, part: Part, outtype: str = "f32") -> Path:
    """One part of a checkpoint as a GGUF."""
    write(plan_checkpoint(open_checkpoint(folder), Options(part, outtype)), out)
    return out


@pytest.fixture(scope="session")
def gloeckle_files(tmp_path_factory: pytest.TempPathFactory) -> MakeFiles:
    """Target and independent heads in a number format; converted once."""
    root = tmp_path_factory.mktemp("gloeckle")
    folder = checkpoints_meta.write_meta_checkpoint(root / "7B_200B_4", checkpoints_meta.gloeckle())

    def make(outtype: str) -> tuple[Path, Path]:
        target, heads = root / f"target-{outtype}.gguf", root / f"heads-{outtype}.gguf"
        if not heads.exists():
            convert(folder, target, "target", outtype)
            convert(folder, heads, "heads", outtype)
        return target, heads

    return make
