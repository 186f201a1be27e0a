"""The interface of every drafter, and the one that never drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.types import Floats, Ids, State


@dataclass
class Draft:
    """Proposed ids, and for each the drafter's own estimate that it stands.

    drawn: position -> the distribution its id was drawn from; an id at any other position stands
           for itself alone, and stands if the target chooses it. A draft without draws is one
           that a drafter may make any way it likes
    n_behind: rows that the heads of its second and later ids had missed and read for it, besides
           the newest; 0 where one head drafts all
    is_block: one pass made all of it, and more would have cost nothing
    """

    ids: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    drawn: dict[int, Candidates] = field(default_factory=dict)
    n_behind: int = 0
    is_block: bool = False

    @property
    def n_committed(self) -> int:
        """The ids that must be verified: up to the last drawn one (`verify.py` says why)."""
        return 1 + max(self.drawn, default=-1)

    def cut(self, n: int) -> None:
        """Keep the first n ids."""
        del self.ids[n:], self.probs[n:]
        self.drawn = {position: q for position, q in self.drawn.items() if position < n}

    def take(
        self,
        logits: Floats,
        propose: Propose,
        ids: Ids | None = None,
        prob: float | None = None,
    ) -> int:
        """Add an id chosen from a row of logits (see `Propose`); returns its place in the row."""
        chosen = propose(logits, ids, self.ids, prob)
        if chosen.drawn is not None:
            self.drawn[len(self.ids)] = chosen.drawn
        self.ids.append(chosen.index if ids is None else int(ids[chosen.index]))
        self.probs.append(chosen.prob)
        return chosen.index


def always(_draft: Draft) -> bool:
    """Draft on, to the depth asked for."""
    return True


def with_rows(
    ids: Sequence[int], position: int, hidden: Floats | None
) -> tuple[Sequence[int], int]:
    """Of what is observed, the ids whose rows are there, and the first one's position."""
    n_hidden = 0 if hidden is None else len(hidden)
    return ids[len(ids) - n_hidden :], position + len(ids) - n_hidden


class Drafter(Protocol):
    """Follows the target's timeline and proposes what comes next.

    max_depth: the most ids one draft can have; 0 for a drafter that never drafts
    n_window:  how many trailing rows of a prompt it wants to see, 0 to N_OUTPUTS
    n_waiting: rows it has been shown and has yet to read before the next draft's first id, besides
               the newest
    """

    max_depth: int
    n_window: int

    @property
    def n_waiting(self) -> int: ...

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        """The target has decoded `ids` at `position` and after: a round's, or a prompt's new ones.

        hidden: (n, n_embd) float32 of the last n of them, fewer than all of a prompt's, whose other
                rows no one can see; a view, to be copied by whoever keeps it. None where the
                target gives none
        """

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        """At most `depth` ids to follow `newest`, which the target has not decoded yet.

        keep_going: shown the draft so far before each further id is drafted; False ends it
        propose:    chooses each id from the drafter's logits; a drafter that has none, or only
                    knows its best guess, may leave it unused
        """

    def truncate(self, n_past: int) -> None:
        """Forget everything at positions from `n_past` on."""

    def close(self) -> None: ...


class LastingDrafter(Drafter, Protocol):
    """One whose state can be put away and taken up again."""

    def save(self) -> State:
        """What it holds of the timeline, in memory of its own."""

    def restore(self, state: State) -> None:
        """Hold what was saved, and nothing else: it drafts what it would have drafted then."""


class NoDrafter:
    """Plain decoding."""

    max_depth = 0
    n_window = 0
    n_waiting = 0

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        pass

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        return Draft()

    def truncate(self, n_past: int) -> None:
        pass

    def save(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass

    def close(self) -> None:
        pass
