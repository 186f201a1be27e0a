"""Scaled rotary embeddings: what a GGUF says of them, and which of them it cannot say.

Owns the kinds that transformers names (`modeling_rope_utils.py`) and llama.cpp's keys and tensors
for them. A family says which of these its graph computes; the rest is refused, since a scaling that
is dropped gives a model that seems to run. Knows nothing of any one family.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtp_cli.errors import MtpError
from mtp_convert.families.rules import Config
from mtp_convert.tensors.sources import Constant, Source

Scope = Mapping[str, Any]

DEFAULT, LINEAR, YARN, LLAMA3 = "default", "linear", "yarn", "llama3"
LONGROPE, PROPORTIONAL, MROPE = "longrope", "proportional", "mrope"
SCALED = frozenset({DEFAULT, LINEAR, YARN})  # what every graph with one kind of attention computes
MAX_ROTARY = 1 << 16  # of one head: factors for more would fill the memory before they are refused
_ALIASES = {"": DEFAULT, "none": DEFAULT, "su": LONGROPE}
_BY_LAYER = ("full_attention", "sliding_attention")
_YARN = {
    "extrapolation_factor": "yarn_ext_factor", "attention_factor": "yarn_attn_factor",
    "attn_factor": "yarn_attn_factor", "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}  # fmt: skip


def kind_of(scope: Scope) -> str:
    """transformers' name of a scaling."""
    found = str(scope.get("rope_type", scope.get("type")) or "").lower()
    return _ALIASES.get(found, found)


def full_scope(config: Config) -> Scope:
    """What holds for full attention, and for all where layers do not differ."""
    found: Scope = config.rope.get("full_attention", config.rope)
    return found


def check_rope(config: Config, carried: frozenset[str], sliding: frozenset[str] | None) -> None:
    """MtpError for a scaling that the family's graph does not compute.

    carried: kinds it computes; sliding: in sliding layers, where it computes others there
    """
    given = config.values.get("rope_scaling")
    if given and not isinstance(given, dict):
        raise MtpError(f"{config.where}: rope_scaling: expected an object, found {str(given)[:40]}")
    for name, scope in _scopes(config, sliding is not None):
        kinds = sliding if name == "sliding_attention" and sliding is not None else carried
        _check_scope(config, name, scope, kinds)


def rope_notes(config: Config) -> list[str]:
    """What people should know of a config that says it twice."""
    if len(config.ropes) < 2 or config.ropes[0] == config.ropes[1]:
        return []
    return ["rope_parameters: left out, since transformers takes rope_scaling where it has both"]


def _scopes(config: Config, has_sliding: bool) -> Iterator[tuple[str, Scope]]:
    named = [(name, config.rope[name]) for name in _BY_LAYER if name in config.rope]
    for name, scope in named:
        if not isinstance(scope, dict):
            raise MtpError(f"{config.where}: rope_parameters: {name}: expected an object")
        yield name, scope
    if named:
        return
    yield "full_attention", config.rope
    if has_sliding and config.find("yarn_only_types") != ["full_attention"]:
        yield "sliding_attention", config.rope


def _check_scope(config: Config, name: str, scope: Scope, carried: frozenset[str]) -> None:
    kind, where = kind_of(scope), f"{config.where}: rope scaling"
    if kind not in carried:
        advice = ""
        if kind == "dynamic":
            n = config.find("max_position_embeddings")
            advice = f"; it begins beyond {n} tokens: without it in config.json the model is "
            advice += "converted for those"
        raise MtpError(f"{where}: {kind} ({name}): llama.cpp has none for this family{advice}")
    if scope.get("mrope_section") and MROPE not in carried:
        raise MtpError(f"{where}: mrope_section: llama.cpp has none for this family")
    needed = {LINEAR: ("factor",), YARN: ("factor",), LONGROPE: ("long_factor", "short_factor")}
    for key in needed.get(kind, ()):
        if scope.get(key) is None:
            raise MtpError(f"{where}: {kind}: {key} is missing")
    if kind == LLAMA3:
        _check_llama3(where, scope)
    if kind == YARN and scope.get("truncate") is False:
        raise MtpError(f"{where}: yarn: truncate: false: llama.cpp always truncates")
    if kind == PROPORTIONAL and float(scope.get("factor") or 1.0) != 1.0:
        raise MtpError(f"{where}: proportional: a factor, which llama.cpp has not")


_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192.0}  # fmt: skip


def _check_llama3(where: str, scope: Scope) -> None:
    found = {key: float(scope.get(key, default)) for key, default in _LLAMA3.items()}
    wrong = [key for key, value in found.items() if not 0 < value < math.inf]
    if wrong or found["low_freq_factor"] == found["high_freq_factor"]:
        raise MtpError(f"{where}: llama3: {(wrong or ['low_freq_factor'])[0]}: no usable number")


