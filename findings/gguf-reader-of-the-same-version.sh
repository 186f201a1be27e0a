#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: the `gguf` package of the version that a llama.cpp tree names reads what this
#   llama.cpp writes; and a reader that does not know a tensor's type still shows the metadata.
# True: neither. The tree inside llama-cpp-python 0.3.36 calls its gguf-py 0.19.0 and knows type
#   42 (Q2_0); the 0.19.0 on the package index does not. llama.cpp quantizes to Q2_0, loads the
#   file and decodes with it; `GGUFReader` raises ValueError while it is being constructed, so not
#   even the architecture or the tokenizer can be read.
# Why it matters: a version pin does not pin the format. Tools that only want a key of the file
#   (choosing a template, listing models) fail on every new number format; they need a reader of
#   their own that takes a type as a number and does not look at it.
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
from importlib.metadata import version

import gguf
import llama_cpp as llama
import numpy as np

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"
N_VOCAB, WIDTH = 512, 256


def write_model(path):
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in names}
    shapes |= {"token_embd.weight": (N_VOCAB, WIDTH), "output.weight": (N_VOCAB, WIDTH)}
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def decodes(path):
    """Whether llama.cpp loads the file and finds finite logits with it."""
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(path, params)
    assert model, "the model does not load"
    context = llama.llama_init_from_model(model, llama.llama_context_default_params())
    tokens = (llama.llama_token * 3)(1, 2, 3)
    failed = llama.llama_decode(context, llama.llama_batch_get_one(tokens, 3))
    logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (N_VOCAB,))
    return not failed and bool(np.isfinite(logits).all())


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
write_model("model.gguf")
params = llama.llama_model_quantize_default_params()
params.ftype = llama.LLAMA_FTYPE_MOSTLY_Q2_0
failed = llama.llama_model_quantize(b"model.gguf", b"q2_0.gguf", ctypes.byref(params))
assert not failed, "Q2_0 was refused"
try:
    read = gguf.GGUFReader("q2_0.gguf").fields["general.architecture"].contents()
except ValueError as error:
    read = f"ValueError: {error}"

print("llama-cpp-python", PINS["llama-cpp-python"], "and gguf", PINS["gguf"])
print("expected: both read the file, and gguf shows its architecture")
print("seen:")
print("  llama.cpp decodes with it:", decodes(b"q2_0.gguf"))
print("  GGUFReader:", read)

assert decodes(b"q2_0.gguf")
assert read.startswith("ValueError: ") and "42" in read
PYTHON
