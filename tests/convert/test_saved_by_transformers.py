"""Folders as transformers 5.23 saves them give the same files as those that were published.

The forms are written down here, as `save_pretrained` wrote them from the tiny checkpoints; the
opt-in test at the end has transformers itself write them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.conftest import FAMILIES
from tests.convert.expectation import dequantized

TARGET = Options("target", outtype="f32", pre="qwen2", name="same")
FULL, SLIDING = "full_attention", "sliding_attention"


def plain(family: str) -> Tiny:
    """The target in float32, which is all that transformers loads of it."""
    tiny = FAMILIES[family][0]()
    found = Tiny({k: v for k, v in tiny.config.items() if k != "quantization_config"})
    for name, values in dequantized(tiny).items():
        if not any(part in name for part in ("mtp.", "layers.3.")) or family == "nemotron_h":
            found.put(name, values, "F32")
    found.drop("mtp.")
    return found


def fused(tiny: Tiny, prefix: str, parts: dict[str, tuple[str, ...]]) -> None:
    """One tensor of all experts of a layer, in place of one for each."""
    layers = {n.split(".experts.")[0] for n in tiny.tensors if n.startswith(prefix) and
              ".experts." in n}  # fmt: skip
    for layer in layers:
        experts = range(4)
        found = {
            to: np.stack([
                np.concatenate([tiny.tensors[f"{layer}.experts.{e}.{p}_proj.weight"] for p in of])
                for e in experts
            ])
            for to, of in parts.items()
        }  # fmt: skip
        tiny.drop(layer + ".experts.")
        for to, values in found.items():
            tiny.put(f"{layer}.experts.{to}", values, "F32")


def nemotron_h(own_names: bool) -> Tiny:
    """The list of layers in place of their number and pattern."""
    tiny = plain("nemotron_h")
    words = {"M": "linear_attention", "E": "moe", "*": FULL}
    tiny.config["layers_block_type"] = [
        words[x] for x in tiny.config.pop("hybrid_override_pattern")
    ]
    del tiny.config["num_hidden_layers"]
    if own_names:
        fused(tiny, "backbone.", {"up_proj": ("up",), "down_proj": ("down",)})
    return tiny


def mimo2(own_names: bool) -> Tiny:
    """Words for layers, rope by kind of attention, and a window that counts the row itself."""
    tiny, config = plain("mimo2"), dict[str, Any]()
    for key in ("hybrid_layer_pattern", "moe_layer_freq", "sliding_window_size", "scoring_func",
                "layernorm_epsilon", "topk_method", "rope_theta", "partial_rotary_factor",
                "n_shared_experts"):  # fmt: skip
        config[key] = tiny.config.pop(key)
    for key in [key for key in tiny.config if "swa_" in key or "sink" in key]:
        config[key] = tiny.config.pop(key)
    tiny.config |= {
        "layer_types": [SLIDING if x else FULL for x in config["hybrid_layer_pattern"]],
        "mlp_layer_types": ["sparse" if x else "dense" for x in config["moe_layer_freq"]],
        "sliding_window": config["sliding_window_size"] + 1, "rms_norm_eps": 1e-5,
        "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": config["rope_theta"],
                   "partial_rotary_factor": 0.5},
            SLIDING: {"rope_type": "default", "rope_theta": config["swa_rope_theta"],
                      "partial_rotary_factor": 0.5},
        },
    }  # fmt: skip
    if own_names:
        fused(tiny, "model.layers.", {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)})
        for name in [name for name in tiny.tensors if name.endswith("attention_sink_bias")]:
            values = tiny.tensors[name]
            tiny.drop(name)
            tiny.put(name.replace("attention_sink_bias", "sinks"), values, "F32")
    return tiny


def glm4moelite(own_names: bool) -> Tiny:
    tiny = plain("glm4moelite")
    first = tiny.config.pop("first_k_dense_replace")
    tiny.config["mlp_layer_types"] = ["dense"] * first + ["sparse"] * (3 - first)
    if own_names:
        fused(tiny, "model.layers.", {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)})
    return tiny


FORMS = {"nemotron_h": nemotron_h, "mimo2": mimo2, "glm4moelite": glm4moelite}


def planned(folder: Path) -> Plan:
    return plan_checkpoint(open_checkpoint(folder), TARGET)


def assert_same(found: Plan, wanted: Plan) -> None:
    assert dict(found.metadata) == dict(wanted.metadata)
    assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in wanted.tensors]
    for ours, theirs in zip(found.tensors, wanted.tensors, strict=True):
        assert b"".join(map(bytes, ours.blocks())) == b"".join(map(bytes, theirs.blocks()))


@pytest.mark.parametrize("own_names", [False, True], ids=["published names", "own names"])
@pytest.mark.parametrize("family", FORMS)
def test_the_same_file(
    family: str, own_names: bool, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    saved = write_checkpoint(tmp_path / "saved", FORMS[family](own_names))
    assert_same(planned(saved), planned(checkpoint(family)))


def test_mimos_window_is_the_same_from_either(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Published: 16 rows before, and `sliding_window` 16. Saved: 17, the row itself counted."""
    for folder in (checkpoint("mimo2"), write_checkpoint(tmp_path / "saved", mimo2(False))):
        assert planned(folder).metadata["mimo2.attention.sliding_window"].value == 17


