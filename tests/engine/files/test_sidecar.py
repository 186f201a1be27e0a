"""Heads in a file as llama.cpp's converter writes it draft as they do in the model's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.files.beside import heads_beside
from tests.engine import tiny
from tests.engine.opening import refusal
from tests.engine.tiny_sidecar import SHARED, parts

GREEDY = Sampling(temperature=0.0)
TEXT = tiny.random_ids(30, seed=91)
MODELS: dict[str, Callable[[], tiny.Spec]] = {"qwen35": tiny.qwen35, "mimo2": tiny.mimo2}


def written(spec: tiny.Spec, folder: Path) -> tuple[Path, Path, Path]:
    """The whole model, its target, its heads."""
    folder.mkdir(exist_ok=True)
    target, heads = parts(spec)
    return (
        spec.write(folder / "whole.gguf"),
        target.write(folder / "target-Q8_0.gguf"),
        heads.write(folder / "mtp-target-Q8_0.gguf"),
    )


def drafted(model: Path, heads: Path | None) -> tuple[list[int], list[int], str]:
    """The answer, what was drafted of it at first, and who drafted."""
    with Engine.open(model, heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        run = engine.generate(TEXT, GREEDY, max_tokens=20, depth=3)
        answer = [token for tokens in run for token in tokens]
        drafter = engine._timeline.drafter
        width = tiny.N_EMBD
        rows = np.random.default_rng(92).normal(0, 2, (len(TEXT), width)).astype(np.float32)
        drafter.truncate(0)
        drafter.observe(TEXT, 0, rows)
        return answer, drafter.draft(TEXT[0], 3).ids, str(engine.drafter)


@pytest.mark.parametrize("name", MODELS)
def test_they_draft_what_they_draft_inside(name: str, tmp_path: Path) -> None:
    whole, target, heads = written(MODELS[name](), tmp_path)
    inside = drafted(whole, None)
    beside = drafted(target, heads)
    assert len(inside[1]) == 3
    assert beside[:2] == inside[:2]
    count = inside[2].removesuffix(" in the model's file")
    assert beside[2] == f"mtp-target-Q8_0.gguf, {count}"


def test_they_are_found_beside_their_target_alone(tmp_path: Path) -> None:
    whole, target, heads = written(tiny.qwen35(), tmp_path)
    assert heads_beside(target) == heads
    assert heads_beside(whole) is None  # its own win
    assert drafted(whole, heads)[2] == "mtp-target-Q8_0.gguf, 1 head"  # unless told otherwise
    other = parts(tiny.qwen35(seed=77))[0].write(tmp_path / "other.gguf")
    assert heads_beside(other) is None


def _changed(**more: int) -> tiny.Spec:
    heads = parts(tiny.qwen35())[1]
    return replace(heads, keys={**heads.keys, **{f"qwen35.{k}": v for k, v in more.items()}})


def _fewer_ids() -> tiny.Spec:
    heads = parts(tiny.qwen35())[1]
    tensors = {**heads.tensors}
    for name in SHARED[:2]:
        tensors[name] = tensors[name][:200]
    keys = {k: v for k, v in heads.keys.items() if not k.startswith("tokenizer.")}
    keys |= {"tokenizer.ggml.model": "no_vocab", "qwen35.vocab_size": 200}
    return replace(heads, keys=keys, tensors=tensors)


WRONG: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "another architecture": (
        lambda: parts(tiny.mimo2())[1],
        "these heads were made for architecture mimo2, target-Q8_0.gguf has qwen35",
    ),
    "fewer ids": (
        _fewer_ids,
        f"these heads were made for a vocabulary of 200, target-Q8_0.gguf has {tiny.N_VOCAB}",
    ),
    "another target": (
        lambda: parts(tiny.qwen35(seed=77))[1],
        "these heads were made for another model of the same shape as target-Q8_0.gguf: "
        "output_norm.weight differs",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_heads_of_others_are_refused(case: str, tmp_path: Path) -> None:
    build, line = WRONG[case]
    target = written(tiny.qwen35(), tmp_path)[1]
    assert line in refusal(target, build().write(tmp_path / "wrong.gguf"))


def test_they_are_no_model(tmp_path: Path) -> None:
    heads = written(tiny.qwen35(), tmp_path)[2]
    assert refusal(heads).startswith("these are heads without a target; pass them with --heads")
