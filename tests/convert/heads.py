"""A tiny head file for a tiny Llama target, written with gguf-py, as mtp-train writes them.

Owns the head's random tensors. Knows nothing of the converter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from mtp_cli import head_file
from mtp_cli.head_file import DraftVocabulary, HeadInfo
from tests.convert.checkpoints import EMBD, FF, N_HEAD, N_KV, WIDTH

Floats = npt.NDArray[np.float32]


def head_tensors(n_vocab: int, seed: int = 7) -> dict[str, Floats]:
    """One `mimo2` MTP block without the matrices over the vocabulary."""
    random = np.random.default_rng(seed)

    def matrix(n_rows: int, n_cols: int) -> Floats:
        values: Floats = random.standard_normal((n_rows, n_cols)).astype(np.float32)
        return values / np.float32(np.sqrt(n_cols))

    def norm() -> Floats:
        return (1 + 0.2 * random.standard_normal(EMBD)).astype(np.float32)

    return {
        "blk.0.attn_norm.weight": norm(),
        "blk.0.attn_qkv.weight": matrix((N_HEAD + 2 * N_KV) * WIDTH, EMBD),
        "blk.0.attn_output.weight": matrix(EMBD, N_HEAD * WIDTH),
        "blk.0.ffn_norm.weight": norm(),
        "blk.0.ffn_gate.weight": matrix(FF, EMBD),
        "blk.0.ffn_up.weight": matrix(FF, EMBD),
        "blk.0.ffn_down.weight": matrix(EMBD, FF),
        "blk.0.nextn.eh_proj.weight": matrix(EMBD, 2 * EMBD),
        "blk.0.nextn.enorm.weight": norm(),
        "blk.0.nextn.hnorm.weight": norm(),
        "blk.0.nextn.shared_head_norm.weight": norm(),
        "output_norm.weight": norm(),
    }


def target_values(target: Path, name: str) -> Floats:
    tensor = next(t for t in GGUFReader(target).tensors if t.name == name)
    found: Floats = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type))
    shape = tuple(int(n) for n in reversed(tensor.shape))
    values: Floats = found.reshape(shape)
    return values


def target_info(target: Path, vocabulary: DraftVocabulary | None, hidden: Any) -> HeadInfo:
    reader = GGUFReader(target)
    norms = [(t.name, t.data) for t in reader.tensors if head_file.is_fingerprinted(t.name, 99)]
    n_vocab = next(t for t in reader.tensors if t.name == "token_embd.weight").shape[1]
    print_ = head_file.fingerprint(norms)
    return HeadInfo("tiny", print_, EMBD, int(n_vocab), hidden, vocabulary)


def write_head_file(
    path: Path,
    target: Path,
    draft_ids: npt.NDArray[np.int32] | None = None,
    hidden: str = "pre_norm",
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """A head file for `target`, over all its ids or over `draft_ids` (then id 0 stands in)."""
    output = "output.weight"
    if output not in [t.name for t in GGUFReader(target).tensors]:
        output = "token_embd.weight"
    matrices = {
        "token_embd.weight": target_values(target, "token_embd.weight"),
        "output.weight": target_values(target, output) + np.float32(0.01),
    }
    vocabulary = None
    if draft_ids is not None:
        surrogates = np.zeros(len(matrices["token_embd.weight"]), np.int32)
        surrogates[draft_ids] = np.arange(len(draft_ids))
        vocabulary = DraftVocabulary(draft_ids.astype(np.int32), surrogates)
        matrices = {name: values[draft_ids] for name, values in matrices.items()}
    n_ids = len(matrices["output.weight"])
    writer = GGUFWriter(path, "mimo2")
    writer.add_type(head_file.TYPE)
    for key, value in target_info(target, vocabulary, hidden).metadata().items():
        if isinstance(value, np.ndarray):
            writer.add_array(key, value.tolist())
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    _hyperparameters(writer, n_ids)
    for name, values in {**head_tensors(n_ids), **matrices}.items():
        wanted = kind if len(values.shape) > 1 else GGMLQuantizationType.F32
        writer.add_tensor(name, quants.quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _hyperparameters(writer: GGUFWriter, n_ids: int) -> None:
    writer.add_vocab_size(n_ids)
    writer.add_tokenizer_model("no_vocab")
    writer.add_block_count(1)
    writer.add_uint32("mimo2.nextn_predict_layers", 1)
    writer.add_context_length(512)
    writer.add_embedding_length(EMBD)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv([N_KV])
    writer.add_key_length(WIDTH)
    writer.add_value_length(WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_float32("mimo2.rope.freq_base_swa", 10000.0)
    writer.add_sliding_window(512)
    writer.add_array("mimo2.attention.sliding_window_pattern", [1])
    writer.add_expert_feed_forward_length(0)
