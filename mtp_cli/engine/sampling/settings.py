"""How to choose tokens: what a user or a GGUF can ask for. Chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mtp_cli.engine.sampling.penalties import Penalties
from mtp_cli.errors import MtpError


@dataclass(frozen=True)
class _Key:
    """A key of a GGUF's recommendation: the field of `Sampling`, its type, and what it can be."""

    field: str
    parse: Callable[[str], float]
    least: float = -math.inf
    most: float = math.inf

    def value(self, text: str) -> float:
        value = self.parse(text)
        if not (self.least <= value <= self.most and -math.inf < value < math.inf):
            raise ValueError
        return value

    def __str__(self) -> str:
        is_any = self.least == -math.inf
        return "a number" if is_any else f"a number from {self.least:g} to {self.most:g}"


# What llama.cpp's LLM_KV_GENERAL_SAMPLING_* has of `Sampling`
_METADATA = {
    "general.sampling.temp": _Key("temperature", float),
    "general.sampling.top_k": _Key("top_k", int, most=2**31 - 1),
    "general.sampling.top_p": _Key("top_p", float),
    "general.sampling.min_p": _Key("min_p", float),
    "general.sampling.penalty_last_n": _Key("penalty_last_n", int),
    "general.sampling.penalty_repeat": _Key("penalty_repeat", float, 0.001, 1000),
}


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. temperature 0 (below 1e-6) is greedy; top_k 0, top_p 1 and min_p 0 are
    off.

    The defaults are llama.cpp's own. seed: the same one gives the same answer to the same prompt
    (`Engine.generate` says how far that goes); None: every answer is another one.

    The penalties (`Penalties` says what each does) are off at last_n 0 or less, or repeat 1, freq 0
    and present 0. repeat: 0.001 to 1000; freq and present: -1000 to 1000.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    penalty_last_n: int = 64
    penalty_repeat: float = 1.0
    penalty_freq: float = 0.0
    penalty_present: float = 0.0

    @property
    def penalties(self) -> Penalties:
        return Penalties(
            self.penalty_last_n, self.penalty_repeat, self.penalty_freq, self.penalty_present
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Sampling:
        """The model's own recommendation where its GGUF has one, the defaults elsewhere."""
        fields: dict[str, Any] = {}
        for name, key in _METADATA.items():
            if name in metadata:
                try:
                    fields[key.field] = key.value(metadata[name])
                except ValueError:
                    raise MtpError(f"{name}: expected {key}, found {metadata[name]!r}") from None
        return cls(**fields)
