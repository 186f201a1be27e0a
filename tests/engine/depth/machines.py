"""Cost tables of real machines and formats, and traces made to order."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.cost import CostTable
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.types import MAX_DEPTH

# One row in milliseconds, then 1 to 9, 12 and 16 rows as multiples of it: two cores with AVX-512,
# SmolLM2-135M, and for "wide" the same zero-padded to the width of a 4B model. With ggml's kernels,
# and with ours where the name says "few rows".
_CURVES = {
    "few rows Q4_0": (6.1, (1, 1.07, 1.26, 1.3, 1.5, 1.54, 1.75, 1.85, 2.15, 2.5, 3.1)),
    "few rows Q4_1": (8.0, (1, 1.04, 1.27, 1.32, 1.77, 1.78, 2.06, 2.1, 2.95, 3.3, 4.3)),
    "few rows Q8_0": (9.3, (1, 1.04, 1.24, 1.27, 1.53, 1.6, 1.85, 1.95, 2.5, 3.1, 3.7)),
    "few rows BF16": (13.5, (1, 1.03, 1.17, 1.2, 1.35, 1.5, 2.0, 2.1, 2.55, 3.1, 3.8)),
    "Q4_0": (5.9, (1, 1.52, 2.01, 2.35, 3.17, 3.59, 3.64, 3.69, 4.1, 5.14, 5.80)),
    "Q4_1": (9.0, (1, 1.74, 2.27, 2.72, 3.37, 3.90, 4.2, 4.52, 5.0, 6.46, 8.21)),
    "Q8_0": (8.0, (1, 1.91, 2.26, 2.48, 3.22, 3.43, 3.52, 3.61, 3.9, 4.60, 5.63)),
    "BF16": (10.9, (1, 1.42, 1.66, 1.86, 2.02, 2.14, 2.29, 2.44, 2.6, 3.07, 3.63)),
    "wide BF16": (56.0, (1, 1.21, 1.28, 1.36, 1.43, 1.48, 1.6, 1.72, 1.85, 2.15, 2.55)),
    "wide Q4_0": (19.0, (1, 1.69, 2.41, 2.49, 3.20, 3.93, 4.2, 4.54, 4.9, 6.2, 7.6)),
}
_COUNTS = (*range(1, 10), 12, 16)
N_MAX = _COUNTS[-1]
_GROWTH_S = 4e-6  # for each row and token of context
_SWITCH_S = {"few rows": 0.00075, "other": 0.00045}  # another graph
# A head's first step, a row of catch-up in it, a further step
_HEAD_MS = {"wide": (2.5, 0.44, 2.2), "few rows": (0.68, 0.02, 0.42), "other": (0.65, 0.09, 0.45)}


def _table(name: str) -> CostTable:
    row_ms, multiples = _CURVES[name]
    kind = next((kind for kind in _HEAD_MS if kind in name), "other")
    head_ms, caught_up_ms, step_ms = _HEAD_MS[kind]
    every = np.interp(range(1, N_MAX + 1), _COUNTS, multiples).tolist()
    return CostTable(
        target_s=tuple(row_ms * m / 1000 for m in every),
        growth_s=tuple(_GROWTH_S * n for n in range(1, N_MAX + 1)),
        first_s=head_ms / 1000,
        row_s=caught_up_ms / 1000,
        step_s=step_ms / 1000,
        switch_s=_SWITCH_S.get(kind, _SWITCH_S["other"]),
    )


TABLES = {name: _table(name) for name in _CURVES}


def made_up(
    n_tokens: int,
    right: float,
    *,
    confidence: float | None = None,
    n_ids: int = MAX_DEPTH,
    seed: int = 0,
) -> Trace:
    """An answer that never repeats itself, so that nothing can be copied.

    right:      how often a drafted id is what comes, given the ones before it
    confidence: the heads' probability for every id; default: they know how good they are
    n_ids:      of a draft
    """
    rng = np.random.default_rng(seed)
    prompt, tokens = list(range(20)), list(range(100, 100 + n_tokens))
    drafts = []
    for start in range(n_tokens - 1):
        ids = tokens[start + 1 : start + 1 + n_ids]
        n_right = int(np.logical_and.accumulate(rng.random(len(ids)) < right).sum())
        ids[n_right:] = [-1] * (len(ids) - n_right)
        drafts.append(Draft(ids, [right if confidence is None else confidence] * len(ids)))
    return Trace(prompt, tokens, drafts, [Match()] * (n_tokens - 1))


def bursts(n_tokens: int, n_right: int, n_wrong: int) -> Trace:
    """Heads that are always right for a while and then always wrong, and as sure either way."""
    trace = made_up(n_tokens, right=1.0, confidence=0.8)
    drafts = []
    for start, draft in enumerate(trace.drafts):
        wrong = [(start + k) % (n_right + n_wrong) >= n_right for k in range(len(draft.ids))]
        ids = [-1 if w else i for w, i in zip(wrong, draft.ids, strict=True)]
        drafts.append(Draft(ids, draft.probs))
    return dataclasses.replace(trace, drafts=drafts)


def false_matches(n_tokens: int, size: int) -> Trace:
    """The same few words again and again, and after them always something else; useless heads."""
    tokens = [1 + i % (size + 1) if i % (size + 1) < size else 100 + i for i in range(n_tokens)]
    return dataclasses.replace(made_up(n_tokens, right=0.0, confidence=0.5), tokens=tokens)


def copied(n_tokens: int, n_before: int) -> Trace:
    """What the prompt ended with, again and again; useless heads."""
    period = list(range(100, 100 + n_before))
    tokens = [period[i % n_before] for i in range(n_tokens)]
    trace = made_up(n_tokens, right=0.0, confidence=0.5)
    return dataclasses.replace(trace, prompt=[*trace.prompt, *period], tokens=tokens)


def joined(first: Trace, second: Trace) -> Trace:
    """One answer that goes on with another, whose tokens must not occur in the first."""
    shift = first.tokens[-1] + 1 - second.tokens[0]
    moved = [Draft([t + shift if t >= 0 else t for t in d.ids], d.probs) for d in second.drafts]
    last = Draft([second.tokens[0] + shift], [0.5])
    return Trace(
        first.prompt,
        first.tokens + [t + shift for t in second.tokens],
        [*first.drafts, last, *moved],
        [*first.matches, Match(), *second.matches],
    )
