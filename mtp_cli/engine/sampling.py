"""Chooses a token from one row of logits, through llama.cpp's own sampler chain.

Owns the truncated distribution (top-k, top-p, min-p, temperature) and the random numbers. Knows
nothing of drafts: a drafted row and a plain one are sampled alike.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.binding import lib
from mtp_cli.engine.llama import Floats
from mtp_cli.errors import MtpError

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# general.sampling.* keys of a GGUF -> fields of Sampling
_METADATA = {
    "general.sampling.temp": ("temperature", float),
    "general.sampling.top_k": ("top_k", int),
    "general.sampling.top_p": ("top_p", float),
    "general.sampling.min_p": ("min_p", float),
}


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off.

    The defaults are llama.cpp's own. Without a seed every answer is another one.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Sampling:
        """The model's own recommendation where its GGUF has one, the defaults elsewhere."""
        fields: dict[str, Any] = {}
        for key, (field, parse) in _METADATA.items():
            if key in metadata:
                try:
                    fields[field] = parse(metadata[key])
                    if not math.isfinite(fields[field]):
                        raise ValueError
                except ValueError:
                    raise MtpError(f"{key}: expected a number, found {metadata[key]!r}") from None
        return cls(**fields)


@dataclass(frozen=True)
class Candidates:
    """The tokens a row can give, and how likely each is.

    ids:   (n,) int32
    probs: (n,) float64, summing to 1
    """

    ids: npt.NDArray[np.int32]
    probs: npt.NDArray[np.float64]


class Sampler:
    """One answer's sampler. Each choice costs one random number, so that a seed gives the same
    text however many of its tokens were drafted."""

    def __init__(self, sampling: Sampling, n_vocab: int) -> None:
        self.is_greedy = sampling.temperature <= 0
        self._rng = np.random.default_rng(sampling.seed)
        self._data = np.zeros(n_vocab, _TOKEN_DATA)
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        weakref.finalize(self, lib.llama_sampler_free, self._chain)
        if sampling.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(lib.llama_sampler_init_temp(sampling.temperature))

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)

    def choose(self, logits: Floats) -> int:
        """The token the model gives for one row of logits, (n_vocab,) float32."""
        if self.is_greedy:
            return int(logits.argmax())
        candidates = self.candidates(logits)
        cumulative = candidates.probs.cumsum()
        index = int(cumulative.searchsorted(self._rng.random() * cumulative[-1], side="right"))
        return int(candidates.ids[min(index, len(cumulative) - 1)])

    def candidates(self, logits: Floats) -> Candidates:
        """The truncated distribution of one row of logits."""
        self._data["id"] = self._ids  # the chain reorders its rows
        self._data["logit"] = logits
        array = lib.llama_token_data_array(
            data=self._data.ctypes.data_as(ctypes.POINTER(lib.llama_token_data)),
            size=len(self._data),
            selected=-1,
            sorted=False,
        )
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        address = ctypes.cast(array.data, ctypes.c_void_p).value
        raw = (ctypes.c_byte * (array.size * _TOKEN_DATA.itemsize)).from_address(address or 0)
        kept = np.frombuffer(raw, _TOKEN_DATA)  # a sampler may point the array at its own memory
        weights = np.exp(kept["logit"].astype(np.float64) - kept["logit"].max())
        return Candidates(kept["id"].copy(), weights / weights.sum())
