"""Block drafters, as llama.cpp's converter writes them: what kind one is, and whether it fits.

Works on headers alone. Such a file names no target: of two models of the same shape it drafts badly
for one, and harms nothing. llama.cpp ends the process where it lacks something, so what its graph
and its loop rely on is looked for here (src/models/dflash.cpp, common/speculative.cpp of the pinned
llama.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtp_cli.engine.backend.layer_rows import last_layer
from mtp_cli.engine.files import draft_ids
from mtp_cli.engine.files.gguf_header import BLOCK, Header, n_vocab
from mtp_cli.errors import MtpError

Kind = Literal["DFlash", "DFlash2", "DSpark"]

KEY_LAYERS, KEY_SIZE = f"{BLOCK}.target_layers", f"{BLOCK}.block_size"
KEY_MASK = "tokenizer.ggml.mask_token_id"
_KEY_ANCHOR, _KEY_CAUSAL = f"{BLOCK}.sample_from_anchor", f"{BLOCK}.attention.causal"
_MARKOV, _SELECTOR, _CONFIDENCE = (
    "markov_w1.weight",
    "selector_hidden.weight",
    "conf_proj.weight",
)
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"  # the target's own where they lack
_USUAL_SIZE = 16  # where the file does not say
_MOST_SIZE = 256


@dataclass(frozen=True)
class Block:
    """How a block drafter is run.

    layers:  of the target, whose rows it reads
    size:    of a block: the newest id, and masks
    mask:    the id that stands where something is to be drafted
    first:   the place in the block that drafts first: the newest id's own, or the one after it
    sees_only_back: a place sees those before it alone, else the whole block
    n_candidates: of a DFlash2 drafter, the ids that it chooses from at each place
    has_confidence: a DSpark drafter says how likely each id is to be accepted
    """

    kind: Kind
    layers: tuple[int, ...]
    size: int
    mask: int
    first: int
    sees_only_back: bool
    n_candidates: int
    has_confidence: bool

    @property
    def n_drafted(self) -> int:
        """Ids that a block drafts."""
        return self.size - self.first


def check(target: list[Header], heads: Header) -> Block:
    """How it is run; MtpError, naming the drafter, where it does not fit or llama.cpp lacks what
    it needs.

    The vocabulary is compared again when the drafter is loaded: a header does not always say it.
    """
    block = _block(heads)
    name, n_layers = target[0].path.name, target[0].n_target_layers
    if block.layers[-1] > last_layer(target[0].architecture, n_layers):
        layer = block.layers[-1]
        raise MtpError(f"{heads.path}: {KEY_LAYERS}: layer {layer}, and {name} has {n_layers}")
    n_ids = n_vocab(target)
    for what, made_for, found in _facts(target, heads, n_ids):
        if made_for != found:
            raise MtpError(
                f"{heads.path}: this drafter was made for {what} {made_for}, {name} has {found}"
            )
    if block.mask >= n_ids:
        raise MtpError(f"{heads.path}: {KEY_MASK}: id {block.mask}, and {name} has {n_ids}")
    draft_ids.check(heads, n_ids)
    return block


def kind_of(heads: Header) -> Kind:
    if _MARKOV in heads.tensors:
        return "DSpark"
    return "DFlash2" if _SELECTOR in heads.tensors else "DFlash"


def describe(heads: Header) -> str:
    """For people."""
    n_ids = draft_ids.n_draft(heads)
    drafter = f"{kind_of(heads)} drafter, blocks of {_size(heads)}"
    return f"{drafter}, {n_ids:,} ids" if n_ids else drafter


def _block(heads: Header) -> Block:
    kind = kind_of(heads)
    _refuse_what_none_runs(heads, kind)
    # llama.cpp reads the newest id's own place of DSpark drafters alone.
    drafts_first = kind == "DSpark" and heads.pairs.get(_KEY_ANCHOR, True) is True
    return Block(
        kind,
        _layers(heads),
        _size(heads),
        _mask(heads),
        first=0 if drafts_first else 1,
        sees_only_back=heads.pairs.get(_KEY_CAUSAL) is True,
        n_candidates=heads.number("selector_top_k") if kind == "DFlash2" else 0,
        has_confidence=kind == "DSpark" and _CONFIDENCE in heads.tensors,
    )


def _refuse_what_none_runs(heads: Header, kind: Kind) -> None:
    if kind == "DSpark" and _SELECTOR in heads.tensors:
        raise MtpError(f"{heads.path}: a drafter with both a Markov head and a selector")
    if heads.number("hyper_connection.count"):
        raise MtpError(
            f"{heads.path}: a drafter made of DeepSeek-V4's blocks, which reads means of that "
            "model's streams; nothing here hands these on yet"
        )


def _size(heads: Header) -> int:
    found = heads.pairs.get(KEY_SIZE, _USUAL_SIZE)
    if type(found) is not int or not 2 <= found <= _MOST_SIZE:
        raise MtpError(f"{heads.path}: {KEY_SIZE}: expected 2 to {_MOST_SIZE}, found {found}")
    if KEY_SIZE not in heads.pairs and kind_of(heads) != "DFlash":
        raise MtpError(f"{heads.path}: {KEY_SIZE} is missing")
    return found


def _mask(heads: Header) -> int:
    found = heads.pairs.get(KEY_MASK)
    if type(found) is not int or found < 0:
        raise MtpError(
            f"{heads.path}: {KEY_MASK}: expected the id that stands for what is to be drafted, "
            f"found {'none' if found is None else found}"
        )
    return found


def _layers(heads: Header) -> tuple[int, ...]:
    found = heads.pairs.get(KEY_LAYERS)
    layers: tuple[int, ...] = ()
    if isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iu":
        layers = tuple(map(int, found))
    if not layers or any(a >= b for a, b in zip((0, *layers), layers, strict=False)):
        raise MtpError(
            f"{heads.path}: {KEY_LAYERS}: expected increasing layers from 1 on, found "
            f"{list(layers) or 'none'}"
        )
    return layers


def _facts(target: list[Header], heads: Header, n_ids: int) -> list[tuple[str, int, int]]:
    """What the drafter expects of its target, and what it will find."""
    facts = [
        ("rows of width", heads.number("embedding_length"), target[0].number("embedding_length"))
    ]
    said = n_vocab([heads]) or heads.number("vocab_size")
    if said:
        facts.append(("a vocabulary of", said, n_ids))
    n_draft = draft_ids.n_draft(heads)
    if n_draft and _OUTPUT not in heads.tensors:
        facts.append(("an output for ids, in number,", n_draft, n_ids))
    return facts
