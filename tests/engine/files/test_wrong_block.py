"""A block drafter that does not fit its target is refused in one line, unseen by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import pair
from mtp_cli.errors import MtpError
from tests.engine import tiny, tiny_block
from tests.engine.opening import refusal

MASK = "tokenizer.ggml.mask_token_id"


def _with(key: str, value: object, of: Callable[[], tiny.Spec] = tiny_block.dflash) -> tiny.Spec:
    spec = of()
    spec.keys[key] = value
    return spec


def _without(key: str, of: Callable[[], tiny.Spec] = tiny_block.dflash) -> tiny.Spec:
    spec = of()
    del spec.keys[key]
    return spec


def _fewer_ids() -> tiny.Spec:
    spec = tiny_block.dflash()
    spec.tensors["token_embd.weight"] = spec.tensors["token_embd.weight"][:200]
    return spec


def _other_vocabulary() -> tiny.Spec:
    spec = tiny_block.dflash(shares=True)
    del spec.keys["dflash.vocab_size"]
    for name in ("tokens", "token_type"):
        key = f"tokenizer.ggml.{name}"
        spec.keys[key] = [*spec.keys[key], "more" if name == "tokens" else 1]
    return spec


def _few_without_output() -> tiny.Spec:
    spec = tiny_block.dflash(shares=True)
    spec.integers["d2t"] = tiny_block.dflash(n_draft=100).integers["d2t"]
    return spec


def _ids(
    change: Callable[[tiny.Spec], None], of: Callable[..., tiny.Spec] = tiny_block.dflash
) -> tiny.Spec:
    spec = of(n_draft=100)
    change(spec)
    return spec


def _beyond(spec: tiny.Spec) -> None:
    spec.integers["d2t"][3] = tiny.N_VOCAB


def _negative(spec: tiny.Spec) -> None:
    spec.integers["d2t"][3] = -1


def _twice(spec: tiny.Spec) -> None:
    spec.integers["d2t"][3] = spec.integers["d2t"][4]


def _no_integers(spec: tiny.Spec) -> None:
    spec.tensors["d2t"] = spec.integers.pop("d2t").astype(np.float32)


def _both() -> tiny.Spec:
    spec = tiny_block.dspark()
    spec.tensors["selector_hidden.weight"] = np.ones((4, tiny.N_EMBD), np.float32)
    return spec


LAYERS = "dflash.target_layers: expected increasing layers from 1 on, found "
SIZE = "dflash.block_size: expected 2 to 256, found "
MADE_FOR = "this drafter was made for "
EXPECTED_MASK = f"{MASK}: expected the id that stands for what is to be drafted, found "
WRONG: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "another width": (
        lambda: _with("dflash.embedding_length", 32),
        f"{MADE_FOR}rows of width 32, target.gguf has 64",
    ),
    "a layer too late": (
        lambda: _with("dflash.target_layers", [1, 4]),
        "dflash.target_layers: layer 4, and target.gguf has 4",
    ),
    "layers out of order": (
        lambda: _with("dflash.target_layers", [2, 1]),
        LAYERS + "[2, 1]",
    ),
    "the first layer": (lambda: _with("dflash.target_layers", [0, 1]), LAYERS + "[0, 1]"),
    "no layers": (lambda: _without("dflash.target_layers"), LAYERS + "none"),
    "layers that are no whole numbers": (
        lambda: _with("dflash.target_layers", [float("nan"), 2.0]),
        LAYERS + "none",
    ),
    "blocks of one": (lambda: _with("dflash.block_size", 1), SIZE + "1"),
    "blocks without end": (lambda: _with("dflash.block_size", 2**31), SIZE + "2147483648"),
    "blocks of a fraction": (lambda: _with("dflash.block_size", 7.5), SIZE + "7.5"),
    "a chain without a size": (
        lambda: _without("dflash.block_size", tiny_block.dspark),
        "dflash.block_size is missing",
    ),
    "no mask": (lambda: _without(MASK), EXPECTED_MASK + "none"),
    "a mask in words": (lambda: _with(MASK, "<mask>"), EXPECTED_MASK + "<mask>"),
    "a mask beyond": (lambda: _with(MASK, 300), f"{MASK}: id 300, and target.gguf has 258"),
    "another vocabulary": (_fewer_ids, f"{MADE_FOR}a vocabulary of 200, target.gguf has 258"),
    "no output of its ids": (
        _few_without_output,
        f"{MADE_FOR}an output for ids, in number, 100, target.gguf has 258",
    ),
    "an id beyond": (
        lambda: _ids(_beyond),
        "d2t: expected ids from 0 to 257",
    ),
    "a negative id": (
        lambda: _ids(_negative, tiny_block.dspark),
        "d2t: expected ids from 0 to 257",
    ),
    "an id twice": (lambda: _ids(_twice), "d2t: an id is there twice"),
    "ids in floats": (
        lambda: _ids(_no_integers),
        "d2t: expected int64 numbers",
    ),
    "a chain and a lattice": (_both, "a drafter with both a Markov head and a selector"),
    "blocks of DeepSeek-V4": (
        lambda: _with("dflash.hyper_connection.count", 4, tiny_block.dspark),
        "a drafter made of DeepSeek-V4's blocks, which reads means of that model's streams; "
        "nothing here hands these on yet",
    ),
}


ADVICE = "; give heads made for this model, or none"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(n_blocks=4).write(tmp_path_factory.mktemp("target") / "target.gguf")


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit(case: str, target: Path, tmp_path: Path) -> None:
    build, line = WRONG[case]
    path = build().write(tmp_path / "drafter.gguf")
    with pytest.raises(MtpError) as caught:
        pair(read_shards(target), path)
    assert str(caught.value) == f"{path}: {line}{ADVICE}"


def test_llama_cpp_sees_none_of_them(target: Path, tmp_path: Path) -> None:
    build, line = WRONG["an id beyond"]
    assert refusal(target, build().write(tmp_path / "drafter.gguf")) == line + ADVICE


def test_a_vocabulary_that_only_the_tokenizer_tells(target: Path, tmp_path: Path) -> None:
    line = refusal(target, _other_vocabulary().write(tmp_path / "drafter.gguf"))
    assert line == f"{MADE_FOR}a vocabulary of 259, target.gguf has 258"


MAKERS = {"DFlash": tiny_block.dflash, "DFlash2": tiny_block.dflash2, "DSpark": tiny_block.dspark}


def test_by_itself_it_is_no_model(target: Path, tmp_path: Path) -> None:
    path = tiny_block.dspark().write(tmp_path / "drafter.gguf")
    assert "pass it with --heads" in refusal(path)
    with pytest.raises(MtpError, match="pass it with --heads"):
        Engine.open(target, draft_model=path, n_ctx=64, n_threads=1, n_gpu_layers=0)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("DFlash", "fc.weight"),
        ("DFlash2", "selector_successor.weight"),
        ("DFlash2", "blk.0.ffn_conv_base"),
        ("DSpark", "markov_w2.weight"),
        ("DSpark", "conf_proj.weight"),
    ],
)
def test_a_tensor_of_another_shape_is_one_line(
    kind: str, name: str, target: Path, tmp_path: Path
) -> None:
    spec = MAKERS[kind]()
    spec.tensors[name] = spec.tensors[name][..., 1:]
    path = spec.write(tmp_path / "drafter.gguf")
    assert "llama.cpp could not load this model" in refusal(target, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("selector_top_k", 11),
        ("selector_rank", 0),
        ("conv_kernel_size", 2**31 - 1),
        ("conv_group_size", 11),
    ],
)
def test_a_number_that_does_not_fit_is_one_line(
    key: str, value: int, target: Path, tmp_path: Path
) -> None:
    path = _with(f"dflash.{key}", value, tiny_block.dflash2).write(tmp_path / "drafter.gguf")
    assert refusal(target, path)
