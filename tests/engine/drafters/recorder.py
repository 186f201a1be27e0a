"""Writes down what a drafter chose from."""

from __future__ import annotations

from collections.abc import Sequence

from mtp_cli.engine.sampling.proposals import Proposal, Propose, likeliest
from mtp_cli.engine.types import Floats, Ids


def recorder() -> tuple[Propose, list[Floats]]:
    """Proposes the likeliest id; and a list that gets the logits of each."""
    seen: list[Floats] = []

    def propose(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        seen.append(logits.copy())
        return likeliest(logits, ids, drafted)

    return propose, seen
