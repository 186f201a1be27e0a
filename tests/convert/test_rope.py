"""Scaled rotary embeddings arrive, or the conversion is refused; none is dropped.

What the keys make llama.cpp compute is compared with transformers in the opt-in group at the end.
"""

from __future__ import annotations

import math
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

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 4.0}
DYNAMIC = {"type": "dynamic", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
_RANDOM = np.random.default_rng(0)
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 8,
            "long_factor": [1 + 4 * x for x in _RANDOM.random(8)],
            "short_factor": [1 + x for x in _RANDOM.random(8)]}  # fmt: skip
MROPE = {"mrope_section": [2, 1, 1], "mrope_interleaved": True, "partial_rotary_factor": 0.5}
ONES = {"mscale": 1.0, "mscale_all_dim": 1.0}


def tiny_with(family: str, scaling: Any, key: str = "rope_scaling") -> Tiny:
    tiny = FAMILIES[family][0]()
    tiny.config.pop("rope_scaling", None)
    for config in (tiny.config, tiny.config.get("text_config", {})):
        if "rope_parameters" in config and isinstance(scaling, dict):
            config["rope_parameters"] = {**config["rope_parameters"], **scaling}
            return tiny
    tiny.config[key] = scaling
    return tiny


def planned(tmp_path: Path, tiny: Tiny) -> Plan:
    folder = write_checkpoint(tmp_path / "x", tiny)
    return plan_checkpoint(open_checkpoint(folder), Options(outtype="f32", pre="qwen2"))


def said(plan: Plan) -> dict[str, Any]:
    """The keys of scaling, without the architecture."""
    keys = (key.partition(".rope.scaling.")[::2] for key in plan.metadata)
    return {name: plan.metadata[f"{arch}.rope.scaling.{name}"].value for arch, name in keys if name}


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "glm4moe", "qwen35", "qwen3next"])
def test_linear(family: str, key: str, tmp_path: Path) -> None:
    found = said(planned(tmp_path, tiny_with(family, LINEAR, key)))
    assert found == {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize("family", ["mistral", "qwen3", "glm4moe", "qwen35", "qwen3next"])
def test_yarn(family: str, tmp_path: Path) -> None:
    more = {"beta_fast": 16, "beta_slow": 2}
    found = said(planned(tmp_path, tiny_with(family, YARN | more)))
    assert found == {
        "type": "yarn", "factor": 8.0, "original_context_length": 16, "yarn_beta_fast": 16.0,
        "yarn_beta_slow": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"attention_factor": 1.5}, 1.5),
        ({"mscale": 1.0, "mscale_all_dim": 0.5},
         (0.1 * math.log(8) + 1) / (0.05 * math.log(8) + 1)),
        ({"mscale": 0.7, "mscale_all_dim": 0.7}, 1.0),
    ],
)  # fmt: skip
def test_yarn_whose_attention_is_scaled_otherwise(
    more: dict[str, float], wanted: float, tmp_path: Path
) -> None:
    """llama.cpp multiplies by 0.1 ln(factor) + 1 and by this key."""
    found = said(planned(tmp_path, tiny_with("qwen3", YARN | more)))
    assert found["attn_factor"] == pytest.approx(wanted / (0.1 * math.log(8) + 1), rel=1e-6)


def test_llama3(tmp_path: Path) -> None:
    plan = planned(tmp_path, tiny_with("llama", LLAMA3))
    assert said(plan) == {}
    assert "rope_freqs.weight" in [tensor.name for tensor in plan.tensors]


def test_longrope(tmp_path: Path) -> None:
    plan = planned(tmp_path, tiny_with("mistral", LONGROPE))
    found, factor = said(plan), 512 / 8
    assert found.pop("attn_factor") == pytest.approx(
        math.sqrt(1 + math.log(factor) / math.log(8)), rel=1e-6
    )
    assert found == {"type": "longrope", "original_context_length": 8}
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    for name in ("long", "short"):
        raw = b"".join(map(bytes, tensors[f"rope_factors_{name}.weight"].blocks()))
        np.testing.assert_array_equal(
            np.frombuffer(raw, "<f4"), np.array(LONGROPE[f"{name}_factor"], np.float32)
        )


