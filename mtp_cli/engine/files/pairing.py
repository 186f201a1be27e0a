"""Pairs heads with a target: where a target's heads lie, and whether a head file was made for it.

Works on headers alone, so that a wrong pair is refused before llama.cpp sees it. Knows nothing of
contexts or drafting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtp_cli.engine.files import (
    assistant,
    block,
    eagle3,
    fused_heads,
    gguf_header,
    independent_heads,
    sidecar,
    trimmed,
)
from mtp_cli.engine.files.block import Block
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.files.target_tables import TablePlaces, table_places
from mtp_cli.engine.types import Floats, HiddenSource, Ids
from mtp_cli.errors import MtpError, advised
from mtp_cli.head_file import DraftVocabulary, Fused, HeadInfo

# Where llama.cpp computes either the rows after the final norm or the logits, not both; or takes
# these rows for as wide as those it hands to heads, and ends the process (deepseek4).
NO_LOGITS_BESIDE_FINAL_ROWS = ("deepseek4", "lfm2", "lfm2moe")


@dataclass(frozen=True)
class Pairing:
    """How a target's heads are to be run.

    heads:      the head file; None when the heads lie in the target's own
    hidden:     the target's row the heads read
    scale:      (n_embd,) float32 to multiply that row with, None for as it is
    vocabulary: the heads' own, None when it is the target's
    n_heads:    more than one are chained, one per draft step, unless they are independent
    shares_kv:  the file is an assistant, a model that reads the target's own keys and values
    offsets:    where in the file each independent head begins; empty for other heads
    fused:      the rows of several layers that the head reads; None for one that reads one row
    block:      how a drafter of whole blocks is run, which reads such rows, too; None for others
    draft_ids:  the target's id of each row of an output that has fewer of them than the embedding
    tables:     where the target's tables lie, which adopted ids are read from; None without
    adopts:     see `HeadInfo.adopts`
    """

    heads: Header | None
    hidden: HiddenSource
    scale: Floats | None
    vocabulary: DraftVocabulary | None
    n_heads: int
    shares_kv: bool = False
    offsets: tuple[int, ...] = ()
    fused: Fused | None = None
    block: Block | None = None
    draft_ids: Ids | None = None
    tables: TablePlaces | None = None
    adopts: bool = False

    @property
    def layers(self) -> tuple[int, ...]:
        """Of HiddenSource.LAYER and LAYER_AND_EMBD; empty for the last one."""
        if self.block is not None:
            return self.block.layers
        return () if self.fused is None else self.fused.layers

    @property
    def path(self) -> Path | None:
        return None if self.heads is None else self.heads.path

    def describe(self) -> str:
        if self.shares_kv and self.path is not None:
            return f"{self.path.name}, assistant that shares the model's KV"
        if self.heads is not None and gguf_header.is_eagle3(self.heads):
            return f"{self.heads.path.name}, {eagle3.describe(self.heads)}"
        if self.heads is not None and self.block is not None:
            return f"{self.heads.path.name}, {block.describe(self.heads)}"
        name = "in the model's file" if self.path is None else self.path.name
        how = "independent" if self.offsets else "chained"
        count = "1 head" if self.n_heads == 1 else f"{self.n_heads} {how} heads"
        drafted = self.draft_ids if self.vocabulary is None else self.vocabulary.draft_ids
        ids = "" if drafted is None else f", {len(drafted):,} ids"
        if self.fused is not None:
            ids += f", rows of {len(self.layers)} layers"
        return f"{count} {name}{ids}" if self.path is None else f"{name}, {count}{ids}"


def pair(target: list[Header], heads: Path | None) -> Pairing | None:
    """The heads for this target, None when there are none; MtpError when `heads` is not for it."""
    if heads is not None:
        header = gguf_header.read_header(heads)
        with advised("give heads made for this model, or none"):
            return replace(_beside(target, header), tables=table_places(target))
    if gguf_header.has_heads(target):
        n_heads = target[0].number("nextn_predict_layers")
        return Pairing(None, HiddenSource.NEXTN, None, None, n_heads)
    return None


def _beside(target: list[Header], heads: Header) -> Pairing:
    if gguf_header.is_assistant(heads):
        assistant.check(target, heads)
        return Pairing(heads, HiddenSource.NEXTN, None, None, 1, shares_kv=True)
    if gguf_header.is_eagle3(heads):
        fused = eagle3.check(target, heads)
        return Pairing(heads, HiddenSource.LAYER, None, None, 1, fused=fused)
    if gguf_header.is_block(heads):
        found = block.check(target, heads)
        return Pairing(heads, HiddenSource.LAYER, None, None, 1, block=found)
    if gguf_header.is_sidecar(heads):
        sidecar.check(target, heads)
        ids = trimmed.draft_ids(heads, gguf_header.n_vocab(target))
        n_heads = heads.number("nextn_predict_layers")
        return Pairing(heads, HiddenSource.NEXTN, None, None, n_heads, draft_ids=ids)
    if not gguf_header.is_head_file(heads):
        raise MtpError(
            f"{heads.path}: not a head file (general.type is not mtp-head); a smaller model drafts "
            "with --draft-model"
        )
    try:
        info = HeadInfo.from_metadata(heads.pairs)
    except MtpError as error:
        raise MtpError(f"{heads.path}: {error}") from None
    if info.hidden == "last_layer":
        return _independent(target, heads, info)
    _check(target, heads, info)
    fused_heads.check(heads, info.fused)
    ids = trimmed.draft_ids(heads, info.n_vocab)
    if ids is not None and (info.vocabulary is not None or info.fused is not None):
        raise MtpError(f"{heads.path}: {trimmed.D2T}: expected in heads without other maps only")
    if info.fused is not None:
        fused_heads.check_layers(target[0], heads, info.fused)
        source = HiddenSource.LAYER
        if info.fused.with_final:
            check_final_rows(target[0])
            source = HiddenSource.LAYER_AND_EMBD
        return Pairing(
            heads, source, None, info.vocabulary, 1, fused=info.fused, adopts=info.adopts
        )
    scale = _unscale(target) if info.hidden == "pre_norm" else None
    hidden = HiddenSource.NEXTN if info.hidden == "nextn" else HiddenSource.EMBD
    if hidden is HiddenSource.EMBD:
        check_final_rows(target[0])
    n_heads = heads.number("nextn_predict_layers")
    return Pairing(
        heads, hidden, scale, info.vocabulary, n_heads, draft_ids=ids, adopts=info.adopts
    )


def check_final_rows(target: Header) -> None:
    """That llama.cpp hands out the row after the final norm beside the logits."""
    if target.architecture in NO_LOGITS_BESIDE_FINAL_ROWS:
        raise MtpError(
            f"{target.path}: llama.cpp gives heads no rows of a {target.architecture} model"
        )


def _independent(target: list[Header], heads: Header, info: HeadInfo) -> Pairing:
    """Heads beside the target's last layer, each a model of one layer inside the file."""
    wanted = independent_heads.ARCHITECTURE  # of others llama.cpp would abort when asked for rows
    if target[0].architecture != wanted:
        raise MtpError(
            f"{heads.path}: these heads need a target of architecture {wanted}; "
            f"{target[0].path.name} is {target[0].architecture}"
        )
    embedded = independent_heads.embedded(heads)
    for head in embedded:
        _check(target, head.header, info)
    offsets = tuple(head.offset for head in embedded)
    source = HiddenSource.LAYER
    return Pairing(heads, source, None, info.vocabulary, len(offsets), offsets=offsets)


