"""How likely the model found each token of an answer, and which others were likely there.

Works on rows of logits as the model gave them: penalties, truncation and temperature have no part
in it. Pure arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtp_cli.engine.types import Floats


@dataclass(frozen=True)
class TokenLogprob:
    """A token, the natural logarithm of its probability, and (id, logprob) of the likeliest ones,
    the first of them first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def of_row(token: int, logits: Floats, n_top: int) -> TokenLogprob:
    """logits: (n_vocab,) float32, of which `token` was chosen."""
    peak = float(logits.max())
    total = peak + float(np.log(np.exp(logits - peak, dtype=np.float64).sum()))
    likeliest = _likeliest(logits, n_top)
    top = tuple((int(id_), float(logits[id_]) - total) for id_ in likeliest)
    return TokenLogprob(token, float(logits[token]) - total, top)


def _likeliest(logits: Floats, n: int) -> np.typing.NDArray[np.intp]:
    """The ids of the n greatest logits, in their order; of equal ones the smallest id.

    None that is ruled out, whose logit is -infinity.
    """
    n = min(n, len(logits))
    if n == 0:
        return np.empty(0, np.intp)
    least = max(np.partition(logits, -n)[-n], -np.finfo(np.float32).max)
    found = np.flatnonzero(logits >= least)
    return found[np.argsort(-logits[found], kind="stable")][:n]