PLAIN = {"rope_type": "default", "rope_theta": 500.0}


def tiny_with_both(newer: dict[str, Any], older: dict[str, Any], theta: float | None) -> Tiny:
    """As in a folder that transformers 5 saved, to which someone added the older key."""
    tiny = FAMILIES["qwen3"][0]()
    tiny.config |= {"rope_parameters": newer, "rope_scaling": older}
    del tiny.config["rope_theta"]
    tiny.config |= {} if theta is None else {"rope_theta": theta}
    return tiny


@pytest.mark.parametrize(
    ("newer", "older", "kind", "theta"),
    [
        (PLAIN, {"type": "yarn", "factor": 8.0}, "yarn", 7000.0),
        (PLAIN, LINEAR, "linear", 7000.0),
        (YARN | PLAIN, {"type": "default"}, None, 7000.0),
        (LINEAR | PLAIN, {"factor": 3.0}, None, 7000.0),
        (PLAIN | LINEAR, {}, "linear", 500.0),
    ],
)
def test_of_two_names_the_older_holds_alone(
    newer: dict[str, Any], older: dict[str, Any], kind: str | None, theta: float, tmp_path: Path
) -> None:
    """transformers takes nothing of rope_parameters where rope_scaling says anything."""
    plan = planned(tmp_path, tiny_with_both(newer, older, 7000.0))
    assert said(plan).get("type") == kind
    assert plan.metadata["qwen3.rope.freq_base"].value == theta
    assert any("rope_parameters: left out" in note for note in plan.notes) is bool(older)


def test_a_base_that_is_left_out_is_the_usual_one(tmp_path: Path) -> None:
    """10,000, which llama.cpp takes where the key is missing."""
    plan = planned(tmp_path, tiny_with_both(PLAIN, {"type": "yarn", "factor": 8.0}, None))
    assert "qwen3.rope.freq_base" not in plan.metadata


def test_the_same_under_both_names_is_no_matter(tmp_path: Path) -> None:
    plan = planned(tmp_path, tiny_with_both(LINEAR, LINEAR, 7000.0))
    assert said(plan) == {"type": "linear", "factor": 4.0}
    assert not any("rope_parameters" in note for note in plan.notes)


@pytest.mark.parametrize("scaling", [None, {}, {"rope_type": "default"}, {"rope_type": None}])
def test_none_at_all(scaling: Any, tmp_path: Path) -> None:
    assert said(planned(tmp_path, tiny_with("mistral", scaling))) == {}


REFUSED = [
    ("mistral", DYNAMIC, "rope scaling: dynamic .*it begins beyond 512 tokens"),
    ("qwen3", DYNAMIC, "dynamic"),
    ("mistral", {"rope_type": "xpos", "factor": 2.0}, "xpos"),
    ("mistral", "linear", "rope_scaling: expected an object"),
    ("mistral", {"rope_type": "linear"}, "linear: factor is missing"),
    ("mistral", {"rope_type": "yarn"}, "yarn: factor is missing"),
    ("mistral", YARN | {"truncate": False}, "truncate"),
    ("mistral", LONGROPE | {"long_factor": [1.0]}, r"long_factor: expected 8 factors"),
    ("mistral", {"rope_type": "longrope", "long_factor": [1.0] * 8}, "short_factor is missing"),
    ("mistral", MROPE, "mrope_section"),
    ("qwen2", {"type": "mrope"}, "mrope"),
    ("qwen3", LLAMA3, "llama3"),
    ("qwen3", LONGROPE, "longrope"),
    ("qwen35", LLAMA3, "llama3"),
    ("glm4moe", {"type": "su"}, "longrope"),
    ("mimo2", YARN, "yarn"),
    ("mimo2", LINEAR, "linear"),
    ("step35", YARN, "yarn"),
    ("step35", LLAMA3, r"llama3 \(sliding_attention\)"),
    ("deepseek3", LINEAR, "linear"),
    ("deepseek3", YARN, "yarn without mscale and mscale_all_dim that are equal"),
    ("deepseek3", YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}, "yarn without mscale"),
    ("deepseek3", YARN | ONES | {"attention_factor": 1.5}, "yarn without mscale"),
    ("deepseek32", YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}, "of one"),
    ("glm4moelite", YARN, "yarn without mscale"),
]


