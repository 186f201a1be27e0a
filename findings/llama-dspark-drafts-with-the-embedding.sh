#!/usr/bin/env bash
# Seen 2026-11-29 with llama-cpp-python 0.3.36 (ggml 0.25.3) and the convert_hf_to_gguf.py in it.
#
# One would guess: a DSpark checkpoint holds copies of its target's embedding and output matrix
#   (DeepSpec's training freezes both and saves them). Copies may be left out of the GGUF or kept;
#   the drafts are the same.
# True: the converter keeps the copy of the embedding and leaves out that of the output
#   (conversion/qwen.py, DSparkModel). The runtime has two rules for a missing output, and takes
#   the drafter's own embedding before it looks at the target's output (src/models/dflash.cpp).
#   So drafts are scored by the embedding. Where the target's matrices are tied, as in the example
#   of docs/speculative.md, both are the same; where they are not, the drafts are wrong. The same
#   checkpoint saved without either copy drafts rightly, with the target's two matrices. The class
#   for plain DFlash, from which DSpark's is derived, keeps both copies.
# Why it matters: nothing warns, and answers stay right, since every draft is verified. A drafter
#   that is not accepted looks like one that was badly trained. In the converted file look for
#   token_embd.weight without output.weight.
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
# The converter's own requirements name this transformers and this line of numpy.
python3 -m venv converter
converter/bin/python -m pip install -qq torch==2.13.0 transformers==4.57.6 numpy==2.2.6 \
    sentencepiece==0.2.3
converter/bin/python -m pip download -qq --no-deps --no-binary llama-cpp-python \
    llama-cpp-python==0.3.36
tree=llama_cpp_python-0.3.36/vendor/llama.cpp
tar -xzf llama_cpp_python-0.3.36.tar.gz $tree/convert_hf_to_gguf.py $tree/conversion $tree/gguf-py

converter/bin/python - <<'PYTHON'
import json
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

N_VOCAB, WIDTH, HEAD_WIDTH, N_FF, RANK = 320, 64, 16, 96, 16
LAYERS_READ = [0, 1, 2]
COMMON = {
    "model_type": "qwen3",
    "vocab_size": N_VOCAB,
    "hidden_size": WIDTH,
    "num_attention_heads": WIDTH // HEAD_WIDTH,
    "num_key_value_heads": WIDTH // HEAD_WIDTH,
    "head_dim": HEAD_WIDTH,
    "intermediate_size": N_FF,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
# As DeepSpec writes it, also for a target whose matrices are tied.
DRAFTER = {
    "architectures": ["Qwen3DSparkModel"],
    "num_hidden_layers": 2,
    "block_size": 5,
    "mask_token_id": 300,
    "target_layer_ids": LAYERS_READ,
    "markov_rank": RANK,
    "markov_head_type": "vanilla",
    "tie_word_embeddings": False,
}
random = torch.Generator().manual_seed(1)


def matrix(n_out, n_in):
    return torch.randn(n_out, n_in, generator=random) / n_in**0.5


def layers(n_layers, prefix=""):
    tensors = {f"{prefix}norm.weight": torch.ones(WIDTH)}
    for layer in range(n_layers):
        start = f"{prefix}layers.{layer}."
        for part in "qkvo":
            tensors[f"{start}self_attn.{part}_proj.weight"] = matrix(WIDTH, WIDTH)
        for part in "qk":
            tensors[f"{start}self_attn.{part}_norm.weight"] = torch.ones(HEAD_WIDTH)
        for part in ("gate", "up"):
            tensors[f"{start}mlp.{part}_proj.weight"] = matrix(N_FF, WIDTH)
        tensors[f"{start}mlp.down_proj.weight"] = matrix(WIDTH, N_FF)
        for part in ("input", "post_attention"):
            tensors[f"{start}{part}_layernorm.weight"] = torch.ones(WIDTH)
    return tensors


def write(name, config, tensors):
    folder = Path(name)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**COMMON, **config}))
    apart = {key: tensor.clone() for key, tensor in tensors.items()}
    save_file(apart, folder / "model.safetensors")


