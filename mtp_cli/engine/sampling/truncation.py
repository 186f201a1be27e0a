"""Rows of logits: their best ids, their truncated distribution, and how much of a draft stands.

Owns the passes over whole rows, which are what choosing a token costs: compiled ones
(`native/logits.cpp`) for what nearly everyone uses, numpy's for all else. Knows neither penalties
nor where random numbers come from.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.native import compiled
from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_MOST = 128  # the largest top-k that compiled code takes: MOST in native/logits.cpp
_MAXIMA = 24  # maxima of parts of a row for each of the top k, see `shortlist`
_FIRST_LOOK = 256  # ids of a row's top that may be all of its top-p


def best(logits: Floats) -> tuple[int, float]:
    """The likeliest id of a row, (n,) float32, and its probability; 0 where not all are finite."""
    library = compiled.load()
    row = None if library is None else _row(logits)
    if row is None:
        return best_by_numpy(logits)
    total = ctypes.c_double()
    index: int = library.mtp_best(row, len(logits), total)
    return index, _share(total.value)


def best_by_numpy(logits: Floats) -> tuple[int, float]:
    index = int(logits.argmax())
    if logits[index] == -np.inf:  # every id is ruled out
        return index, 0.0
    weights = logits - logits[index]
    np.exp(weights, out=weights)  # in place: another row of a large vocabulary is a page fault each
    return index, _share(float(weights.sum()))


def _share(total: float) -> float:
    return 1 / total if math.isfinite(total) else 0.0


class Truncation:
    """What top-n-sigma, top-k, top-p, min-p, XTC and then the temperature leave of a row of logits,
    (n,) float32.

    In llama.cpp's order and sense (src/llama-sampler.cpp): top-p looks at the softmax over the top
    k, and min-p, like it, at logits that no temperature has touched. top_k 0 or less, top_p 1 and
    min_p 0 are off, top_n_sigma at 0 or less; temperature > 0.

    xtc: a probability and a threshold. What XTC leaves out with that probability is part of the
         distribution: a share of it is what is left then.

    All raise MtpError when the logits are NaN.
    """

    def __init__(
        self,
        *,
        top_k: int,
        top_p: float,
        min_p: float,
        temperature: float,
        top_n_sigma: float = 0.0,
        xtc: tuple[float, float] | None = None,
    ) -> None:
        self._top_n_sigma, self._xtc = top_n_sigma, xtc
        self._top_k, self._top_p, self._min_p = top_k, top_p, min_p
        self._temperature = temperature
        is_usual = top_n_sigma <= 0 and xtc is None
        self._is_compiled = is_usual and compiled.load() is not None and 0 < top_k <= _MOST
        n_compiled = top_k if self._is_compiled else 0
        self._native = compiled.Truncation(top_p, min_p, temperature, n_compiled)
        self._ids, self._probs = np.empty(_MOST, np.int32), np.empty(_MOST)
        self._places = self._ids.ctypes.data, self._probs.ctypes.data

    def of(self, logits: Floats) -> Candidates:
        """The distribution over what is left."""
        row = self._row(logits)
        if row is not None:
            n = compiled.load().mtp_truncate(row, len(logits), self._native, *self._places)
            if n > 0:
                return Candidates(self._ids[:n].copy(), self._probs[:n].copy())
        return self.by_numpy(logits)

    def token_at(self, logits: Floats, point: float) -> int:
        """What `of(logits).token_at(point)` is."""
        row = self._row(logits)
        if row is not None:
            token: int = compiled.load().mtp_token_at(row, len(logits), self._native, point)
            if token >= 0:
                return token
        return self.by_numpy(logits).token_at(point)

    def verify_block(
        self,
        draft: Sequence[int],
        drawn: Mapping[int, Candidates],
        rows: Sequence[Floats],
        points: npt.NDArray[np.float64],
    ) -> tuple[int, int] | None:
        """How many ids of a draft `verify.verify_block` accepts, and the one that follows them.

        None where that has to do it.

        rows:   len(draft) + 1 of them
        points: (len(draft) + 1,) uniform in [0, 1)
        """
        n = len(draft)
        qs = [drawn.get(position) for position in range(n)]
        counts = [0 if q is None else len(q.ids) for q in qs]
        given = [self._row(row) for row in rows]
        if None in given or not any(counts):
            return None
        ids = np.concatenate([q.ids for q in qs if q is not None])
        probs = np.concatenate([q.probs for q in qs if q is not None])
        following = ctypes.c_int32()
        n_accepted: int = compiled.load().mtp_verify_block(
            (ctypes.c_void_p * (n + 1))(*map(ctypes.addressof, given)), len(rows[0]),
            self._native, (ctypes.c_int32 * n)(*draft), n, (ctypes.c_int32 * n)(*counts),
            ids.ctypes.data, probs.ctypes.data, points.ctypes.data, following,
        )  # fmt: skip
        return None if n_accepted < 0 else (n_accepted, following.value)

    def _row(self, logits: Floats) -> Any:
        """The row for compiled code; None where that cannot read it."""
        return _row(logits) if self._is_compiled else None

    def by_numpy(self, logits: Floats) -> Candidates:
        if self._top_n_sigma > 0:
            logits = _top_n_sigma(logits, self._top_n_sigma)
        ids = _top_k_top_p(logits, self._top_k, self._top_p)
        values = logits[ids].astype(np.float64)
        values -= values.max()
        is_kept = values >= (math.log(self._min_p) if self._min_p > 0 else -np.finfo(float).max)
        ids, values = ids[is_kept], values[is_kept]  # none that was ruled out
        return Candidates(ids.astype(np.int32), self._shares(values))

    def _shares(self, values: Values) -> Values:
        """The probabilities of what is left, (n,) logits of which the largest is 0."""
        shares = _softmax(values / self._temperature)
        if self._xtc is None:
            return shares
        probability, threshold = self._xtc
        likely = np.flatnonzero(_softmax(values) >= threshold)
        if len(likely) < 2:
            return shares
        left = values.copy()
        left[likely] = -np.inf
        least = likely[values[likely].argmin()]
        left[least] = values[least]
        excluded = _softmax((left - left.max()) / self._temperature)
        return (1 - probability) * shares + probability * excluded


def _softmax(values: Values) -> Values:
    weights: Values = np.exp(values)
    weights /= weights.sum()
    return weights


def _top_n_sigma(logits: Floats, n: float) -> Floats:
    """What is more than n standard deviations below the best logit becomes -inf."""
    finite = logits[logits != -np.inf]
    if not len(finite):
        return logits
    least = finite.max() - np.float32(n) * finite.std()
    return np.where(logits < least, np.float32(-np.inf), logits)


def shortlist(logits: Floats, k: int) -> Indices:
    """The ids that can be among the k > 0 likeliest of a row, (n,) float32, and some more.

    The k-th largest maximum of disjoint parts of the row is not above its k-th largest value. To
    sort all ids costs several times as much.
    """
    n_maxima = _MAXIMA * k
    if len(logits) < 2 * n_maxima:
        return np.arange(len(logits))
    n_parts = len(logits) // n_maxima
    maxima = logits[: n_parts * n_maxima].reshape(n_parts, n_maxima).max(axis=0)
    bound = np.partition(maxima, n_maxima - k)[n_maxima - k]
    found: Indices = (logits >= bound).nonzero()[0]
    return found


def _top_k_top_p(logits: Floats, k: int, p: float) -> Indices:
    """The k likeliest (0: all), and of them the fewest that have the share p, by increasing id."""
    if not 0 < k < len(logits):
        return np.sort(_top_p(logits, p)) if p < 1 else np.arange(len(logits))
    ids = _top_k(logits, k)
    if p < 1:
        shares = np.exp(logits[ids].astype(np.float64) - logits[ids[0]]).cumsum()
        ids = ids[: shares.searchsorted(p * shares[-1]) + 1]
    return np.sort(ids)


def _top_k(logits: Floats, k: int) -> Indices:
    """The likeliest first."""
    ids = shortlist(logits, k)
    if not len(ids):
        raise MtpError("the model gave logits that are NaN; its file may be damaged")
    return ids[(-logits[ids]).argsort(kind="stable")[:k]]


def _top_p(logits: Floats, p: float) -> Indices:
    """Of a whole row; ever more of its top are looked at, since to sort all of it is slow."""
    most = logits.max()
    goal = p * float(np.exp(logits - most).sum())
    k = _FIRST_LOOK
    while True:
        ids = _top_k(logits, k)
        shares = np.exp(logits[ids].astype(np.float64) - most).cumsum()
        if shares[-1] >= goal or k >= len(logits):
            return ids[: shares.searchsorted(goal) + 1]
        k *= 8


def _row(logits: Floats) -> Any:
    """The first of a row's numbers, for compiled code; None where it cannot read them."""
    if logits.dtype != np.float32 or not logits.flags.c_contiguous:
        return None
    try:
        return ctypes.c_float.from_buffer(logits)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only, or empty
        return None
