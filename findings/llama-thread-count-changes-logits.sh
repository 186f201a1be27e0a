#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0, CPU.
#
# One would guess: the number of threads decides how fast a token is decoded, not what comes out.
#   Matrix products share out whole output rows, so every sum is made by one thread, in one order.
# True: exactly so for the first 256 tokens of a context, and no longer from the 257th on. With
#   512 cells in view ggml's flash attention gives each thread a share of the *keys* of a single
#   row and adds the shares up at the end, so the order of the sums depends on the threads.
#   Batches of two rows and more take another path. Flash attention is on unless it is switched
#   off ("auto").
# Why it matters: a test for identical bits that uses a short prompt passes and proves nothing; a
#   greedy answer can differ between two machines that differ only in their number of cores; and a
#   row decoded alone (plain decoding) is not the same row as in a batch (verifying a draft), even
#   in number formats whose matrix products are exact. Switching flash attention off makes the
#   threads irrelevant again.
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
from importlib.metadata import version

import gguf
import llama_cpp as llama
import numpy as np

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"
N_VOCAB, WIDTH, N_LAYERS = 512, 256, 2


def write_model(path):
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(4096)
    writer.add_block_count(N_LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)

    def matrix(name, n_out, n_in):
        values = rng.standard_normal((n_out, n_in)) * 2 / np.sqrt(n_in)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", N_VOCAB, WIDTH)
    matrix("output", N_VOCAB, WIDTH)
    norm("output_norm")
    for layer in range(N_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_gate", 2 * WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_up", 2 * WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, 2 * WIDTH)
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def decode(context, ids):
    """The logits of the last of `ids`, which follow what the context holds."""
    tokens = (llama.llama_token * len(ids))(*ids)
    assert llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))) == 0
    return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (N_VOCAB,)).copy()


def next_logits(model, ids, n_threads, flash, n_rows):
    """The text is always read by one thread: only the last batch's threads differ."""
    params = llama.llama_context_default_params()
    params.n_ctx = 4096
    params.n_threads = params.n_threads_batch = 1
    params.offload_kqv = False
    if flash is not None:
        params.flash_attn_type = flash
    context = llama.llama_init_from_model(model, params)
    decode(context, ids[:-n_rows])
    llama.llama_set_n_threads(context, n_threads, n_threads)
    logits = decode(context, ids[-n_rows:])
    llama.llama_free(context)
    return logits


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
write_model("model.gguf")
params = llama.llama_model_default_params()
params.n_gpu_layers = 0
model = llama.llama_model_load_from_file(b"model.gguf", params)
assert model, "the model does not load"
text = np.random.default_rng(0).integers(0, N_VOCAB, 1500).tolist()

print("llama-cpp-python", PINS["llama-cpp-python"])
print("expected: one, two, three and four threads give the same logits at any length")
print("seen: greatest difference from one thread's logits")
spread = {}
CASES = {"default": (None, 1), "default, two rows": (None, 2), "no flash attention": (0, 1)}
for name, case in CASES.items():
    for n_tokens in (100, 256, 257, 300, 1500):
        rows = [next_logits(model, text[:n_tokens], n, *case) for n in (1, 2, 3, 4)]
        differences = [float(np.abs(row - rows[0]).max()) for row in rows[1:]]
        spread[name, n_tokens] = max(differences)
        print(f"  {name}, token {n_tokens}: " + ", ".join(f"{d:.4f}" for d in differences))

assert all(spread["default", n] == 0 for n in (100, 256)), "differs below 257 tokens too"
assert all(spread["default", n] > 0 for n in (257, 300, 1500)), "the same from 257 tokens on"
others = {case: value for case, value in spread.items() if case[0] != "default"}
assert not any(others.values()), "differs in a batch of two rows or without flash attention"
PYTHON
