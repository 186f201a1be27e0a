"""One row of logits: its best id, and the distribution that truncation leaves of it.

Owns the passes over whole rows, which are what choosing a token costs: compiled ones
(`native/logits.cpp`) for what nearly everyone uses, numpy's for all else. Knows neither penalties
nor random numbers.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine import compiled
from mtp_cli.engine.candidates import Candidates
from mtp_cli.engine.llama import Floats
from mtp_cli.errors import MtpError

Indices = npt.NDArray[np.intp]

_MAXIMA = 24  # maxima of parts of a row for each of the top k, see `shortlist`
_FIRST_LOOK = 256  # ids of a row's top that may be all of its top-p


def best(logits: Floats) -> tuple[int, float]:
    """The likeliest id of a row, (n,) float32, and its probability; that is 0 where not all are
    numbers."""
    library = _library()
    if library is None or not _is_plain(logits):
        return best_by_numpy(logits)
    total = ctypes.c_double()
    index: int = library.mtp_best(logits.ctypes.data, len(logits), total)
    return index, _share(total.value)


def best_by_numpy(logits: Floats) -> tuple[int, float]:
    index = int(logits.argmax())
    weights = logits - logits[index]
    np.exp(weights, out=weights)  # in place: another row of a large vocabulary is a page fault each
    return index, _share(float(weights.sum()))


def _share(total: float) -> float:
    return 1 / total if math.isfinite(total) else 0.0


def truncated(
    logits: Floats, *, top_k: int, top_p: float, min_p: float, temperature: float
) -> Candidates:
    """What top-k, top-p, min-p and then the temperature leave of a row, (n,) float32.

    In llama.cpp's order and sense (src/llama-sampler.cpp): top-p looks at the softmax over the top
    k, and min-p, like it, at logits that no temperature has touched. top_k 0 or less, top_p 1 and
    min_p 0 are off; temperature > 0.

    Raises MtpError when the logits are no numbers.
    """
    library = _library()
    if library is not None and 0 < top_k <= len(logits) and _is_plain(logits):
        ids, probs = np.empty(top_k, np.int32), np.empty(top_k)
        n = library.mtp_truncate(
            logits.ctypes.data, len(logits), top_k, top_p, min_p, temperature,
            ids.ctypes.data, probs.ctypes.data,
        )  # fmt: skip
        if n > 0:
            return Candidates(ids[:n], probs[:n])
    return truncated_by_numpy(logits, top_k, top_p, min_p, temperature)


def truncated_by_numpy(
    logits: Floats, top_k: int, top_p: float, min_p: float, temperature: float
) -> Candidates:
    ids = _top_k_top_p(logits, top_k, top_p)
    values = logits[ids].astype(np.float64)
    values -= values.max()
    if min_p > 0:
        is_kept = values >= math.log(min_p)
        ids, values = ids[is_kept], values[is_kept]
    weights = np.exp(values / temperature)
    return Candidates(ids.astype(np.int32), weights / weights.sum())


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
        raise MtpError("the model gave logits that are no numbers; its file may be damaged")
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


def _is_plain(logits: Floats) -> bool:
    """Whether the row lies in memory as compiled code reads it."""
    return logits.dtype == np.float32 and logits.flags.c_contiguous


@functools.cache
def _library() -> Any:
    library = compiled.load()
    if library is None:
        return None
    row, n, number = ctypes.c_void_p, ctypes.c_int32, ctypes.c_double
    library.mtp_best.argtypes = [row, n, ctypes.POINTER(number)]
    library.mtp_truncate.argtypes = [row, n, n, number, number, number, row, row]
    library.mtp_best.restype = library.mtp_truncate.restype = n
    return library
