"""Head files of others: llama.cpp's sidecars, and fewer ids in the common form.

The common form is that of llama.cpp's pull request 29143: the tensor `d2t` holds the target's id of
each row of the output, as int64, and the embedding is whole. Owns reading and writing it, and what
a sidecar says of its target. Knows nothing of which ids are worth it.
"""

from __future__ import annotations

import re

import numpy as np

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_cli.head_file import HeadInfo, Ids
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import GgufModel
from mtp_convert.gguf.plan import PlannedTensor
from mtp_convert.tensors.kinds import Kind

D2T = "d2t"
# Matrices with one row for each id: that a head reads, that it drafts.
EMBEDDING = re.compile(r"(token_embd|blk\.\d+\.nextn\.embed_tokens)\.weight")
OUTPUT = re.compile(r"(output|blk\.\d+\.nextn\.shared_head_head)\.weight")
_NORM = "output_norm.weight"


def info_of(heads: GgufModel, target: GgufModel) -> HeadInfo:
    """What a head file says of its target; of a sidecar, which says nothing, what the target is.

    MtpError where a sidecar's final norm, which is its target's, is not this one's.
    """
    if not heads.is_sidecar:
        return heads.info()
    same = heads.arch == target.arch and np.array_equal(heads.values(_NORM), target.values(_NORM))
    if not same:
        raise MtpError(f"{heads.path}: made for another model than {target.path}")
    name = target.file.name or target.path.stem
    return HeadInfo(name, target.fingerprint(), heads.n_embd, heads.n_vocab, "nextn", None)


def draft_ids(heads: GgufModel) -> Ids | None:
    """The target's id of each row of the output; None for heads in another form."""
    if D2T not in heads.file.tensors:
        return None
    tensor = heads.file.tensors[D2T]
    outputs = [name for name in heads.file.tensors if OUTPUT.fullmatch(name)]
    n_ids = heads.matrix(outputs[0])[0] if outputs else 0
    if tensor.kind is not Kind.I64 or tensor.shape != (n_ids,):
        raise MtpError(f"{heads.path}: {D2T}: expected {n_ids} int64 numbers, one for each output")
    ids = np.frombuffer(heads.file.read(D2T), "<i8")
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= heads.n_vocab:
        raise MtpError(f"{heads.path}: {D2T}: expected ids below {heads.n_vocab}")
    if len(np.unique(ids)) != len(ids):
        raise MtpError(f"{heads.path}: {D2T}: an id is there twice")
    return ids.astype(np.int32)


def runs(heads: GgufModel) -> bool:
    """Whether anything here runs these heads: llama.cpp as it is pinned has no common form."""
    if D2T not in heads.file.tensors:
        return True
    from mtp_convert.commands import computed  # loads llama.cpp

    return computed.runs_here(heads.path)


def check_whole(heads: GgufModel, info: HeadInfo) -> None:
    """MtpError for heads that have no place in the common form."""
    for is_so, why in (
        (heads.is_independent, "heads that are models of their own"),
        (info.fused is not None, "a head that fuses rows of layers"),
        (info.vocabulary is not None, "an embedding that is cut already; trim the whole head"),
    ):
        if is_so:
            raise MtpError(f"{heads.path}: {why}: {D2T} has no place for it")


def planned_ids(ids: Ids) -> PlannedTensor:
    """The tensor of the common form."""
    raw = ids.astype("<i8").tobytes()
    return PlannedTensor(D2T, ids.shape, Kind.I64, len(raw), lambda: iter([raw]))


def metadata_of(heads: GgufModel, info: HeadInfo) -> dict[str, Pair]:
    """A head file's pairs, as it is or with another vocabulary."""
    said = {head_file.KEY_TYPE: head_file.TYPE, **info.metadata()}
    return {**heads.file.pairs, **{key: pair(value) for key, value in said.items()}}
