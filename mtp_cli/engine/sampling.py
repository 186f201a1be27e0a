"""Chooses a token from one row of logits, through llama.cpp's own sampler chain.

Owns the truncated distribution (penalties, top-k, top-p, min-p, temperature) and the random
numbers, for the target's rows and, by the same rules over its own vocabulary, for a drafter's.
Knows nothing of verification, and keeps no text: the ids that a row follows come with it.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.binding import lib
from mtp_cli.engine.candidates import Candidates, Ids
from mtp_cli.engine.drafters.base import Proposal, likeliest
from mtp_cli.engine.llama import Floats
from mtp_cli.engine.penalties import Penalties
from mtp_cli.errors import MtpError

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


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
    "general.sampling.top_k": _Key("top_k", int),
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


# Draws are made from q to this power, normalised: a draft a little surer than the head accepts more
# (benchmarks/LOG.md, "Acceptance rules").
_SHARPNESS = 1.5
_COLDEST = 1e-6  # at less, logits over the temperature leave what a float can tell apart
_MAXIMA = 24  # maxima of parts of a row for each of the top k, see `shortlist`


def shortlist(logits: Floats, k: int) -> npt.NDArray[np.integer[Any]]:
    """The ids that can be among the k > 0 likeliest of a row, (n,) float32, and some more.

    The k-th largest maximum of disjoint parts of the row is not above its k-th largest value. To
    sort all ids costs several times as much.
    """
    n_maxima = _MAXIMA * k
    if len(logits) < 2 * n_maxima:
        return np.arange(len(logits), dtype=np.int32)
    n_parts = len(logits) // n_maxima
    maxima = logits[: n_parts * n_maxima].reshape(n_parts, n_maxima).max(axis=0)
    bound = np.partition(maxima, n_maxima - k)[n_maxima - k]
    return np.flatnonzero(logits >= bound)


class Sampler:
    """One answer's sampler.

    draws_drafts: whether drafts are drawn from the head's distribution, not its best guesses.
                  Without, every choice costs one random number, so that a seed gives the same text
                  however many of its tokens were drafted. With, random numbers go to drafts and
                  their verification too.
    n_before:     how many of the ids before a row it looks at, to penalise them; 0 for none
    """

    def __init__(self, sampling: Sampling, n_vocab: int, *, draws_drafts: bool = False) -> None:
        self.is_greedy = sampling.temperature < _COLDEST
        self.draws_drafts = draws_drafts and not self.is_greedy
        self._penalties = sampling.penalties
        self.n_before = self._penalties.n_before
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

    def choose(self, logits: Floats, before: Sequence[int] = ()) -> int:
        """The token the model gives for one row of logits, (n_vocab,) float32.

        before: the ids that the row follows, `n_before` of them or more where there are as many
        """
        if self.is_greedy:
            with self._penalties.on(logits, before):
                return int(logits.argmax())
        return self.candidates(logits, before).token_at(self.random())

    def candidates(self, logits: Floats, before: Sequence[int] = ()) -> Candidates:
        """The truncated distribution that `choose` draws from."""
        with self._penalties.on(logits, before):
            return self._truncated(logits)

    def propose(
        self,
        logits: Floats,
        ids: Ids | None,
        before: Sequence[int],
        commit: Callable[[float], bool],
    ) -> Proposal:
        """What to draft from a drafter's row, (n,) float32 with n <= n_vocab.

        The best id; or a draw, penalised and truncated like the target's, where `draws_drafts` and
        the id is sure to be verified.

        ids:    the target's id of each place, see `Propose`
        before: the ids that the row follows, drafted ones included, as for `choose`
        commit: whether the id will be verified whatever it is; told the best one's probability
        """
        with self._penalties.on(logits, before, ids):
            best = likeliest(logits, ids)
            if not (self.draws_drafts and commit(best.prob)):
                return best
            q = self._truncated(logits).sharpened(_SHARPNESS)
        index = int(q.ids[q.index_at(self.random())])
        return Proposal(index, best.prob, q if ids is None else q.renamed(ids))

    def random(self) -> float:
        """The next random number, uniform in [0, 1)."""
        return self._rng.random()

    def _truncated(self, logits: Floats) -> Candidates:
        """What the chain leaves of a row as it is."""
        ids = shortlist(logits, self._top_k) if self._top_k > 0 else self._ids[: len(logits)]
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
