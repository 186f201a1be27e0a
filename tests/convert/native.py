"""Logits and hidden rows straight from llama.cpp, for comparison with other computations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp_ext as ext

from mtp_cli.engine.llama import Context, HiddenSource, Model

Floats = npt.NDArray[np.float32]


def trunk_rows(path: Path, tokens: list[int], nextn: bool = True) -> tuple[Floats, Floats]:
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


def assistant_draft(target: Path, assistant: Path, prompt: list[int], n: int) -> list[int]:
    """n ids drafted by an assistant that reads the target's keys and values.

    All drafts stand at the position after the prompt, as Gemma 4's assistant was trained.
    """
    trunk, small = Model(target, n_gpu_layers=0), Model(assistant, n_gpu_layers=0)
    context = Context(trunk, n_ctx=64, n_batch=32, n_outputs=32, n_threads=1,
                      hidden=HiddenSource.NEXTN)  # fmt: skip
    context.decode(prompt, 0)
    row = context.hidden()
    assert row is not None
    token, hidden = int(context.logits()[-1].argmax()), row[-1].copy()
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_outputs_max = 64, 1, 1
    params.ctx_type, params.ctx_other = lib.LLAMA_CONTEXT_TYPE_MTP, context.handle
    drafter = lib.llama_init_from_model(small.handle, params)
    ext.llama_set_embeddings_nextn(drafter, True, True)
    drafts: list[int] = []
    for _ in range(n):
        token, hidden = _one_row(drafter, token, hidden, len(prompt), small.n_vocab)
        drafts.append(token)
    lib.llama_free(drafter)
    context.close()
    small.close()
    trunk.close()
    return drafts


def _one_row(
    drafter: Any, token: int, hidden: Floats, position: int, n_vocab: int
) -> tuple[int, Floats]:
    batch = lib.llama_batch_init(1, len(hidden), 1)
    ids = (lib.llama_token * 1)(token)
    batch.n_tokens, batch.token = 1, ids
    batch.pos[0], batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = position, 1, 0, 1
    for i, value in enumerate(hidden.tolist()):
        batch.embd[i] = value
    assert lib.llama_decode(drafter, batch) == 0
    batch.token = None  # ours, not the batch's to free
    lib.llama_batch_free(batch)
    logits = np.ctypeslib.as_array(lib.llama_get_logits(drafter), (n_vocab,))
    row = np.ctypeslib.as_array(ext.llama_get_embeddings_nextn(drafter), (len(hidden),))
    return int(logits.argmax()), row.copy()
