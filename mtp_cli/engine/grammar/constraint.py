"""What the loop asks of what may be said, and the answer where that is anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mtp_cli.engine.types import Floats, Ids


class Forced(NamedTuple):
    """What comes next, whatever the model thinks.

    n_certain: the first of them are all that the grammar allows; the text of the others is, and
               another spelling of it might be chosen
    """

    ids: list[int]
    n_certain: int


class Recalled(NamedTuple):
    """What may come next, as the prompt has it: the rest of a value, and what follows that.

    n_rest:   ids of the rest; the next one closes the value, and the others are forced then
    n_said:   bytes of the value that are there
    is_clear: whether the value ends there in the prompt, too
    """

    ids: list[int]
    n_rest: int
    n_said: int
    is_clear: bool


class Constraint(Protocol):
    """What may be said, as the loop asks it. All of it knows the ids that `accept` was told."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow but an end."""

    def restrict(self, logits: Floats, drafted: Sequence[int], ids: Ids | None = None) -> None:
        """Make what may not follow these ids -infinity, in a row of logits, (n,) float32.

        ids: (n,) the target's id of each place; None: the place itself
        """

    def n_fitting(self, ids: Sequence[int]) -> int:
        """How many of these ids, from the first on, may come."""

    def forced(self) -> Forced: ...

    def recalled(self) -> Recalled | None:
        """A guess where nothing is forced; the grammar allows all of it."""

    def read(self, prompt: Sequence[int]) -> None:
        """What the answer is to, before it begins."""

    def accept(self, ids: Sequence[int]) -> int:
        """These ids come next, until nothing can follow: how many of them."""


class Unconstrained:
    """Anything may be said."""

    is_complete = False

    def restrict(self, logits: Floats, drafted: Sequence[int], ids: Ids | None = None) -> None:
        pass

    def n_fitting(self, ids: Sequence[int]) -> int:
        return len(ids)

    def forced(self) -> Forced:
        return Forced([], 0)

    def recalled(self) -> Recalled | None:
        return None

    def read(self, prompt: Sequence[int]) -> None:
        pass

    def accept(self, ids: Sequence[int]) -> int:
        return len(ids)
