"""Heads out of a GGUF into a file of their own, and a GGUF without its heads; byte for byte.

Knows nothing of checkpoints: works on any architecture whose heads follow the trunk's blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from convert.formats import Type
from convert.metadata import pair
from convert.model import SHARED, GgufModel, open_model
from convert.plan import Plan, PlannedTensor
from convert.reuse import reformatted
from mtp_cli import head_file
from mtp_cli.errors import MtpError


def _with_heads(path: Path) -> GgufModel:
    model = open_model(path)
    if not model.n_heads:
        raise MtpError(f"{path}: holds no MTP heads; mtp-convert graft or pack adds them")
    if not model.has_trunk:
        raise MtpError(f"{path}: holds heads only")
    return model


def plan_extract(path: Path, wanted: Type | None) -> Plan:
    """A head file: the heads' blocks, and the embedding, norm and output they share.

    wanted: the number format, None for as it is
    """
    model = _with_heads(path)
    file = model.file
    names = [name for name in (*SHARED, *model.head_tensors) if name in file.tensors]
    info = head_file.HeadInfo(
        trunk_name=str(file.get("general.name", path.stem)),
        fingerprint=model.fingerprint(),
        n_embd=model.n_embd,
        n_vocab=model.n_vocab,
        hidden="nextn",
        vocabulary=None,
    )
    metadata = dict(file.pairs)
    metadata[head_file.KEY_TYPE] = pair(head_file.TYPE)
    metadata |= {key: pair(value) for key, value in info.metadata().items()}
    return Plan(metadata, tuple(_tensors(model, names, wanted)))


def plan_strip(path: Path, wanted: Type | None) -> Plan:
    """The trunk alone, as if it had been converted without heads."""
    model = _with_heads(path)
    heads = set(model.head_tensors)
    metadata = model.resized(0, model.file.pairs)
    names = [name for name in model.file.tensors if name not in heads]
    return Plan(metadata, tuple(_tensors(model, names, wanted)))


def _tensors(
    model: GgufModel, names: Sequence[str], wanted: Type | None
) -> Iterator[PlannedTensor]:
    tied = "output.weight" not in model.file.tensors
    for name in names:
        yield reformatted(model.file, name, wanted, tied)
