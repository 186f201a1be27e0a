"""An EAGLE-3 drafter that does not fit its target is refused in one line, unseen by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mtp_cli.engine import Engine
from mtp_cli.errors import MtpError
from tests.engine import tiny, tiny_eagle3
from tests.engine.opening import refusal


def _with(**keys: object) -> tiny.Spec:
    spec = tiny_eagle3.drafter(n_draft=120)
    spec.keys.update({f"eagle3.{name}": value for name, value in keys.items()})
    return spec


def _fewer_ids() -> tiny.Spec:
    spec = tiny_eagle3.drafter()
    spec.tensors["token_embd.weight"] = spec.tensors["token_embd.weight"][:200]
    return spec


def _other_vocabulary() -> tiny.Spec:
    """Which only its tokenizer says."""
    spec = tiny_eagle3.drafter(shares=True)
    del spec.keys["eagle3.vocab_size"]
    for name in ("tokens", "token_type"):
        key = f"tokenizer.ggml.{name}"
        spec.keys[key] = [*spec.keys[key], "more" if name == "tokens" else 1]
    return spec


def _narrow_without_embedding() -> tiny.Spec:
    spec = tiny_eagle3.drafter()
    del spec.tensors["token_embd.weight"]
    return spec


def _few_without_output() -> tiny.Spec:
    spec = tiny_eagle3.drafter(shares=True)
    spec.integers["d2t"] = tiny_eagle3.drafter(n_draft=100).integers["d2t"]
    return spec


def _id_beyond() -> tiny.Spec:
    spec = tiny_eagle3.drafter(n_draft=120)
    spec.integers["d2t"][-1] = tiny.N_VOCAB
    return spec


LAYERS = "eagle3.target_layers: expected three increasing layers from 1 on, found "
MADE_FOR = "this drafter was made for "
WRONG: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "another width": (
        lambda: _with(target_hidden_size=32),
        f"{MADE_FOR}rows of width 32, target.gguf has 64",
    ),
    "a layer too late": (
        lambda: _with(target_layers=[1, 2, 4]),
        "eagle3.target_layers: layer 4, and target.gguf has 4",
    ),
    "layers out of order": (lambda: _with(target_layers=[2, 1, 3]), LAYERS + "[2, 1, 3]"),
    "two layers": (lambda: _with(target_layers=[1, 2]), LAYERS + "[1, 2]"),
    "the first layer": (lambda: _with(target_layers=[0, 1, 2]), LAYERS + "[0, 1, 2]"),
    "layers that are no whole numbers": (
        lambda: _with(target_layers=[float("nan"), 2.0, 3.0]),
        LAYERS + "none",
    ),
    "another vocabulary": (_fewer_ids, f"{MADE_FOR}a vocabulary of 200, target.gguf has 258"),
    "another tokenizer": (_other_vocabulary, f"{MADE_FOR}a vocabulary of 259, target.gguf has 258"),
    "no embedding of its width": (
        _narrow_without_embedding,
        f"{MADE_FOR}embeddings of width 48, target.gguf has 64",
    ),
    "an id beyond": (_id_beyond, "d2t: expected ids from 0 to 257"),
    "no output of its ids": (
        _few_without_output,
        f"{MADE_FOR}an output for ids, in number, 100, target.gguf has 258",
    ),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tiny.llama(n_blocks=4).write(tmp_path / "target.gguf")


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit(case: str, target: Path, tmp_path: Path) -> None:
    build, line = WRONG[case]
    path = build().write(tmp_path / "drafter.gguf")
    advice = "; give heads made for this model, or none"
    assert refusal(target, path).removesuffix(advice) == line


def test_by_itself_it_is_no_model(target: Path, tmp_path: Path) -> None:
    path = tiny_eagle3.drafter().write(tmp_path / "drafter.gguf")
    assert "pass it with --heads" in refusal(path)
    with pytest.raises(MtpError, match="pass it with --heads"):
        Engine.open(target, draft_model=path, n_ctx=64, n_threads=1, n_gpu_layers=0)


def test_what_makes_llama_cpp_abort_is_one_line(target: Path, tmp_path: Path) -> None:
    spec = tiny_eagle3.drafter()
    spec.tensors["fc.weight"] = spec.tensors["fc.weight"][:, 1:]
    path = spec.write(tmp_path / "drafter.gguf")
    assert "llama.cpp could not load this model" in refusal(target, path)
