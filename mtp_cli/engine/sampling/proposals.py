"""What a drafter's row of logits proposes: one id, by the rules that the target's are chosen by.

Knows nothing of how drafts are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.truncation import best
from mtp_cli.engine.types import Floats, Ids


@dataclass(frozen=True)
class Proposal:
    """The id drafted from one row of a drafter's logits.

    index: its place in the row
    prob:  the drafter's own estimate that it stands, made before the id was known if it is a draw
    drawn: the distribution that it was drawn from, over the target's ids; None: it was no draw
    """

    index: int
    prob: float
    drawn: Candidates | None = None


class Propose(Protocol):
    """Chooses what to draft; asked once for each further id of a draft, in order."""

    def __call__(
        self, logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        """logits:  (n_draft,) float32
        ids:     (n_draft,) int32, increasing: the target's id of each; None: same
        drafted: the ids of the draft so far
        prob:    how likely an id of this row is to be accepted, where the drafter says so itself
        """


def likeliest(
    logits: Floats, ids: Ids | None, drafted: Sequence[int] = (), prob: float | None = None
) -> Proposal:
    """The drafter's best id, and its probability; 0 from a row with NaN or infinity."""
    index, own = best(logits)
    return Proposal(index, own if prob is None or own == 0 else prob)
