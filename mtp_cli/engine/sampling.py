"""Chooses a token from one row of logits, through llama.cpp's own sampler chain.

Owns the truncated distribution (top-k, top-p, min-p, temperature) and the random numbers, for the
target's rows and, by the same rules over its own vocabulary, for a drafter's. Knows nothing of
verification.
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
from mtp_cli.engine.candidates import Candidates, Ids
from mtp_cli.engine.drafters.base import Proposal
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

    The defaults are llama.cpp's own. seed: the same one gives the same answer to the same prompt
    (`Engine.generate` says how far that goes); None: every answer is another one.
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


# Draws are made from q to this power, normalised: a draft a little surer than the head accepts more
# (benchmarks/LOG.md, "Acceptance rules").
_SHARPNESS = 1.5
_N_PARTS = 32  # elements of a row that share a maximum, see `_shortlist`


class Sampler:
    """One answer's sampler.

    draws_drafts: whether drafts are drawn from the head's distribution, not its best guesses.
                  Without, every choice costs one random number, so that a seed gives the same text
                  however many of its tokens were drafted. With, random numbers go to drafts and
                  their verification too: the same text only from the same drafts.
    """

    def __init__(self, sampling: Sampling, n_vocab: int, *, draws_drafts: bool = False) -> None:
        self.is_greedy = sampling.temperature <= 0
        self.draws_drafts = draws_drafts and not self.is_greedy
        self._rng = np.random.default_rng(sampling.seed)
        self._data = np.zeros(n_vocab, _TOKEN_DATA)  # a drafter's rows use the beginning
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        weakref.finalize(self, lib.llama_sampler_free, self._chain)
        self._top_k = sampling.top_k
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
        return self.candidates(logits).token_at(self.random())

    def random(self) -> float:
        """The next random number, uniform in [0, 1)."""
        return self._rng.random()

    def draw(self, logits: Floats, ids: Ids | None, prob: float) -> Proposal:
        """Draw from a drafter's row, truncated like the target's; `Propose` describes the row.

        prob: the drafter's estimate that a draw stands
        """
        q = self.candidates(logits).sharpened(_SHARPNESS)
        index = int(q.ids[q.index_at(self.random())])
        return Proposal(index, prob, q if ids is None else q.renamed(ids))

    def _shortlist(self, logits: Floats) -> npt.NDArray[np.integer[Any]]:
        """The ids that can be among the top k, and some more; all where there is no top k.

        The k-th largest maximum of disjoint parts of the row is not above its k-th largest value.
        The chain would copy and sort all ids, at several times the cost.
        """
        n_each = len(logits) // _N_PARTS
        if not 0 < self._top_k <= n_each:
            return self._ids[: len(logits)]
        maxima = logits[: n_each * _N_PARTS].reshape(_N_PARTS, n_each).max(axis=0)
        bound = np.partition(maxima, n_each - self._top_k)[n_each - self._top_k]
        return np.flatnonzero(logits >= bound)

    def candidates(self, logits: Floats) -> Candidates:
        """The truncated distribution of one row of logits, (n,) float32 with n <= n_vocab."""
        ids = self._shortlist(logits)
        data = self._data[: len(ids)]
        data["id"] = ids  # the chain reorders its rows
        data["logit"] = logits[ids]
        array = lib.llama_token_data_array(
            data=data.ctypes.data_as(ctypes.POINTER(lib.llama_token_data)),
            size=len(data),
            selected=-1,
            sorted=False,
        )
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        address = ctypes.cast(array.data, ctypes.c_void_p).value
        raw = (ctypes.c_byte * (array.size * _TOKEN_DATA.itemsize)).from_address(address or 0)
        kept = np.frombuffer(raw, _TOKEN_DATA)  # a sampler may point the array at its own memory
        weights = np.exp(kept["logit"].astype(np.float64) - kept["logit"].max())
        return Candidates(kept["id"].copy(), weights / weights.sum())
