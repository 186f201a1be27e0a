#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: a context with `n_rs_seq = 8` keeps eight snapshots of a recurrent state, so
#   `llama_memory_seq_rm` can drop up to eight tokens, and says false beyond that.
# True: the snapshots are those of the *last batch* only: the states after each of its rows, and
#   not the one before it. Dropping fewer rows than the batch had is exact. Dropping all of them,
#   or more, returns true as long as it is no more than eight, and leaves a state that belongs to
#   no prefix. After ordinary generation (one token a decode) dropping that one token is already
#   wrong.
# Why it matters: a speculative decoder always keeps the first row of its batch, so it never
#   notices; "forget the last token and sample again" and a stop string that is cut off break the
#   text without an error. Seen with LFM2; Qwen3.5 does the same.
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
N_VOCAB, WIDTH, N_FF, N_SNAPSHOTS, N_PROMPT = 256, 64, 96, 8, 20


def write_model(path):
    """LFM2: a short convolution in its first layer, attention in its second."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "lfm2")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(512)
    writer.add_block_count(2)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(4)
    writer.add_head_count_kv([0, 4])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_uint32("lfm2.shortconv.l_cache", 4)

    def matrix(name, n_out, n_in):
        values = rng.standard_normal((n_out, n_in)) * 2 / np.sqrt(n_in)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(name, n=WIDTH):
        writer.add_tensor(f"{name}.weight", np.ones(n, np.float32))

    matrix("token_embd", N_VOCAB, WIDTH)
    norm("token_embd_norm")
    for layer in range(2):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        matrix(f"blk.{layer}.ffn_gate", N_FF, WIDTH)
        matrix(f"blk.{layer}.ffn_up", N_FF, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, N_FF)
    matrix("blk.0.shortconv.in_proj", 3 * WIDTH, WIDTH)
    matrix("blk.0.shortconv.conv", WIDTH, 4)
    matrix("blk.0.shortconv.out_proj", WIDTH, WIDTH)
    for name in ("q", "k", "v", "output"):
        matrix(f"blk.1.attn_{name}", WIDTH, WIDTH)
    norm("blk.1.attn_q_norm", 16)
    norm("blk.1.attn_k_norm", 16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def open_context(model):
    params = llama.llama_context_default_params()
    params.n_ctx = 512
    params.n_rs_seq = N_SNAPSHOTS
    return llama.llama_init_from_model(model, params)


def decode(context, ids):
    """The logits of the last of `ids`, which follow what the context holds."""
    tokens = (llama.llama_token * len(ids))(*ids)
    assert llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))) == 0
    return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (N_VOCAB,)).copy()


def after_rollback(model, ids, n_rows, n_dropped):
    """(what seq_rm said, difference of the next logits from a context that never went on)."""
    used, fresh = open_context(model), open_context(model)
    n_kept = N_PROMPT + n_rows - n_dropped
    decode(used, ids[:N_PROMPT])
    decode(used, ids[N_PROMPT : N_PROMPT + n_rows])
    said = llama.llama_memory_seq_rm(llama.llama_get_memory(used), 0, n_kept, -1)
    decode(fresh, ids[:n_kept])
    rolled_back, expected = decode(used, ids[-1:]), decode(fresh, ids[-1:])
    llama.llama_free(used)
    llama.llama_free(fresh)
    return bool(said), float(np.abs(rolled_back - expected).max())


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
write_model("model.gguf")
params = llama.llama_model_default_params()
params.n_gpu_layers = 0
model = llama.llama_model_load_from_file(b"model.gguf", params)
assert model, "the model does not load"
text = np.random.default_rng(0).integers(0, N_VOCAB, 64).tolist()

print("llama-cpp-python", PINS["llama-cpp-python"])
print(f"expected: with n_rs_seq = {N_SNAPSHOTS}, dropping one to four tokens is exact")
print("seen:")
seen = {}
for n_rows in (1, 3):
    for n_dropped in range(1, n_rows + 2):
        seen[n_rows, n_dropped] = after_rollback(model, text, n_rows, n_dropped)
        said, difference = seen[n_rows, n_dropped]
        print(f"  last batch of {n_rows}, {n_dropped} dropped: seq_rm {said}, ", end="")
        print(f"next logits differ by {difference:.3f}")

assert all(said for said, _ in seen.values())
for (n_rows, n_dropped), (_, difference) in seen.items():
    assert difference < 1e-3 if n_dropped < n_rows else difference > 1
PYTHON