def rope_metadata(config: Config) -> dict[str, Any]:
    """The keys of linear, yarn and longrope; llama3's factors are a tensor of their own."""
    scope = full_scope(config)
    kind = kind_of(scope)
    if kind == LINEAR:
        found: dict[str, Any] = {"factor": float(scope["factor"])}
    elif kind == YARN:
        found = _yarn(config, scope)
    elif kind == LONGROPE:
        found = {
            "original_context_length": _original(config, scope),
            "attn_factor": _longrope_attention(config, scope),
        }
    else:
        return {}
    return {f"{{arch}}.rope.scaling.{key}": value for key, value in {"type": kind, **found}.items()}


def _yarn(config: Config, scope: Scope) -> dict[str, Any]:
    found: dict[str, Any] = {
        "factor": float(scope["factor"]), "original_context_length": _original(config, scope),
    }  # fmt: skip
    for key, name in _YARN.items():
        if scope.get(key) is not None:
            found[name] = float(scope[key])
    # llama.cpp works its own out and overwrites `yarn_attn_factor`; `attn_factor` comes on top.
    usual, wanted = _mscale(float(scope["factor"])), _yarn_attention(scope)
    if not math.isclose(usual, wanted):
        found["attn_factor"] = wanted / usual
    return found


def _mscale(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _yarn_attention(scope: Scope) -> float:
    """What queries and keys are multiplied by, as transformers has it."""
    factor = float(scope["factor"])
    above, below = scope.get("mscale"), scope.get("mscale_all_dim")
    if scope.get("attention_factor") is not None:
        return float(scope["attention_factor"])
    if above and below:
        return _mscale(factor, float(above)) / _mscale(factor, float(below))
    return _mscale(factor)


def _original(config: Config, scope: Scope) -> Any:
    found = scope.get("original_max_position_embeddings")
    found = config.find("original_max_position_embeddings") if found is None else found
    return config.find("max_position_embeddings") if found is None else found


def _longrope_attention(config: Config, scope: Scope) -> float:
    if scope.get("attention_factor") is not None:
        return float(scope["attention_factor"])
    original = _original(config, scope)
    factor = scope.get("factor")
    factor = config.count("max_position_embeddings") / original if factor is None else float(factor)
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def longrope_factors(config: Config, n_rotary: int) -> dict[str, Source]:
    """What each frequency is divided by, in contexts up to the original one and beyond it."""
    scope = full_scope(config)
    if kind_of(scope) != LONGROPE:
        return {}
    found: dict[str, Source] = {}
    for key, name in (("long_factor", "long"), ("short_factor", "short")):
        values = np.array(scope[key], np.float32)
        if values.shape != (n_rotary // 2,):
            raise MtpError(
                f"{config.where}: rope scaling: {key}: expected {n_rotary // 2} factors, found "
                f"{values.shape}"
            )
        found[f"rope_factors_{name}.weight"] = Constant(values)
    return found


def rotary(config: Config, n_rotary: int) -> int:
    """How many dimensions are turned; MtpError where that many would not be a head's."""
    if n_rotary > MAX_ROTARY:
        raise MtpError(
            f"{config.where}: {n_rotary} rotary dimensions; expected {MAX_ROTARY} at most"
        )
    return n_rotary


def llama3_rope(config: Config, n_rotary: int) -> dict[str, Source]:
    """rope_freqs.weight for Llama 3's scaled rotary embedding (Meta's formula), or nothing."""
    scope = full_scope(config)
    if kind_of(scope) != LLAMA3:
        return {}
    return {"rope_freqs.weight": Constant(rope_factors(scope, config, n_rotary))}


def proportional_factors(config: Config, n_rotary: int, fraction: float) -> dict[str, Source]:
    """Of a head that is turned in its first frequencies only: so large that the others stand still.

    ggml has no such layout.
    """
    half = rotary(config, n_rotary) // 2
    factors = np.where(np.arange(half) < int(half * fraction), 1.0, 1e30).astype(np.float32)
    return {"rope_freqs.weight": Constant(factors)}


def rope_factors(scope: Scope, config: Config, n_rotary: int) -> Any:
    """What each rotary frequency is divided by: 1 below, `factor` above, smooth between."""
    base = config.rope_value("rope_theta", default=10000.0) or 10000.0
    factor, low, high, original = (float(scope.get(k, default)) for k, default in _LLAMA3.items())
    exponents = np.arange(0, rotary(config, n_rotary), 2, dtype=np.float32) / np.float32(n_rotary)
    wavelength = 2 * math.pi * np.float32(base) ** exponents
    smooth = (original / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(wavelength < original / high, 1.0, between)
    return np.where(wavelength > original / low, factor, found).astype(np.float32)
