"""The ids that a head reads and drafts in, and the target's: each the other's.

Knows nothing of drafting, or of what runs the head.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.sampling.proposals import Propose
from mtp_cli.engine.types import Floats, HeadContext, Ids, State
from mtp_cli.head_file import DraftVocabulary


class HeadIds:
    """Of a head that has its own vocabulary, or some ids to draft in, or neither.

    draft_ids: the target's id of each logit; None where there is one for each id of the target
    """

    def __init__(
        self, vocabulary: DraftVocabulary | None = None, draft_ids: Ids | None = None
    ) -> None:
        self.draft_ids = draft_ids if vocabulary is None else vocabulary.draft_ids
        self._places: Ids | None = None if vocabulary is None else vocabulary.surrogates

    def own(self, ids: Sequence[int]) -> list[int]:
        """The ids that the head reads for the target's."""
        return list(ids) if self._places is None else self._places[list(ids)].tolist()

    def take(self, draft: Draft, propose: Propose, context: HeadContext) -> int:
        """Add an id chosen from the context's last logits; what the head reads next for it."""
        place = draft.take(self.logits(context), propose, self.draft_ids)
        return self.read_next(place, draft.ids[-1])

    def read_next(self, place: int, token: int) -> int:
        """What the head reads of an id that it drafted: the target's, or its place."""
        return token if self._places is None else place

    def logits(self, context: HeadContext) -> Floats:
        """Of the context's last decode, one for each of `draft_ids`, or of the target's ids."""
        row: Floats = context.logits()[0]
        return row

    def hold(self, ids: Sequence[int], position: int) -> None:
        """The text has these ids at `position` and after."""

    def truncate(self, n_past: int) -> None:
        """It ends before `n_past`."""

    def save(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass

    def close(self) -> None:
        pass
