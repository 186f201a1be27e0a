#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: `llama_memory_seq_rm(memory, 0, p, -1)` drops the tokens from position p on,
#   and returns false where it cannot leave the state that was there before them. (For recurrent
#   models it does return false.)
# True: with `swa_full = false`, which saves most of the memory of models with sliding windows,
#   the cells that have left the window are reused. Going back beyond them returns true, the next
#   decode returns 0, and its logits come from layers that see an empty window: plausible and
#   wrong. Nothing in the library's defaults shows it, since `swa_full` is true there; programs
#   that save memory switch it off.
# Why it matters: editing a prompt, regenerating an answer and reusing a common prefix all go back
#   further than a window. The return value is no guard: `llama_memory_seq_pos_min` has to say
#   that the window before p is still there.
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
N_VOCAB, WIDTH, N_FF, WINDOW = 256, 64, 96, 8
N_READ, N_KEPT = 1200, 100


def write_model(path):
    """Gemma 2: a sliding window in its first layer, none in its second."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gemma2")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(4096)
    writer.add_block_count(2)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(WINDOW)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)

    def matrix(name, n_out, n_in):
        values = rng.standard_normal((n_out, n_in)) * 2 / np.sqrt(n_in)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", N_VOCAB, WIDTH)
    norm("output_norm")
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_gate", N_FF, WIDTH)
        matrix(f"blk.{layer}.ffn_up", N_FF, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, N_FF)
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            norm(f"blk.{layer}.{name}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def open_context(model, swa_full):
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = 2048
    params.swa_full = swa_full
    return llama.llama_init_from_model(model, params)


def decode(context, ids, first):
    """The logits of the last of `ids`, the first of which stands at position `first`."""
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for row, token in enumerate(ids):
        batch.token[row], batch.pos[row] = token, first + row
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
        batch.logits[row] = row == len(ids) - 1
    assert llama.llama_decode(context, batch) == 0
    llama.llama_batch_free(batch)
    return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (N_VOCAB,)).copy()


def after_rollback(model, ids, swa_full):
    """(what seq_rm said, difference of the next logits from a context that never went on)."""
    used, fresh = open_context(model, swa_full), open_context(model, swa_full)
    decode(used, ids[:N_READ], 0)
    said = llama.llama_memory_seq_rm(llama.llama_get_memory(used), 0, N_KEPT, -1)
    decode(fresh, ids[:N_KEPT], 0)
    token = ids[N_KEPT : N_KEPT + 1]
    rolled_back, expected = decode(used, token, N_KEPT), decode(fresh, token, N_KEPT)
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
text = np.random.default_rng(0).integers(0, N_VOCAB, N_READ).tolist()

print("llama-cpp-python", PINS["llama-cpp-python"])
print(f"expected: of {N_READ} tokens {N_KEPT} are kept exactly, or seq_rm says false")
print("seen:")
seen = {}
for swa_full in (True, False):
    seen[swa_full] = after_rollback(model, text, swa_full)
    said, difference = seen[swa_full]
    print(f"  swa_full {swa_full}: seq_rm {said}, next logits differ by {difference:.3f}")

assert llama.llama_context_default_params().swa_full
assert seen[True][0] and seen[True][1] < 0.01
assert seen[False][0] and seen[False][1] > 1
PYTHON
