"""Drafts what a grammar forces, or the likely rest of a value that stands in the prompt.

Forced are names of fields, quotes, brackets, the rest of a word begun. They cost no pass of any
model, and where the grammar allows a single id it is sure to stand; only its row has to be read.
Knows the grammar by what it asks of a constraint.
"""

from __future__ import annotations

from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.grammar.constraint import Constraint
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_COPIED


def forced_first(constraint: Constraint, copy: Match, room: int) -> Match:
    """At most `room` ids: what is forced, then a copy, as far as that agrees and fits.

    Where nothing is forced and the copy is a short one, the rest of a value that has begun instead.

    copy: what copying proposes
    """
    ids, n_certain = constraint.forced()
    ids = ids[: min(room, MAX_COPIED)]
    value = None if ids or copy.length >= TUNING.copies.surer else constraint.recalled()
    if value is not None and value.ids:
        recalled = value.ids[: min(room, MAX_COPIED)]
        return Match(recalled, 1, [0] * len(recalled), value=value)
    if not ids and constraint.n_fitting(copy.ids) == len(copy.ids):
        return copy
    n_forced = len(ids)
    copied, support, length = copy.ids, copy.support, copy.length
    if copied[:n_forced] != ids:
        copied, support, length = ids, [], 0
    n = max(constraint.n_fitting(copied), n_forced)
    support = [*support, *[0] * n_forced][:n]
    return Match(copied[:n], length, support, n_forced, min(n_certain, n_forced))
