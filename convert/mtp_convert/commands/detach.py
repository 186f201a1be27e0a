"""Heads out of a GGUF into a file of their own, and a GGUF without its heads; byte for byte,
unless another format is asked for.

Knows nothing of checkpoints: works on any architecture whose heads follow the target's blocks.
"""

from __future__ import annotations

from pathlib import Path

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.mixes import Traits
from mtp_convert.gguf.model import SHARED, GgufModel, open_model
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import AS_IT_IS, Taken, Wanted, as_they_are, losses, planned


def _with_heads(path: Path) -> GgufModel:
    model = open_model(path)
    if model.is_beside:
        what = "an assistant" if model.is_assistant else "a drafter"
        raise MtpError(f"{path}: {what} is heads only, in a file of its own already")
    if not model.n_heads:
        raise MtpError(f"{path}: holds no MTP heads; mtp-convert graft or pack adds them")
    if not model.has_target:
        raise MtpError(f"{path}: holds heads only")
    return model


def plan_extract(path: Path, wanted: Wanted = AS_IT_IS) -> Plan:
    """A head file: the heads' blocks, and the embedding, norm and output they share."""
    model = _with_heads(path)
    file = model.file
    shared = as_they_are(file, [name for name in SHARED if name in file.tensors])
    info = head_file.HeadInfo(
        target_name=file.name or path.stem,
        fingerprint=model.fingerprint(),
        n_embd=model.n_embd,
        n_vocab=model.n_vocab,
        hidden="nextn",
        vocabulary=None,
    )
    metadata = dict(file.pairs)
    metadata[head_file.KEY_TYPE] = pair(head_file.TYPE)
    metadata |= {key: pair(value) for key, value in info.metadata().items()}
    metadata |= wanted.metadata(wanted.head)
    return _plan(metadata, model.arch, shared, as_they_are(file, model.head_tensors), wanted)


def plan_strip(path: Path, wanted: Wanted = AS_IT_IS) -> Plan:
    """The target alone, as if it had been converted without heads.

    Also of a file that only announces heads: what is stripped then is the announcement.
    """
    model = open_model(path)
    if model.is_beside or model.is_head_file or not model.announces_missing_heads:
        model = _with_heads(path)
    heads = set(model.head_tensors)
    metadata = model.resized(0, model.file.pairs) | wanted.metadata(wanted.outtype)
    names = [name for name in model.file.tensors if name not in heads]
    return _plan(metadata, model.arch, as_they_are(model.file, names), [], wanted)


def _plan(
    metadata: dict[str, Pair], arch: str, target: list[Taken], heads: list[Taken], wanted: Wanted
) -> Plan:
    tensors = planned(target, heads, wanted, Traits.of(arch, metadata))
    return Plan(metadata, tuple(tensors), losses([*target, *heads], tensors))
