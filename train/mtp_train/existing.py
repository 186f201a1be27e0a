"""Heads that exist: read as weights to go on from, and written back in the form they had.

Owns which heads can be expressed: blocks of llama.cpp's `mimo2` graph, one or several in a chain,
in a head file or in the model's own, with the target's vocabulary or a part of it. Everything else
is refused in one line. Knows nothing of training; the weights come and go as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli import acceptance, head_file
from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary, Fused, HeadInfo
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import KEY_WRITER, pair
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan, encoded
from mtp_convert.gguf.reuse import Decoded, Taken
from mtp_convert.gguf.write import write
from mtp_convert.tensors.sources import Constant, load
from mtp_train.shape import HeadShape, in_block
from mtp_train.target import Target

F32 = npt.NDArray[np.float32]

ARCHITECTURE = "mimo2"
# A block's weight -> its tensor in the file, the usual name first.
BLOCK: Mapping[str, tuple[str, ...]] = {
    "eh_proj": ("nextn.eh_proj.weight",),
    "enorm": ("nextn.enorm.weight",),
    "hnorm": ("nextn.hnorm.weight",),
    "head_norm": ("nextn.shared_head_norm.weight", "layer_output_norm.weight"),
    "attn_norm": ("attn_norm.weight",),
    "qkv": ("attn_qkv.weight",),
    "attn_output": ("attn_output.weight",),
    "sinks": ("attn_sinks.weight",),
    "ffn_norm": ("ffn_norm.weight",),
    "ffn_gate": ("ffn_gate.weight",),
    "ffn_up": ("ffn_up.weight",),
    "ffn_down": ("ffn_down.weight",),
}
FUSION = {
    "fuse_norm": head_file.FUSE_NORM,
    "fuse": head_file.FUSE,
    "final_norm": head_file.FINAL_NORM,
}
OUTPUT, OWN_OUTPUT = "output.weight", "nextn.shared_head_head.weight"
EMBEDDING, OWN_EMBEDDING = "token_embd.weight", "nextn.embed_tokens.weight"


@dataclass(frozen=True)
class HeadFile:
    """Heads as read.

    names:   the head's parameters -> their tensors in the file
    weights: the head's parameters by name
    info:    what a head file says of its target; None for a model's own heads
    embeddings: the tensor of the rows that tokens become
    """

    model: GgufModel
    info: HeadInfo | None
    shape: HeadShape
    vocabulary: DraftVocabulary
    names: dict[str, str]
    weights: dict[str, F32]
    embeddings: str

    @property
    def path(self) -> Path:
        return self.model.path

    @property
    def draft_ids(self) -> npt.NDArray[np.int32]:
        return self.vocabulary.draft_ids

    @property
    def fused(self) -> Fused | None:
        return None if self.info is None else self.info.fused

    @property
    def token_embd(self) -> F32:
        """(n_draft, n_embd), which is not trained."""
        return load(_decoded(self.model, self.embeddings))

    @property
    def trains_output(self) -> bool:
        """Whether the output matrix is the heads' own; else the target's, which stays as it is."""
        return "output" in self.names

    def is_for(self, target: Target) -> bool:
        """Whether they were made for this very target, or another number format of it."""
        return self.info is None or self.info.fingerprint == target.fingerprint


def has_own_heads(target: Target) -> bool:
    model = open_model(target.path)
    return not model.is_head_file and model.n_heads > 0


def read_head(path: Path, target: Target) -> HeadFile:
    """MtpError for heads that cannot be expressed here, or that do not fit the target's sizes."""
    model = open_model(path)
    _check_kind(model, target)
    info = model.info() if model.is_head_file else None
    n_embd, n_vocab = target.sizes.n_embd, target.sizes.n_vocab
    if info is not None and (info.n_embd, info.n_vocab) != (n_embd, n_vocab):
        raise MtpError(
            f"{path}: for a model of width {info.n_embd} with {info.n_vocab} ids, {target.path} "
            f"has {n_embd} and {n_vocab}"
        )
    if (info is None or info.hidden == "nextn") and target.arch != ARCHITECTURE:
        raise MtpError(f"{path}: reads rows that only a target of {ARCHITECTURE} gives")
    vocabulary = (info.vocabulary if info else None) or _whole(n_vocab)
    shape = _shape(model, info, n_embd, len(vocabulary.draft_ids))
    names = _names(model, shape)
    weights = {own: load(_decoded(model, theirs)) for own, theirs in names.items()}
    own = f"blk.{model.n_layers}.{OWN_EMBEDDING}"
    embeddings = own if own in model.file.tensors else EMBEDDING
    return HeadFile(model, info, shape, vocabulary, names, weights, embeddings)


def _check_kind(model: GgufModel, target: Target) -> None:
    if not model.n_heads and not model.is_assistant:
        raise MtpError(f"{model.path}: holds no heads to start from")
    kind = ""
    if model.is_assistant or model.is_independent:
        kind = "a model of its own" if model.is_assistant else "independent heads"
    elif model.arch != ARCHITECTURE:
        kind = f"heads of architecture {model.arch}"
    if kind:
        raise MtpError(
            f"{model.path}: {kind}; mtp-train goes on from blocks of {ARCHITECTURE} only, one "
            "reused or several in a chain (--start none begins a new head)"
        )
    if not model.is_head_file and not model.path.samefile(target.path):
        raise MtpError(
            f"{model.path}: not a head file; mtp-convert extract takes heads out of a model"
        )


def _whole(n_vocab: int) -> DraftVocabulary:
    ids = np.arange(n_vocab, dtype=np.int32)
    return DraftVocabulary(ids, ids)


