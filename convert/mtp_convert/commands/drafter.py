"""What the file of a drafter takes from its target, and the map between their vocabularies.

A drafter that reads rows of its target's layers comes without a tokenizer. Owns reading the target,
from its checkpoint or its GGUF, and `d2t`: which ids of the target the drafter's stand for. Knows
nothing of any one family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError, advised
from mtp_convert.checkpoint.folder import open_config
from mtp_convert.commands.resolver import Resolver
from mtp_convert.families import family_of
from mtp_convert.families.rules import MASK, Config, LayerReader, reading
from mtp_convert.gguf.metadata import pairs
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.plan import PlannedTensor
from mtp_convert.tensors.kinds import Kind
from mtp_convert.tokenizer.vocabulary import tokenizer_metadata

D2T = "d2t"
_INTEGERS = {"I64": "<i8", "I32": "<i4"}


@dataclass(frozen=True)
class TargetFacts:
    """What a drafter's file says of its target.

    tokenizer: its tokenizer.* pairs
    has_mrope: whether its rotary positions have several axes
    """

    n_layers: int
    n_embd: int
    n_vocab: int
    tokenizer: Mapping[str, Any]
    has_mrope: bool


def target_facts(target: Path, pre: str | None, notes: list[str]) -> TargetFacts:
    """Of a checkpoint's folder, of which config.json and tokenizer are enough, or of a GGUF."""
    if target.is_dir():
        config = Config(open_config(target), str(target / "config.json"))
        n_vocab = config.count("vocab_size")
        with advised("give its GGUF with --target"):
            family = family_of(config)
        return TargetFacts(
            config.count("num_hidden_layers"),
            config.count("hidden_size"),
            n_vocab,
            tokenizer_metadata(target, n_vocab, family, pre, notes),
            bool(config.rope.get("mrope_section")),
        )
    model = open_model(target)
    tokenizer = {k: v for k, v in model.file.pairs.items() if k.startswith("tokenizer.")}
    has_mrope = model.key("rope.dimension_sections") in model.file.pairs
    return TargetFacts(model.n_layers, model.n_embd, model.n_vocab, tokenizer, has_mrope)


def metadata_of(
    resolver: Resolver, reads: LayerReader, target: Path | None, pre: str | None, notes: list[str]
) -> dict[str, Any]:
    """The layers that it reads and its target's tokenizer; MtpError where the two do not fit."""
    config, arch = resolver.config, resolver.family.arch
    if target is None:
        raise MtpError(
            f"{config.where}: {resolver.family.name}: a drafter takes its tokenizer from its "
            "target; give the target's folder or GGUF with --target"
        )
    _check_embedding(resolver)
    facts, dims = target_facts(target, pre, notes), resolver.family.dims(config, 0)
    for what, own, found in (
        ("rows of width", dims["row"], facts.n_embd),
        ("a vocabulary of", dims["vocab"] or facts.n_vocab, facts.n_vocab),
    ):
        if own != found:
            raise MtpError(
                f"{config.where}: this drafter was made for {what} {own}, {target} has {found}"
            )
    with reading(config):
        layers = _checked(config.where, reads, reads.layers(config, facts.n_layers), facts.n_layers)
        more = reads.more(config, resolver.names, facts.has_mrope)
    if more.get(MASK, 0) >= facts.n_vocab:
        raise MtpError(f"{config.where}: mask_token_id: {more[MASK]} is no id of {target}")
    own_pairs = pairs({key.replace("{arch}", arch): value for key, value in more.items()})
    return {f"{arch}.target_layers": layers, **facts.tokenizer, **own_pairs}


def _check_embedding(resolver: Resolver) -> None:
    """MtpError for a row that a drafter puts into its target's embedding: the file would need all.

    llama.cpp's converter copies the target's embedding and output for it.
    """
    row = resolver.checkpoint.folder / "mask_embedding.pt"
    if row.exists():
        raise MtpError(
            f"{row}: an embedding of its own for masked ids, which is not converted; take a GGUF "
            "that llama.cpp's converter made"
        )


def _checked(where: str, reads: LayerReader, layers: object, n_target: int) -> object:
    """The layers, where they are layers of the target; MtpError otherwise."""
    last = n_target if reads.n_layers is None else n_target - 1
    n = reads.n_layers or (len(layers) if isinstance(layers, list) else 0)
    if n == 0 or not _are_layers(layers, n, last):
        count = "" if reads.n_layers is None else f"{n} "
        raise MtpError(
            f"{where}: layers to read: expected {count}increasing ones from 1 to {last}, found "
            f"{str(layers)[:60]}"
        )
    return layers


def _are_layers(layers: object, n: int, last: int) -> bool:
    if not isinstance(layers, list) or len(layers) != n:
        return False
    steps = zip([0, *layers], [*layers, last + 1], strict=True)
    return all(type(layer) is int for layer in layers) and all(a < b for a, b in steps)


def vocabulary_map(resolver: Resolver) -> tuple[PlannedTensor, ...]:
    """`d2t`: the target's id of each drafted one. A checkpoint has how far they lie apart.

    Empty for a drafter whose ids are its target's.
    """
    if D2T not in resolver.names:
        _check_whole(resolver)
        return ()
    entry, dims = resolver.entry(D2T), resolver.family.dims(resolver.config, 0)
    where = f"{entry.file}: {D2T}"
    if entry.dtype not in _INTEGERS or entry.shape != (dims["draft"],):
        raise MtpError(f"{where}: expected {dims['draft']} integers, found {entry.shape}")
    apart = np.frombuffer(entry.read(0, entry.n_bytes), _INTEGERS[entry.dtype])
    ids: npt.NDArray[np.int64] = apart.astype(np.int64) + np.arange(len(apart))
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= dims["vocab"]:
        raise MtpError(f"{where}: ids outside the target's vocabulary of {dims['vocab']}")
    if len(np.unique(ids)) != len(ids):
        raise MtpError(f"{where}: two drafted ids stand for one of the target's")
    raw = ids.astype("<i8").tobytes()
    return (PlannedTensor(D2T, ids.shape, Kind.I64, len(raw), lambda: iter([raw])),)


def _check_whole(resolver: Resolver) -> None:
    dims = resolver.family.dims(resolver.config, 0)
    if dims["draft"] != dims["vocab"]:
        raise MtpError(
            f"{resolver.checkpoint.folder}: {D2T} is missing: of {dims['vocab']} ids "
            f"{dims['draft']} are drafted, and nothing says which"
        )