Path("text").write_text("\n".join(f"{i} times {i} is {i * i}" for i in range(200)))
body, embedding, output = layers(4, "model."), matrix(N_VOCAB, WIDTH), matrix(N_VOCAB, WIDTH)
drafter = layers(2) | {
    "fc.weight": matrix(WIDTH, len(LAYERS_READ) * WIDTH),
    "hidden_norm.weight": torch.ones(WIDTH),
    "markov_head.markov_w1.weight": matrix(N_VOCAB, RANK),
    "markov_head.markov_w2.weight": matrix(N_VOCAB, RANK),
}
for kind, head in (("tied", embedding), ("untied", output)):
    target = {
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": 4,
        "tie_word_embeddings": kind == "tied",
    }
    own = {"lm_head.weight": head} if kind == "untied" else {}
    write(f"{kind}-target", target, body | {"model.embed_tokens.weight": embedding} | own)
    sentencepiece.SentencePieceTrainer.train(
        input="text",
        model_prefix=f"{kind}-target/tokenizer",
        vocab_size=N_VOCAB,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    write(f"{kind}-without", DRAFTER, drafter)
    copies = {"embed_tokens.weight": embedding, "lm_head.weight": head}
    write(f"{kind}-with", DRAFTER, drafter | copies)
PYTHON

convert() { # CHECKPOINT [OPTION...]
    converter/bin/python $tree/convert_hf_to_gguf.py "$@" --outtype f32 --outfile "$1.gguf" \
        2>converter.log || {
        cat converter.log >&2
        exit 1
    }
}
for kind in tied untied; do
    convert $kind-target
    convert $kind-without --target-model-dir $kind-target
    convert $kind-with --target-model-dir $kind-target
done

"$venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import gguf
import llama_cpp as llama
import numpy as np

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"
N_VOCAB = 320
BLOCK = [65, 300, 300, 300, 300]  # a token, and places to fill


def load(path):
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(path.encode(), params)
    assert model, f"{path} does not load"
    return model


def open_context(model, target=None):
    params = llama.llama_context_default_params()
    params.n_ctx = 256
    params.ctx_other = target
    return llama.llama_init_from_model(model, params)


def block_logits(path, target):
    """(len(BLOCK), N_VOCAB) logits of the drafter at `path`, beside the context `target`."""
    context = open_context(load(path), target)
    batch = llama.llama_batch_init(len(BLOCK), 0, 1)
    batch.n_tokens = len(BLOCK)
    for row, token in enumerate(BLOCK):
        batch.token[row], batch.pos[row] = token, row
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
        batch.logits[row] = True
    assert llama.llama_decode(context, batch) == 0
    rows = [llama.llama_get_logits_ith(context, row) for row in range(len(BLOCK))]
    return np.stack([np.ctypeslib.as_array(row, (N_VOCAB,)).copy() for row in rows])


def kept(path):
    """Which of the two matrices are in the file."""
    names = {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    return sorted(names & {"token_embd.weight", "output.weight"})


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
print("llama-cpp-python", PINS["llama-cpp-python"])
print("expected: the same drafts with copies of the target's matrices and without")
print("seen:")
seen = {}
for kind in ("tied", "untied"):
    target = open_context(load(f"{kind}-target.gguf"))
    logits = [block_logits(f"{kind}-{how}.gguf", target) for how in ("without", "with")]
    seen[kind] = float(np.abs(logits[0] - logits[1]).max())
    matrices = kept(f"{kind}-without.gguf"), kept(f"{kind}-with.gguf")
    assert matrices == ([], ["token_embd.weight"])
    print(f"  {kind} target; the copies in the converted file:", *matrices[1])
    print("    drafts without copies:", *logits[0].argmax(axis=1))
    print("    drafts with copies:   ", *logits[1].argmax(axis=1))
    print(f"    logits differ by {seen[kind]:.6f}")

assert seen["tied"] < 1e-4
assert seen["untied"] > 1
PYTHON
