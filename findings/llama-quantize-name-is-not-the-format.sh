#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: a file that llama.cpp quantized to "Q2_K" consists of Q2_K, give or take the
#   output matrix, and is far smaller than one in "Q4_0"; "MXFP4_MOE" is in MXFP4.
# True: a format with blocks of 256 needs rows of a multiple of 256 values. Models of width 576 or
#   896 (the smallest of several families) have few such matrices, and each of the others silently
#   falls back to a wider format: "Q2_K" then holds no Q2_K at all and saves next to nothing
#   against "Q4_0", the ternary "TQ1_0" (1.7 bits) is mostly 4-bit, and "Q4_K_M" mostly Q5_0.
#   "MXFP4_MOE" of a model without experts holds nothing but Q8_0, whatever its width.
#   Quantizing succeeds, and the file's `general.file_type` keeps the name that was asked for.
# Why it matters: kernels, speeds, sizes and quality are filed under names that say nothing about
#   what is computed. Read the tensors' types, not the file's.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
venv=${FINDINGS_VENV:-}
if [ -z "$venv" ]; then
    venv=$scratch/venv
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -qq llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.6
fi
cd "$scratch"
"$venv/bin/python" - <<'PYTHON'
import ctypes
import os
from collections import Counter
from importlib.metadata import version

import gguf
import llama_cpp as llama
import numpy as np

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"


def write_model(path, width, n_ff):
    """Two dense layers; the widths of the smallest SmolLM2 (576) or of any multiple of 256."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(1024)
    writer.add_context_length(64)
    writer.add_block_count(2)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(width // 64)
    writer.add_layer_norm_rms_eps(1e-5)

    def matrix(name, n_out, n_in):
        writer.add_tensor(f"{name}.weight", rng.standard_normal((n_out, n_in)).astype(np.float32))

    matrix("token_embd", 1024, width)
    matrix("output", 1024, width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", width, width)
        matrix(f"blk.{layer}.ffn_gate", n_ff, width)
        matrix(f"blk.{layer}.ffn_up", n_ff, width)
        matrix(f"blk.{layer}.ffn_down", width, n_ff)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantized(name):
    """What llama.cpp makes of model.gguf: (matrices by type, bytes)."""
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{name}")
    failed = llama.llama_model_quantize(b"model.gguf", b"quantized.gguf", ctypes.byref(params))
    assert not failed, f"{name} was refused"
    reader = gguf.GGUFReader("quantized.gguf")
    assert reader.fields["general.file_type"].contents() == params.ftype
    types = Counter(t.tensor_type.name for t in reader.tensors if t.tensor_type.name != "F32")
    return types, os.path.getsize("quantized.gguf")


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
print("llama-cpp-python", PINS["llama-cpp-python"])
print("expected: most of the 16 matrices have the type that the file is named after")
print("seen:")
types, n_bytes = {}, {}
for width, n_ff in ((576, 1536), (1024, 2048)):
    write_model("model.gguf", width, n_ff)
    for name in ("Q4_0", "Q4_K_M", "Q2_K", "TQ1_0", "MXFP4_MOE"):
        types[width, name], n_bytes[width, name] = quantized(name)
        print(f'  width {width}, "{name}":', dict(types[width, name]))
smaller = {width: n_bytes[width, "Q2_K"] / n_bytes[width, "Q4_0"] for width in (576, 1024)}
print(f'  size of "Q2_K" over "Q4_0": {smaller[576]:.2f} at width 576, {smaller[1024]:.2f} at 1024')

assert types[1024, "Q2_K"]["Q2_K"] > 8 and smaller[1024] < 0.8
assert types[576, "Q2_K"]["Q2_K"] == 0 and smaller[576] > 0.95
assert types[1024, "Q4_K_M"]["Q4_K"] > 8 and types[576, "Q4_K_M"]["Q4_K"] <= 2
assert types[576, "Q4_K_M"]["Q5_0"] > 8
assert types[1024, "TQ1_0"]["TQ1_0"] > 8 and types[576, "TQ1_0"]["Q4_0"] > 8
assert all(set(types[width, "MXFP4_MOE"]) == {"Q8_0"} for width in (576, 1024))
PYTHON
