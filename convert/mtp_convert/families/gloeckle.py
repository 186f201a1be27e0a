"""Meta's multi-token prediction models: a Llama with independent heads beside its last layer.

After Gloeckle et al. 2024 (arXiv:2404.19737) and the model code published with the weights
(facebook/multi-token-prediction, llama/model.py). The target is `layers` without its last; each
head is one layer that reads the target's row z and attends over those rows with keys and values of
its own: `layers[-1]` predicts the next token, `extra_heads.k` predicts x_{p+2+k} at position p;
then come the norm and the output they all share.

So `layers`, norm and output are a whole Llama, and run as llama.cpp's `llama`. Meta's weights pair
neighbouring values in rotary embeddings, as llama.cpp does; Hugging Face's halves are what needs a
permutation (`llama.py`), these need none. An extra head is a Llama of one layer too, fed with rows
in place of embeddings. llama.cpp has no place for it in a model's file, so the heads have a file
of their own, and what they read is the input of the target's last layer. No head reads a token, so
the output matrix stands where llama.cpp wants an embedding, and serves as the output.
"""

from __future__ import annotations

from typing import Any

from mtp_convert.checkpoint.meta import CLASS
from mtp_convert.families.common import common_dims, common_metadata, head_dim
from mtp_convert.families.rules import Config, Family, Heads, Rule

_A, _F = "{L}.attention.", "{L}.feed_forward."

_LAYER = (
    Rule("blk.{i}.attn_norm.weight", "{L}.attention_norm.weight", "embd"),
    Rule("blk.{i}.attn_q.weight", _A + "wq.weight", "q,embd"),
    Rule("blk.{i}.attn_k.weight", _A + "wk.weight", "k,embd"),
    Rule("blk.{i}.attn_v.weight", _A + "wv.weight", "v,embd"),
    Rule("blk.{i}.attn_output.weight", _A + "wo.weight", "embd,o"),
    Rule("blk.{i}.ffn_norm.weight", "{L}.ffn_norm.weight", "embd"),
    Rule("blk.{i}.ffn_gate.weight", _F + "w1.weight", "ff,embd"),
    Rule("blk.{i}.ffn_up.weight", _F + "w3.weight", "ff,embd"),
    Rule("blk.{i}.ffn_down.weight", _F + "w2.weight", "embd,ff"),
)

_NORM = Rule("output_norm.weight", "norm.weight", "embd")


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    """n_heads: 1 for a head, which is a model of one layer; 0 for the target."""
    return {
        **common_metadata(config, 0),
        "{arch}.block_count": n_heads or config.count("num_hidden_layers"),
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.rope.dimension_count": head_dim(config),
    }


def _plain_rope(config: Config) -> str | None:
    if config.find("use_scaled_rope"):
        return "scaled rotary embeddings (Llama 3.1); this family has plain ones"
    return None


GLOECKLE = Family(
    name="Meta's multi-token prediction",
    classes=(CLASS,),
    arch="llama",
    rules=(
        Rule("token_embd.weight", "tok_embeddings.weight", "vocab,embd"),
        _NORM,
        Rule("output.weight", "output.weight", "vocab,embd"),
    ),
    layer_rules=_LAYER,
    layer_prefix="layers.{i}",
    metadata=_metadata,
    dims=common_dims,
    heads=Heads(
        kind="independent",
        prefix="extra_heads.{h}",
        count=("num_extra_heads",),
        rules=(Rule("token_embd.weight", "output.weight", "vocab,embd"), _NORM),
        single=False,
    ),
    ignored=("rope.freqs",),
    accepts=_plain_rope,
)

FAMILIES = (GLOECKLE,)
