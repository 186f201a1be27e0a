"""Checks whether an assistant can read a target's keys and values.

Works on headers alone. llama.cpp trusts the pair: it takes the target's last two layers for those
the assistant was trained on, views their keys with the assistant's own widths and looks its tokens
up in the target's table. Whatever those views depend on is compared here. Whether the two were
trained together no header tells; another pair of the same shape drafts badly and harms nothing.
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.files.gguf_header import Header, n_vocab
from mtp_cli.errors import MtpError

TARGET = "gemma4"
# Whether a layer slides -> the suffix of its keys, and its place from the target's end.
_LAYERS = {True: ("_swa", 2), False: ("", 1)}


def check(shards: list[Header], heads: Header) -> None:
    """Raise MtpError, naming the assistant, when it is not for this target."""
    target, name = shards[0], shards[0].path.name
    if target.architecture != TARGET:
        raise MtpError(
            f"{heads.path}: an assistant of a {TARGET} model; {name} is {target.architecture}"
        )
    facts = [
        ("rows of width", heads.number("embedding_length_out"), target.number("embedding_length")),
        ("a vocabulary of", n_vocab([heads]), n_vocab(shards)),
    ]
    for layer, slides in enumerate(_slides(heads)):
        facts += _layer_facts(target, heads, layer, slides)
    for what, made_for, found in facts:
        if made_for != found:
            raise MtpError(
                f"{heads.path}: this assistant was made for {what} {made_for}, {name} has {found}"
            )


def _layer_facts(
    target: Header, heads: Header, layer: int, slides: bool
) -> list[tuple[str, int, int]]:
    """What one layer of the assistant expects of the layer it reads, and what it will find."""
    attention = "sliding" if slides else "full"
    suffix, from_end = _LAYERS[slides]
    place = target.n_target_layers - from_end
    pattern = _slides(target)
    if not 0 <= place < len(pattern) or pattern[place] != slides:
        where = "last layer" if from_end == 1 else "last layer but one"
        raise MtpError(
            f"{heads.path}: this assistant reads {attention} attention in its target's {where}; "
            f"{target.path.name} has another there"
        )
    first_shared = target.n_target_layers - target.number("attention.shared_kv_layers")
    read = min(place, first_shared - from_end)  # which layer's keys that one uses itself
    of_heads = f"{attention} attention heads of width"
    return [
        (of_heads, heads.number(f"attention.{part}{suffix}"),
         target.number(f"attention.{part}{suffix}"))
        for part in ("key_length", "value_length")
    ] + [
        (f"{attention} key heads, in number,", _n_head_kv(heads, layer), _n_head_kv(target, read))
    ]  # fmt: skip


def _slides(header: Header) -> list[bool]:
    """Of every layer, whether its attention slides."""
    pattern = header.pairs.get(f"{header.architecture}.attention.sliding_window_pattern")
    return [bool(x) for x in pattern] if isinstance(pattern, np.ndarray) else []


def _n_head_kv(header: Header, layer: int) -> int:
    value = header.pairs.get(f"{header.architecture}.attention.head_count_kv")
    if isinstance(value, np.ndarray):
        return int(value[layer]) if 0 <= layer < len(value) else 0
    return header.number("attention.head_count_kv")
