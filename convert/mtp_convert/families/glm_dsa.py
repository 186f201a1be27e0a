"""GLM-5 and 5.2: DeepSeek-V3.2's layers, where a layer may reuse the keys another has chosen.

Layers of the kind "full" choose keys with a scorer of their own, "shared" ones take what the last
full layer chose. The head attends to all keys; a scorer that comes with it is carried along.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.families.common import union
from mtp_convert.families.deepseek import DEEPSEEK_V32, GLM4_MOE_LITE, INDEXER, LAYER
from mtp_convert.families.glm4_moe import SIGMOID
from mtp_convert.families.rope import DEFAULT
from mtp_convert.families.rules import Config

_FULL, _SHARED = "full", "shared"
_LETTERS = {"F": _FULL, "S": _SHARED}


def _indexers(config: Config) -> list[str]:
    """Full or shared, for each of the target's layers; older keys as transformers reads them."""
    n_layers = config.count("num_hidden_layers")
    if config.find("indexer_types") is not None:
        kinds = config.per_layer("indexer_types", n_layers)
    elif config.find("index_topk_pattern") is not None:
        pattern = config.find("index_topk_pattern")
        kinds = [_LETTERS.get(str(letter), letter) for letter in pattern][:n_layers]
    else:
        every = max(config.count("index_topk_freq", default=1), 1)
        offset = config.count("index_skip_topk_offset", default=2)
        kinds = [
            _SHARED if max(i - offset + 1, 0) % every else _FULL for i in range(n_layers)
        ]  # fmt: skip
    if len(kinds) < n_layers or not set(kinds) <= {_FULL, _SHARED}:
        raise MtpError(f"{config.where}: indexer_types: expected full or shared for each layer")
    return kinds


def _kinds(config: Config, i: int) -> frozenset[str]:
    kinds = _indexers(config)
    scorer = f"{kinds[i]}_indexer" if i < len(kinds) else "head_indexer"
    return DEEPSEEK_V32.kinds(config, i) | {scorer}


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    return {
        **DEEPSEEK_V32.metadata(config, n_heads),
        "{arch}.expert_gating_func": SIGMOID,
        "{arch}.attention.indexer.types": [kind == _FULL for kind in _indexers(config)],
    }


GLM_DSA = replace(
    DEEPSEEK_V32,
    name="GLM-5",
    classes=("GlmMoeDsaForCausalLM",),
    arch="glm-dsa",
    layer_rules=union(
        LAYER,
        [replace(rule, when="full_indexer") for rule in INDEXER],
        [replace(rule, when="head_indexer", maybe=True) for rule in INDEXER],
    ),
    metadata=_metadata,
    kinds=_kinds,
    ropes=frozenset({DEFAULT}),
    accepts=lambda config: None,
    pre_tokenizer=GLM4_MOE_LITE.pre_tokenizer,
    special_tokens=GLM4_MOE_LITE.special_tokens,
)

FAMILIES = (GLM_DSA,)
