"""A head file of ours and its Llama-type target into one GGUF that llama.cpp runs with drafting.

llama.cpp's `llama` architecture has no MTP graph, its `mimo2` has, and computes the same function:
a dense target moves over byte for byte. q and k rows go back from llama's interleaved rotary pairs
to halves (whole rows move, so quantized ones do too), the output matrix is written even when
tied, and the sliding window is as long as the context. The head keeps its own tensors; a trimmed
vocabulary becomes the target's again, since llama.cpp knows none: the head's rows for its own ids,
the target's for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.commands import common_form
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pairs
from mtp_convert.gguf.mixes import Traits
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan, encoded
from mtp_convert.gguf.reuse import AS_IT_IS, Decoded, Taken, Wanted, losses, planned
from mtp_convert.tensors import formats
from mtp_convert.tensors.sources import Array, load_rows

ARCH = "mimo2"
_SAME = (
    "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.layer_norm_rms_epsilon", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length",
)  # fmt: skip
_LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate",
          "ffn_up", "ffn_down")  # fmt: skip


def plan_pack(target_path: Path, heads_path: Path, wanted: Wanted = AS_IT_IS) -> Plan:
    """The plan that joins a target and a head file of mtp-train.

    A trimmed head's output matrix is made whole, in q8_0 unless another format is asked for.
    """
    target, heads = open_model(target_path), open_model(heads_path)
    info = heads.info()
    _check_target(target)
    _check_heads(target, heads, info)
    metadata = _metadata(target, heads) | wanted.metadata(wanted.outtype)
    of_target, of_heads = list(_target_tensors(target)), list(_head_tensors(target, heads, info))
    tensors = planned(of_target, of_heads, wanted, Traits.of(ARCH, metadata))
    if info.vocabulary is not None:
        source = FullOutput(target, heads, info.vocabulary.draft_ids)
        kind = formats.outtype(wanted.head or "q8_0")
        tensors.append(encoded(_output_name(target), source, kind))
    return Plan(metadata, tuple(tensors), losses([*of_target, *of_heads], tensors))


def _check_target(target: GgufModel) -> None:
    """The dense Llama shape and nothing else: no biases, no experts, no scaled frequencies."""
    if target.arch != "llama":
        raise MtpError(f"{target.path}: architecture {target.arch}; only llama can be packed")
    found = target.file.tensors.keys()
    # The file says how many layers it has: the first that is not there ends the search.
    missing = next((name for name in _dense(target.n_layers) if name not in found), None)
    if missing is not None:
        raise MtpError(f"{target.path}: {missing} is missing: not a dense Llama")
    extra = sorted(found - {*_dense(target.n_layers), "output.weight"})
    if extra:
        raise MtpError(f"{target.path}: {extra[0]}: {ARCH} has no place for it")


def _dense(n_layers: int) -> Iterator[str]:
    """The tensors of a dense Llama; it may have an output matrix, too."""
    yield from ("token_embd.weight", "output_norm.weight")
    for i in range(n_layers):
        yield from (f"blk.{i}.{part}.weight" for part in _LAYER)


def _check_heads(target: GgufModel, heads: GgufModel, info: head_file.HeadInfo) -> None:
    if info.fused is not None:
        raise MtpError(
            f"{heads.path}: fuses rows of several layers, which llama.cpp gives no head; it runs "
            "in mtp-chat, beside its target"
        )
    if heads.arch != ARCH or info.hidden != "pre_norm":
        raise MtpError(
            f"{heads.path}: {heads.arch} heads on {info.hidden} rows; expected {ARCH} heads on "
            "pre_norm rows"
        )
    if info.fingerprint != target.fingerprint():
        raise MtpError(f"{heads.path}: made for {info.target_name}, not for {target.path}")
    for name in ("embedding_length", "attention.head_count", "feed_forward_length"):
        ours, theirs = (m.file.count_per_layer(m.key(name)) for m in (target, heads))
        if ours != theirs:
            raise MtpError(f"{heads.path}: {name} {theirs}, the target's is {ours}")
    if _head_width(target) != heads.file.count(heads.key("attention.key_length")):
        raise MtpError(f"{heads.path}: attention heads of another width than the target's")
    if info.n_vocab != target.n_vocab:
        raise MtpError(f"{heads.path}: for {info.n_vocab} ids, the target has {target.n_vocab}")
    if common_form.draft_ids(heads) is not None:
        raise MtpError(
            f"{heads.path}: fewer ids by {common_form.D2T}; give what mtp-convert trim makes of it"
        )
    if heads.n_layers:
        raise MtpError(f"{heads.path}: {heads.n_layers} layers before the heads; expected none")
    n_ids = target.n_vocab if info.vocabulary is None else len(info.vocabulary.draft_ids)
    for model, rows in ((heads, n_ids), (target, target.n_vocab)):
        _check_output(model, (rows, target.n_embd))


def _check_output(model: GgufModel, wanted: tuple[int, int]) -> None:
    name = "output.weight"
    is_there = model.is_head_file or name in model.file.tensors  # a target's may be tied
    if is_there and model.matrix(name) != wanted:
        raise MtpError(f"{model.path}: {name}: expected {wanted}, found {model.matrix(name)}")


def _n_head(model: GgufModel) -> int:
    found = model.file.count_per_layer(model.key("attention.head_count"))
    if not found:
        raise MtpError(f"{model.path}: {model.key('attention.head_count')}: expected at least one")
    return found


def _head_width(target: GgufModel) -> int:
    return target.file.count(target.key("attention.key_length"), target.n_embd // _n_head(target))


def _n_kv(model: GgufModel) -> int:
    return model.file.count_per_layer(model.key("attention.head_count_kv"), _n_head(model))


def _unrotated(target: GgufModel, name: str, n_heads: int) -> Taken:
    """q or k with the rows of each head back from interleaved pairs to halves."""
    n, _ = target.matrix(name)
    if not n_heads or n % (2 * n_heads):
        raise MtpError(f"{target.path}: {name}: {n} rows do not divide into {n_heads} heads")
    index = np.arange(n).reshape(n_heads, n // n_heads // 2, 2).transpose(0, 2, 1).ravel()
    return Taken(target.file, name, name, index)


def _target_tensors(target: GgufModel) -> Iterator[Taken]:
    file = target.file
    n_heads = {"attn_q": _n_head(target), "attn_k": _n_kv(target)}
    for name in file.tensors:
        part = name.split(".")[-2]
        if name.startswith("blk.") and part in n_heads:
            yield _unrotated(target, name, n_heads[part])
        else:
            yield Taken(file, name, name)
    if "output.weight" not in file.tensors:
        yield Taken(file, "token_embd.weight", "output.weight")


def _output_name(target: GgufModel) -> str:
    return f"blk.{target.n_layers}.nextn.shared_head_head.weight"


def _head_tensors(target: GgufModel, heads: GgufModel, info: head_file.HeadInfo) -> Iterator[Taken]:
    """The head's block behind the target's, and its output matrix where that is whole."""
    for name in heads.head_tensors:
        number, rest = name.removeprefix("blk.").split(".", 1)
        yield Taken(heads.file, name, f"blk.{target.n_layers + int(number)}.{rest}")
    if "blk.0.nextn.shared_head_norm.weight" not in heads.file.tensors:
        raise MtpError(f"{heads.path}: blk.0.nextn.shared_head_norm.weight is missing")
    if info.vocabulary is None:
        yield Taken(heads.file, "output.weight", _output_name(target))


@dataclass(frozen=True)
class FullOutput:
    """A trimmed head's output matrix over the whole vocabulary: the target's rows, then its own."""

    target: GgufModel
    heads: GgufModel
    draft_ids: npt.NDArray[np.int32]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.target.n_vocab, self.target.n_embd

    def rows(self, begin: int, end: int) -> Array:
        tied = "output.weight" not in self.target.file.tensors
        name = "token_embd.weight" if tied else "output.weight"
        found = np.array(load_rows(Decoded(self.target.file, name), begin, end))
        first, last = np.searchsorted(self.draft_ids, [begin, end])
        if first < last:
            own = load_rows(Decoded(self.heads.file, "output.weight"), int(first), int(last))
            found[self.draft_ids[first:last] - begin] = own
        return found


def _metadata(target: GgufModel, heads: GgufModel) -> dict[str, Pair]:
    file, n_layers = target.file, target.n_layers
    found: dict[str, Any] = {
        key: value for key, value in file.pairs.items() if not key.startswith("llama.")
    }
    found["general.architecture"] = ARCH
    for name in _SAME:
        if target.key(name) in file.pairs:
            found[f"{ARCH}.{name}"] = file.pairs[target.key(name)]
    width = _head_width(target)
    base, head_base = (m.file.number(m.key("rope.freq_base"), 10000.0) for m in (target, heads))
    if base != head_base:
        raise MtpError(f"{heads.path}: rope.freq_base {head_base}, the target's is {base}")
    n_kv: Sequence[int] = [_n_kv(target)] * n_layers + [_n_kv(heads)] * heads.n_heads
    # llama.cpp wants a sliding layer in the target's memory and in the heads'; with a window as
    # long as the context it sees all there is.
    pattern = [1] + [0] * (n_layers - 1) + [1] * heads.n_heads
    return pairs({
        **found,
        f"{ARCH}.block_count": n_layers + heads.n_heads,
        f"{ARCH}.nextn_predict_layers": heads.n_heads,
        f"{ARCH}.attention.head_count_kv": list(n_kv),
        f"{ARCH}.attention.key_length": width,
        f"{ARCH}.attention.value_length": width,
        f"{ARCH}.attention.sliding_window": file.count(target.key("context_length")),
        f"{ARCH}.attention.sliding_window_pattern": pattern,
        f"{ARCH}.expert_feed_forward_length": 0,
        f"{ARCH}.rope.dimension_count": width,
        f"{ARCH}.rope.freq_base": base,
        f"{ARCH}.rope.freq_base_swa": base,
    })  # fmt: skip