@pytest.mark.parametrize(("family", "scaling", "message"), REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused(
    family: str, scaling: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MtpError, match=message):
        planned(tmp_path, tiny_with(family, scaling))


@pytest.mark.parametrize(
    ("scope", "kind"), [("sliding_attention", "linear"), ("full_attention", "yarn")]
)
def test_gemma_4s_scopes(scope: str, kind: str, tmp_path: Path) -> None:
    tiny = FAMILIES["gemma4"][0]()
    config = tiny.config.get("text_config", tiny.config)
    config["rope_parameters"][scope] |= {"rope_type": kind, "factor": 2.0}
    with pytest.raises(MtpError, match=rf"rope scaling: {kind} \({scope}\)"):
        planned(tmp_path, tiny)


def test_step_35s_scaling_of_full_attention_alone(tmp_path: Path) -> None:
    tiny = tiny_with("step35", LLAMA3)
    tiny.config["yarn_only_types"] = ["full_attention"]
    assert "rope_freqs.weight" in [tensor.name for tensor in planned(tmp_path, tiny).tensors]


def test_a_family_without_positions_takes_any(tmp_path: Path) -> None:
    planned(tmp_path, tiny_with("nemotron_h", {"rope_type": "default"}))


COMPUTED: list[tuple[str, dict[str, Any]]] = [
    ("mistral", LINEAR), ("mistral", YARN), ("mistral", YARN | {"attention_factor": 1.5}),
    ("mistral", YARN | {"beta_fast": 16, "beta_slow": 2}),
    ("mistral", YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}), ("mistral", YARN | ONES),
    ("mistral", LONGROPE), ("mistral", LONGROPE | {"factor": 4.0}),
    ("mistral", LONGROPE | {"attention_factor": 1.7}), ("llama", LLAMA3), ("qwen2", LINEAR),
    ("qwen3", YARN), ("glm4moe", YARN), ("glm4moe", LINEAR), ("qwen3next", YARN),
    ("qwen3next", LINEAR), ("qwen35", YARN | MROPE), ("qwen35", LINEAR | MROPE),
    ("deepseek3", YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}), ("glm4moelite", YARN | ONES),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("family", "scaling"), COMPUTED)
def test_the_same_logits_as_transformers(
    family: str, scaling: dict[str, Any], tmp_path: Path
) -> None:
    from tests.convert.test_oracle import compare_logits, without_fp8

    compare: Callable[..., None] = compare_logits
    tiny = without_fp8(tiny_with(family, scaling))
    compare(tiny, tmp_path, nextn=bool(FAMILIES[family][2]))


@pytest.mark.oracle
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("theta", [7000.0, None])
@pytest.mark.parametrize(
    ("newer", "older"), [(PLAIN, YARN), (PLAIN, LINEAR), (LINEAR | PLAIN, {"type": "default"})]
)
def test_the_same_logits_where_both_names_are_there(
    newer: dict[str, Any], older: dict[str, Any], theta: float | None, tmp_path: Path
) -> None:
    from tests.convert.test_oracle import compare_logits

    compare: Callable[..., None] = compare_logits
    compare(tiny_with_both(newer, older, theta), tmp_path, nextn=False)