def test_experts_in_front_of_dense_layers_are_refused(tmp_path: Path) -> None:
    tiny = glm4moelite(False)
    tiny.config["mlp_layer_types"] = ["dense", "sparse", "dense"]
    with pytest.raises(MtpError, match="mlp_layer_types: dense layers behind one with experts"):
        planned(write_checkpoint(tmp_path / "x", tiny))


@pytest.mark.parametrize("kinds", [["dense", "other", "sparse"], ["dense"], "sparse"])
def test_a_list_of_layers_that_is_none(kinds: Any, tmp_path: Path) -> None:
    tiny = glm4moelite(False)
    tiny.config["mlp_layer_types"] = kinds
    with pytest.raises(MtpError, match="mlp_layer_types"):
        planned(write_checkpoint(tmp_path / "x", tiny))


# transformers has no class for Step-3.5, and gives MiMo-V2 the published rotary bases whatever the
# folder says; for Step-3.7 and GLM-4.5V it has none without a vision tower.
UNSAVED = ("step35", "step37", "glm4v", "mimo2", "mimo25", "qwen38",
           "deepseek4")  # fmt: skip
SAVED = [name for name in FAMILIES if name not in UNSAVED]


@pytest.mark.oracle
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("own_names", [False, True])
@pytest.mark.parametrize("family", SAVED)
def test_what_transformers_really_saves(family: str, own_names: bool, tmp_path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tiny = FAMILIES[family][0]()
    whole = Tiny({k: v for k, v in tiny.config.items() if k != "quantization_config"})
    whole.byte_fallback = tiny.byte_fallback
    for name, values in dequantized(tiny).items():
        whole.put(name, values, "F32")
    first, second = write_checkpoint(tmp_path / "a", whole), tmp_path / "b"
    model = transformers.AutoModelForCausalLM.from_pretrained(first, dtype=torch.float32)
    model.save_pretrained(second, save_original_format=not own_names)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (second / name).write_bytes((first / name).read_bytes())
    (second / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((second / "config.json").read_text())
    config |= {f"{role}_token_id": None for role in ("bos", "eos", "pad")}  # transformers' defaults
    (second / "config.json").write_text(json.dumps(config))
    found, wanted = planned(second), planned(first)
    assert {t.name for t in found.tensors} == {t.name for t in wanted.tensors}
    theirs = {tensor.name: tensor for tensor in wanted.tensors}
    for tensor in found.tensors:
        assert b"".join(map(bytes, tensor.blocks())) == b"".join(
            map(bytes, theirs[tensor.name].blocks())
        )
    ours = {key: pair.value for key, pair in found.metadata.items()}
    for key, pair in wanted.metadata.items():
        np.testing.assert_equal(ours.get(key), pair.value, err_msg=key)
