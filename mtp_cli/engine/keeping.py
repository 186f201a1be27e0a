"""When a timeline takes up a prompt that was kept, and when what it has read is kept in turn.

Knows what a timeline holds. Knows nothing of files: `KeptPrompts` says which are of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtp_cli.engine.kept_prompts import N_WORTH_KEEPING, KeptPrompts
from mtp_cli.engine.prefix import n_common

if TYPE_CHECKING:  # it loads llama.cpp
    from mtp_cli.engine.timeline import Timeline


class Keeping:
    """Reads no prompt again that was read before."""

    def __init__(self, timeline: Timeline, prompts: KeptPrompts) -> None:
        self._timeline, self._prompts = timeline, prompts
        self._n_taken_up = 0  # ids that were found on disk, of the prompt that is read

    def take_up(self, prompt: Sequence[int]) -> None:
        """Hold what is kept of this prompt, where that is more than what is held."""
        self._n_taken_up = 0
        wanted = prompt[:-1]
        found = self._prompts.find(wanted, n_common(self._timeline.ids, wanted))
        saved = None if found is None else self._prompts.read(found)
        if found is None or saved is None:
            return
        self._timeline.restore(saved)
        self._n_taken_up = self._timeline.truncate(found.n)

    def put_away(self, n_past: int) -> None:
        """Keep what was read, where it was read from the beginning in parts like any prompt's.

        n_past: ids that were held before
        """
        timeline = self._timeline
        is_new = len(timeline.ids) - n_past >= N_WORTH_KEEPING
        if is_new and n_past in (0, self._n_taken_up) and n_past % timeline.target.n_batch == 0:
            self._prompts.keep(timeline.save())

    def finish(self) -> None:
        """Wait for what is being written."""
        self._prompts.finish()
