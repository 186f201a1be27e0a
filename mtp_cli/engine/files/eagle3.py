"""EAGLE-3 drafters, as llama.cpp's converter writes them: whether one fits a target.

Works on headers alone. Such a file names no target: of two models of the same shape it drafts badly
for one, and harms nothing. llama.cpp ends the process where the shapes differ, so each that its
graph relies on is compared here (arXiv:2503.01840; src/models/eagle3.cpp of the pinned llama.cpp).
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.files import draft_ids
from mtp_cli.engine.files.gguf_header import EAGLE3, Header, n_vocab
from mtp_cli.engine.tuning import TUNING
from mtp_cli.errors import MtpError
from mtp_cli.head_file import Fused

KEY_LAYERS = f"{EAGLE3}.target_layers"
_N_LAYERS = 3  # that llama.cpp's graph fuses
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"  # the target's own where they lack


def check(target: list[Header], heads: Header) -> Fused:
    """The target's layers whose rows it reads; MtpError, naming the drafter, where they do not fit.

    The vocabulary is compared again when the drafter is loaded: a header does not always say it.
    """
    layers = _layers(heads)
    name, n_layers = target[0].path.name, target[0].n_target_layers
    if layers[-1] >= n_layers:
        raise MtpError(f"{heads.path}: {KEY_LAYERS}: layer {layers[-1]}, and {name} has {n_layers}")
    for what, made_for, found in _facts(target, heads):
        if made_for != found:
            raise MtpError(
                f"{heads.path}: this drafter was made for {what} {made_for}, {name} has {found}"
            )
    draft_ids.check(heads, n_vocab(target))
    return Fused(layers, TUNING.heads.n_prompt_eagle3)


def describe(heads: Header) -> str:
    """For people."""
    n_ids = draft_ids.n_draft(heads)
    return f"EAGLE-3 drafter, {n_ids:,} ids" if n_ids else "EAGLE-3 drafter"


def _layers(heads: Header) -> tuple[int, ...]:
    found = heads.pairs.get(KEY_LAYERS)
    layers: tuple[int, ...] = ()
    if isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iu":
        layers = tuple(map(int, found))
    if len(layers) != _N_LAYERS or any(a >= b for a, b in zip((0, *layers), layers, strict=False)):
        raise MtpError(
            f"{heads.path}: {KEY_LAYERS}: expected three increasing layers from 1 on, found "
            f"{list(layers) or 'none'}"
        )
    return layers


def _facts(target: list[Header], heads: Header) -> list[tuple[str, int, int]]:
    """What the drafter expects of its target, and what it will find."""
    n_embd, n_ids = target[0].number("embedding_length"), n_vocab(target)
    facts = [("rows of width", heads.number("target_hidden_size"), n_embd)]
    said = n_vocab([heads]) or heads.number("vocab_size")
    if said:
        facts.append(("a vocabulary of", said, n_ids))
    missing = {_EMBEDDING, _OUTPUT} - heads.tensors.keys()
    if missing:  # the target's own are as wide as its rows
        facts.append(("embeddings of width", heads.number("embedding_length"), n_embd))
    if _OUTPUT in missing and draft_ids.NAME in heads.tensors:
        facts.append(("an output for ids, in number,", draft_ids.n_draft(heads), n_ids))
    return facts
