"""A GGUF's recommendations for sampling: which are followed, and a line for each that is not.

Owns llama.cpp's keys (LLM_KV_GENERAL_SAMPLING_* in src/llama-arch.cpp, read by
common_init_sampler_from_model in common/common.cpp). Chooses nothing.

Mirostat is not followed: it carries its state from token to token, while a draft is verified
against distributions that stay. Nor is another order than llama.cpp's own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.errors import MtpError

_PREFIX = "general.sampling."
_SEQUENCE = "sequence"


def _whole(text: str) -> int:
    """An integer, also where it is written as 40.0."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():  # of NaN and infinities, too
            raise
        return int(value)


@dataclass(frozen=True)
class _Key:
    """The type of a key's value, and what it can be."""

    parse: Callable[[str], float]
    least: float = -math.inf
    most: float = math.inf

    def value(self, name: str, text: str) -> float:
        try:
            value = self.parse(text)
            if self.least <= value <= self.most and -math.inf < value < math.inf:
                return value
        except (ValueError, OverflowError):
            pass
        raise MtpError(f"{_PREFIX}{name}: expected {self}, found {text[:40]!r}")

    def __str__(self) -> str:
        is_any = self.least == -math.inf
        return "a number" if is_any else f"a number from {self.least:g} to {self.most:g}"


_FIELDS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "penalty_repeat",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
}
_KEYS = {
    "temp": _Key(float),
    "top_k": _Key(_whole, most=2**31 - 1),
    "top_p": _Key(float, 0, 1),
    "min_p": _Key(float, 0, 1),
    "penalty_last_n": _Key(_whole),
    "penalty_repeat": _Key(float, 0.001, 1000),
    "xtc_probability": _Key(float, 0, 1),
    "xtc_threshold": _Key(float, 0, 1),
    "mirostat": _Key(_whole, 0, 2),
    "mirostat_tau": _Key(float, 0, 1000),
    "mirostat_eta": _Key(float, 0, 1000),
}
_MIROSTAT = {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1}  # where the file is silent

# llama.cpp's order of what is sampled with here.
_ORDER = ("penalties", "dry", "top_n_sigma", "top_k", "top_p", "min_p", "xtc", "temperature")
# Those that give the same in either order.
_COMMUTE = (
    {"penalties", "dry"},
    {"top_n_sigma", "temperature"},
    {"top_k", "min_p"},
    {"top_k", "temperature"},
)
# What a sampler that the sequence leaves out would do: nothing.
_OFF: dict[str, Mapping[str, float]] = {
    "penalties": {"penalty_last_n": 0},
    "dry": {"dry_multiplier": 0.0},
    "top_n_sigma": {"top_n_sigma": 0.0},
    "top_k": {"top_k": 0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "xtc": {"xtc_probability": 0.0},
    "temperature": {"temperature": 1.0},
}
# Off unless a command line sets them, which here has no such options.
_SILENT = ("typ_p", "adaptive_p")
_OTHERS = ("infill",)
_NICKNAMES = {"nucleus": "top_p", "temp": "temperature", "typ": "typ_p"}
_SPELLINGS = _NICKNAMES | {
    spelling: name
    for name in (*_ORDER, *_SILENT, *_OTHERS)
    for spelling in (name, name.replace("_", "-"), name.replace("_", ""))
}


@dataclass(frozen=True)
class Recommended:
    """sampling: the defaults, with what the file recommends instead

    left_out: a line for each value that cannot be meant
    sequence: the samplers that the file names, by llama.cpp's names; None where it names none
    others:   its values for mirostat
    """

    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    left_out: tuple[str, ...] = ()
    sequence: tuple[str, ...] | None = None
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Recommended:
        """metadata: a GGUF's scalar keys, as llama.cpp prints their values"""
        values, left_out = dict[str, Any](), list[str]()
        for name, key in _KEYS.items():
            if (text := metadata.get(_PREFIX + name)) is not None:
                try:
                    values[name] = key.value(name, text)
                except MtpError as error:
                    left_out.append(f"{error}; it is left out")
        sequence = _sequence(metadata.get(_PREFIX + _SEQUENCE, ""), left_out)
        fields = {to: values[name] for name, to in _FIELDS.items() if name in values}
        others = {name: value for name, value in values.items() if name not in _FIELDS}
        # Under mirostat llama.cpp asks for no sequence.
        if sequence is not None and not others.get("mirostat"):
            for sampler in {*_ORDER} - {*sequence}:
                fields |= _OFF[sampler]
        return cls(Sampling(**fields), tuple(left_out), sequence, others)

    def unfollowed(self, sampling: Sampling) -> str:
        """What the file recommends, is not followed, and would change what `sampling` gives; ""
        for nothing."""
        mirostat = {**_MIROSTAT, **self.others}
        if mirostat["mirostat"]:  # all that llama.cpp does then, but for the temperature
            return (
                "" if sampling.is_greedy else _shown({name: mirostat[name] for name in _MIROSTAT})
            )
        sequence = _ORDER if self.sequence is None else self.sequence
        said = []
        if "infill" in sequence or _is_another_order(sequence, _at_work(sampling)):
            said.append(f"the order {';'.join(sequence)}")
        return ", ".join(said)


def _sequence(text: str, left_out: list[str]) -> tuple[str, ...] | None:
    """The samplers of a list like "top_k;temperature"."""
    names = [name.strip() for name in text.split(";") if name.strip()]
    left_out += (
        f"{_PREFIX}{_SEQUENCE}: {name[:40]!r} is no sampler of llama.cpp; it is left out"
        for name in names
        if name not in _SPELLINGS
    )
    known = tuple(_SPELLINGS[name] for name in names if name in _SPELLINGS)
    return known or None


def _at_work(sampling: Sampling) -> set[str]:
    """The samplers that change anything."""
    if sampling.is_greedy:  # what the others leave has the likeliest token
        rest = {"temperature"}
    else:
        is_on = {
            "top_k": sampling.top_k > 0,
            "top_p": sampling.top_p < 1,
            "min_p": sampling.min_p > 0,
            "xtc": sampling.has_xtc,
            "top_n_sigma": sampling.top_n_sigma > 0,
            "temperature": sampling.temperature != 1,
        }
        rest = {name for name, on in is_on.items() if on}
    penalties = {"penalties": sampling.penalties.n_before, "dry": sampling.dry(None).n_before}
    return rest | {name for name, n_before in penalties.items() if n_before}


def _is_another_order(sequence: Sequence[str], at_work: set[str]) -> bool:
    """Whether two samplers at work change places that are not as good in either order."""
    places = [_ORDER.index(name) for name in sequence if name in at_work]
    pairs = itertools.combinations(places, 2)
    return any(b <= a and {_ORDER[a], _ORDER[b]} not in _COMMUTE for a, b in pairs)


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