def _shape(model: GgufModel, info: HeadInfo | None, n_embd: int, n_draft: int) -> HeadShape:
    """Of all blocks, which must be alike."""
    found = {
        _block_shape(model, model.n_layers + k, info, n_embd, n_draft) for k in range(model.n_heads)
    }
    if len(found) != 1:
        raise MtpError(f"{model.path}: heads of different shapes; mtp-train takes equal ones")
    return found.pop()


def _block_shape(
    model: GgufModel, block: int, info: HeadInfo | None, n_embd: int, n_draft: int
) -> HeadShape:
    file = model.file

    def value(name: str, default: Any) -> Any:
        listed = file.get(model.key(name), default)
        return listed[block].item() if isinstance(listed, np.ndarray) else listed

    scaling = value("rope.scaling.type", "none")
    if scaling != "none":
        raise MtpError(f"{model.path}: heads with {scaling} rotary scaling cannot be trained here")
    head_dim = int(value("attention.key_length", n_embd // int(value("attention.head_count", 1))))
    base = float(value("rope.freq_base", 10000.0))
    window, n_ctx = int(value("attention.sliding_window", 0)), int(value("context_length", 0))
    slides = bool(value("attention.sliding_window_pattern", False))
    fused = None if info is None else info.fused
    return HeadShape(
        n_embd=n_embd,
        n_head=int(value("attention.head_count", 0)),
        n_head_kv=int(value("attention.head_count_kv", 0)),
        head_dim=head_dim,
        n_ff=int(value("feed_forward_length", 0)),
        n_draft=n_draft,
        rms_eps=float(value("attention.layer_norm_rms_epsilon", 1e-5)),
        rope_base=float(value("rope.freq_base_swa", base)) if slides else base,
        fused_layers=() if fused is None else fused.layers,
        prompt_rows=1 if fused is None else max(fused.prompt_rows, 1),
        n_blocks=model.n_heads,
        value_dim=_unless(int(value("attention.value_length", head_dim)), head_dim),
        n_rot=_unless(int(value("rope.dimension_count", head_dim)), head_dim),
        window=window if slides and window < n_ctx else 0,
        has_sinks=f"blk.{block}.attn_sinks.weight" in file.tensors,
        value_scale=float(value("attention.value_scale", 1.0)),
        row_is_final=info is not None and info.hidden == "post_norm",
        with_final=fused is not None and fused.with_final,
    )


def _unless(found: int, usual: int) -> int:
    return 0 if found == usual else found


def _names(model: GgufModel, shape: HeadShape) -> dict[str, str]:
    """The head's parameters -> the file's tensors, of the expected shapes; MtpError where one is
    missing or too many."""
    names: dict[str, str] = {}
    for k in range(shape.n_blocks):
        start = f"blk.{model.n_layers + k}."
        for own in (*shape.block_matrices(), *shape.block_vectors()):
            choices = [start + name for name in BLOCK[own]]
            there = [name for name in choices if name in model.file.tensors]
            names[in_block(k, own)] = (there or choices)[0]
    own_vectors = shape.matrices().keys() | shape.norms().keys()
    names |= {own: theirs for own, theirs in FUSION.items() if own in own_vectors}
    tables = [f"blk.{model.n_layers}.{name}" for name in (OWN_OUTPUT, OWN_EMBEDDING)]
    if shape.n_blocks == 1 and tables[0] in model.file.tensors:
        names["output"] = tables[0]
    elif model.is_head_file:
        names["output"] = OUTPUT
    known = {*names.values(), *(tables if shape.n_blocks == 1 else ())}
    unknown = sorted(set(model.head_tensors) - known)
    if unknown:
        raise MtpError(f"{model.path}: {unknown[0]}: mtp-train's blocks have no such tensor")
    expected: dict[str, tuple[int, ...]] = {
        **shape.matrices(), **shape.norms(), "output": (shape.n_draft, shape.n_embd),
    }  # fmt: skip
    for own, theirs in names.items():
        found = model.file.tensor(theirs).shape
        if found != expected[own]:
            raise MtpError(f"{model.path}: {theirs}: expected {expected[own]}, found {found}")
    return names


def _decoded(model: GgufModel, name: str) -> Decoded:
    return Decoded(model.file, name)


def write_like(
    path: Path,
    form: HeadFile,
    target: Target,
    prompt_rows: int,
    weights: Mapping[str, F32],
    mark: str,
) -> None:
    """Write the heads as they were read, with other weights: every tensor under its name and in its
    number format, those that did not change byte for byte.

    mark: put into a whole model, to say whose it is
    """
    file = form.model.file
    own_names = {theirs: own for own, theirs in form.names.items()}
    tensors = []
    for name, tensor in file.tensors.items():
        own = own_names.get(name)
        if own is None or np.array_equal(weights[own], form.weights[own]):
            tensors.append(Taken(file, name, name).planned(None))
        else:
            values = np.ascontiguousarray(weights[own], np.float32)
            tensors.append(encoded(name, Constant(values), tensor.kind))
    write(Plan(_metadata(form, target, prompt_rows, mark), tuple(tensors)), path)


def _metadata(form: HeadFile, target: Target, prompt_rows: int, mark: str) -> dict[str, Pair]:
    """What the file said, of this target, and without what the old weights accepted."""
    pairs = {k: p for k, p in form.model.file.pairs.items() if k not in acceptance.KEYS}
    if form.info is None:
        return {**pairs, KEY_WRITER: pair(mark)}
    said: dict[str, Any] = {
        head_file.KEY_TARGET_NAME: target.name,
        head_file.KEY_FINGERPRINT: target.fingerprint,
    }
    if form.fused is not None:
        said[head_file.KEY_PROMPT_ROWS] = prompt_rows
    return {**pairs, **{key: pair(value) for key, value in said.items()}}