def _check(target: list[Header], heads: Header, info: HeadInfo) -> None:
    name = target[0].path.name
    n_embd = target[0].number("embedding_length")
    n_vocab = gguf_header.n_vocab(target)
    n_draft = n_vocab if info.vocabulary is None else len(info.vocabulary.draft_ids)
    facts = (
        ("rows of width", info.n_embd, n_embd),
        ("a vocabulary of", info.n_vocab, n_vocab),
    )
    for what, made_for, found in facts:
        if made_for != found:
            raise MtpError(
                f"{heads.path}: these heads were made for {what} {made_for}, {name} has {found}"
            )
    own = (
        ("rows of width", n_embd, heads.number("embedding_length")),
        ("a vocabulary of", n_draft, gguf_header.n_vocab([heads])),
    )
    for what, expected, found in own:
        if expected != found:
            raise MtpError(f"{heads.path}: expected {what} {expected}, found {found}")
    if info.fingerprint != gguf_header.target_fingerprint(target):
        raise MtpError(
            f"{heads.path}: these heads were made for another model "
            f"({info.target_name or 'unnamed'}), of the same width and vocabulary as {name}"
        )


def _unscale(target: list[Header]) -> Floats:
    """What turns the row after the final RMS norm into the row before it, up to a row's scale."""
    for header in target:
        weight = gguf_header.read_f32(header, "output_norm.weight")
        if weight is not None and "output_norm.bias" not in header.tensors:
            return (1 / np.where(weight == 0, 1, weight)).astype(np.float32)
    raise MtpError(
        f"{target[0].path}: these heads need a target whose final norm is an RMS norm in float32"
    )
