"""Logits and hidden rows straight from llama.cpp, for comparison with other computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import HiddenSource

Floats = npt.NDArray[np.float32]


def target_rows(path: Path, tokens: list[int], nextn: bool = True) -> tuple[Floats, Floats]:
    """Logits (n, n_vocab) and the rows handed to heads (n, n_embd) of every token."""
    hidden = HiddenSource.NEXTN if nextn else HiddenSource.EMBD
    return _run(path, tokens, hidden, None, 0)


def head_rows(
    path: Path, tokens: list[int], hidden: Floats, head: int = 0
) -> tuple[Floats, Floats]:
    """A head's logits and own rows, for tokens each with a hidden row, from position 0 on."""
    return _run(path, tokens, HiddenSource.NEXTN, hidden, head)


def _run(
    path: Path, tokens: list[int], source: HiddenSource, hidden: Floats | None, head: int
) -> tuple[Floats, Floats]:
    model = Model(path, n_gpu_layers=0)
    context = Context(
        model,
        n_ctx=128,
        n_batch=len(tokens),
        n_outputs=len(tokens),
        n_threads=1,
        hidden=source,
        mtp=hidden is not None,
    )
    if head:
        context.use_head(head)
    context.decode(tokens, 0, hidden=hidden)
    rows = context.hidden()
    assert rows is not None
    found = context.logits().copy(), rows.copy()
    context.close()
    model.close()
    return found
