"""Tiny models on disk, one of each kind, and contexts over them; a cache of their own.

Each model is written and loaded once a session: a context over it costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtp_cli.engine.types import HiddenSource

if TYPE_CHECKING:  # the quick tests run without llama.cpp
    from mtp_cli.engine.backend.model import Model
    from mtp_cli.engine.backend.target import Target

Files = Callable[[str], Path]
Models = Callable[[str], "Model"]
Targets = Callable[..., "Target"]


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
        from tests.engine.specs import SPECS

        return path if path.exists() else SPECS[name]().write(path)

    return write


@pytest.fixture(scope="session")
def tiny_model(tiny_file: Files) -> Iterator[Models]:
    """A tiny model, loaded."""
    models: dict[str, Model] = {}

    def load(name: str) -> Model:
        from mtp_cli.engine.backend.model import Model

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

    def make(
        name: str,
        *,
        n_ctx: int = 256,
        hidden: HiddenSource = HiddenSource.NONE,
        layers: Sequence[int] = (),
    ) -> Target:
        from mtp_cli.engine.backend.target import Target

        model = tiny_model(name)
        targets.append(Target(model, n_ctx=n_ctx, n_threads=1, hidden=hidden, layers=layers))
        return targets[-1]

    yield make
    for target in targets:
        target.close()
