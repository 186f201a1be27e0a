"""A trained head as a head-only GGUF that llama.cpp loads as an MTP context.

Owns the tensor names, the hyperparameter keys of architecture `mimo2`, and the quantization of
the file. Knows nothing of training; the weights come as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, quants

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary, Fused, HeadInfo
from mtp_train.existing import BLOCK, FUSION
from mtp_train.files import written_whole
from mtp_train.shape import HeadShape
from mtp_train.target import Target

F32 = npt.NDArray[np.float32]


def head_info(target: Target, vocabulary: DraftVocabulary, shape: HeadShape) -> HeadInfo:
    return HeadInfo(
        target_name=target.name,
        fingerprint=target.fingerprint,
        n_embd=target.sizes.n_embd,
        n_vocab=target.sizes.n_vocab,
        hidden="layers" if shape.fused_layers else "pre_norm",
        vocabulary=vocabulary,
        fused=_fused(shape),
        adopts=True,
    )


def _fused(shape: HeadShape) -> Fused | None:
    if not shape.fused_layers:
        return None
    return Fused(shape.fused_layers, shape.prompt_rows, shape.with_final)


def write_head(
    path: Path,
    target: Target,
    vocabulary: DraftVocabulary,
    shape: HeadShape,
    weights: Mapping[str, F32],
    kinds: Mapping[str, GGMLQuantizationType],
) -> None:
    """Write `path` by rename. shape: HeadShape's fields; weights: the head's parameters by name;
    kinds: the format of "token_embd", "output" and "block" (its matrices)."""
    check_shapes(target, vocabulary, shape, weights)
    with written_whole(path) as partial:
        _write(partial, target, vocabulary, shape, weights, kinds)


def _write(
    path: Path,
    target: Target,
    vocabulary: DraftVocabulary,
    shape: HeadShape,
    weights: Mapping[str, F32],
    kinds: Mapping[str, GGMLQuantizationType],
) -> None:
    writer = GGUFWriter(path, "mimo2")
    writer.add_type(head_file.TYPE)
    writer.add_name(f"{target.name} MTP head")
    _add_pairs(writer, head_info(target, vocabulary, shape))
    _add_hyperparameters(writer, shape, target.sizes.n_ctx_train)
    block = {own: f"blk.0.{names[0]}" for own, names in BLOCK.items()}
    names = {own: name for own, name in (block | FUSION).items() if own in weights}
    tables = {
        "token_embd.weight": (target.token_embd[vocabulary.draft_ids], kinds["token_embd"]),
        "output.weight": (weights["output"], kinds["output"]),
        "output_norm.weight": (target.output_norm, kinds["block"]),
        **{name: (weights[own], kinds["block"]) for own, name in names.items()},
    }
    for name, (values, kind) in tables.items():
        stored = kind if values.ndim > 1 else GGMLQuantizationType.F32
        values = np.ascontiguousarray(values, np.float32)
        writer.add_tensor(name, quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_shapes(
    target: Target, vocabulary: DraftVocabulary, shape: HeadShape, weights: Mapping[str, F32]
) -> None:
    """MtpError unless every weight fits the shape and the shape fits the target."""
    d, n_draft = target.sizes.n_embd, len(vocabulary.draft_ids)
    if (shape.n_embd, shape.n_draft) != (d, n_draft):
        raise MtpError(
            f"expected a head of width {d} over {n_draft} ids, "
            f"found width {shape.n_embd} over {shape.n_draft}"
        )
    expected: dict[str, tuple[int, ...]] = {
        "output": (n_draft, d),
        **shape.matrices(),
        **shape.norms(),
    }
    for name, wanted in expected.items():
        found = weights[name].shape if name in weights else "nothing"
        if found != wanted:
            raise MtpError(f"{name}: expected {wanted}, found {found}")


def _add_pairs(writer: GGUFWriter, info: HeadInfo) -> None:
    for key, value in info.metadata().items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value.tolist())


def _add_hyperparameters(writer: GGUFWriter, shape: HeadShape, n_ctx: int) -> None:
    writer.add_vocab_size(shape.n_draft)
    writer.add_tokenizer_model("no_vocab")
    writer.add_block_count(1)
    writer.add_uint32("mimo2.nextn_predict_layers", 1)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv([shape.n_head_kv])
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    # mimo2 has a second base for its windowed layers, and aborts without one such layer.
    writer.add_float32("mimo2.rope.freq_base_swa", shape.rope_base)
    writer.add_sliding_window(n_ctx)
    writer.add_array("mimo2.attention.sliding_window_pattern", [1])
    writer.add_expert_feed_forward_length(0)
