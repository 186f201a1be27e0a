"""Tiny models on disk, one of each kind, and contexts over them; a cache of their own.

Each model is written and loaded once a session: a context over it costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import HiddenSource
from tests.engine import tiny

Q8_0 = gguf.GGMLQuantizationType.Q8_0
Q4_0 = gguf.GGMLQuantizationType.Q4_0
SPECS: dict[str, Callable[[], tiny.Spec]] = {
    "llama": tiny.llama,
    "llama-q8_0": lambda: tiny.llama().quantized(Q8_0),
    "llama-q4_0": lambda: tiny.llama().quantized(Q4_0),
    "gemma2": tiny.gemma2,
    "mimo2": tiny.mimo2,
    "mamba": tiny.mamba,
    "jamba": tiny.jamba,
    "qwen3next": tiny.qwen3next,
    "qwen35": tiny.qwen35,
    "lfm2": tiny.lfm2,
    "lfm2-window": lambda: tiny.lfm2(window=tiny.WINDOW),
    "heads": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm"),
    "heads-q8_0": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm").quantized(Q8_0),
    "heads-post": lambda: tiny.heads_for(tiny.llama(), hidden="post_norm"),
    "heads-trimmed": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm", n_draft=100),
}

Files = Callable[[str], Path]
Models = Callable[[str], Model]
Targets = Callable[..., Target]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("GGML_NO_BACKTRACE", "1")
        yield


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The path of a tiny model, by its name in SPECS."""
    folder = tmp_path_factory.mktemp("tiny")

    def write(name: str) -> Path:
        path = folder / f"{name}.gguf"
        return path if path.exists() else SPECS[name]().write(path)

    return write


@pytest.fixture(scope="session")
def tiny_model(tiny_file: Files) -> Iterator[Models]:
    """A tiny model, loaded."""
    models: dict[str, Model] = {}

    def load(name: str) -> Model:
        if name not in models:
            models[name] = Model(tiny_file(name))
        return models[name]

    yield load
    for model in models.values():
        model.close()


@pytest.fixture
def new_target(tiny_model: Models) -> Iterator[Targets]:
    """A fresh, empty timeline over a tiny model."""
    targets: list[Target] = []

    def make(name: str, *, n_ctx: int = 256, hidden: HiddenSource = HiddenSource.NONE) -> Target:
        targets.append(Target(tiny_model(name), n_ctx=n_ctx, n_threads=1, hidden=hidden))
        return targets[-1]

    yield make
    for target in targets:
        target.close()
