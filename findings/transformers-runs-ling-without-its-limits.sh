#!/usr/bin/env bash
# Seen 2026-11-29 with transformers 5.24.0, torch 2.13.0.
#
# One would guess: the class that transformers has for a model is the reference. A key of
#   config.json that changes every logit is either followed or refused.
# True: Ling-3.0 was trained with limits on the activations of its last layers, and its config.json
#   says them: `expert_swiglu_limit_list`, `share_expert_swiglu_limit_list` (at most that much of
#   silu(gate), and of the other factor that much in both directions). transformers loads the keys,
#   saves them again and computes without them: models/bailing_hybrid does not have the word. In the
#   same release the class of Step-3.7 follows the same limits under other names (`swiglu_limits`).
#   llama.cpp's converter writes Ling's, and its graph follows them (src/llama-graph.cpp).
# Why it matters: the usual proof of a conversion, logits equal to the reference's, fails for the
#   one that is right and passes for one that drops the limits. It passes for the right one as well
#   while no activation of the test is beyond a limit, as with weights of a usual initialization.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cd "$scratch"
TRANSFORMERS_VERBOSITY=critical "$scratch/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import torch
import transformers

N_LAYERS, LIMIT = 4, 0.5
# The published keys, with smaller numbers.
CONFIG = {
    "architectures": ["BailingMoeV3ForCausalLM"],
    "model_type": "bailing_hybrid",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "layer_group_size": 2,
    "short_conv_kernel_size": 4,
    "no_kda_lora": True,
    "kda_safe_gate": True,
    "kda_lower_bound": -5.0,
    "gated_attention_proj_granularity_type": "head_wise",
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "first_k_dense_replace": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "score_function": "sigmoid",
    "num_nextn_predict_layers": 0,
    "pad_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,
}
LIMITS = [0.0, 0.0, 0.0, LIMIT]
NAMES = ("expert_swiglu_limit_list", "share_expert_swiglu_limit_list")


def model_of(name, config):
    """The model that transformers makes of this config.json; the weights are always the same."""
    folder = Path(name)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    loaded = transformers.AutoConfig.from_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_config(loaded).float().eval()


def logits_of(model):
    with torch.no_grad():
        return model(torch.arange(16).reshape(1, -1), use_cache=False).logits


def limit_shared_expert(model, beyond):
    """Follows the limit in the last layer's shared expert; `beyond` gets the shares cut off."""

    def limited(low, high):
        def hook(module, inputs, output):
            beyond.append(float(((output < low) | (output > high)).float().mean()))
            return output.clamp(low, high)

        return hook

    expert = model.model.layers[-1].mlp.shared_experts
    expert.act_fn.register_forward_hook(limited(float("-inf"), LIMIT))
    expert.up_proj.register_forward_hook(limited(-LIMIT, LIMIT))


def difference(logits, others):
    return float((logits - others).abs().max())


without = model_of("without", CONFIG)
stated = model_of("stated", {**CONFIG, **dict.fromkeys(NAMES, LIMITS)})
stated.config.save_pretrained("saved")
saved = json.loads(Path("saved/config.json").read_text())
beyond = []
logits = logits_of(stated)
ignored = difference(logits, logits_of(without))
limit_shared_expert(stated, beyond)
followed = difference(logits_of(stated), logits)

print("transformers", transformers.__version__, "torch", torch.__version__)
print("expected: limits that the config states change the logits, or are refused")
print("seen:")
print("  class:", type(stated).__name__)
print("  limits in the config that it saves:", *(saved.get(name) for name in NAMES))
print(f"  logits with and without them in config.json differ by {ignored}")
print(f"  beyond the limit in the shared expert: {beyond[0]:.0%} of silu(gate), ", end="")
print(f"{beyond[1]:.0%} of the other factor")
print(f"  followed in this one place, the limit moves a logit by {followed:.2f}")

assert type(stated).__module__.endswith("bailing_hybrid.modeling_bailing_hybrid")
assert all(saved[name] == LIMITS for name in NAMES)
assert ignored == 0.0
assert followed > 0.1
PYTHON
