"""An answer for who reads it: text as it comes, and what came of it.

Knows nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from mtp_cli.conversation.speech import FinishReason, Speech

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Stats


class Answer:
    """An answer as it comes: iterate over its text, in whole characters.

    However the iteration ends, `text` is what was said, and the session has taken it up.

    opening:    what of an earlier part was not shown then and begins this one
    n_left_out: exchanges that its prompt does not have any more, for want of room, and the one
                before it had
    """

    def __init__(
        self,
        speech: Speech,
        on_end: Callable[[Answer], None],
        *,
        opening: str = "",
        n_left_out: int = 0,
    ) -> None:
        self.speech = speech
        self.n_left_out = n_left_out
        self._opening = opening
        self._on_end = on_end
        self.text = ""

    def __iter__(self) -> Generator[str, None, None]:
        try:
            if self._opening:
                self.text += self._opening
                yield self._opening
            for chunk in self.speech:
                self.text += chunk
                yield chunk
        finally:
            self._on_end(self)

    def stop(self) -> None:
        """Let the round under way be the last; safe to call from a signal handler."""
        self.speech.stop()

    @property
    def tokens(self) -> list[int]:
        return self.speech.tokens

    @property
    def finish_reason(self) -> FinishReason:
        return self.speech.finish_reason

    @property
    def is_whole(self) -> bool:
        """Whether the model itself came to an end, so that nothing is left to go on with."""
        return self.finish_reason == "stop" and not self.speech.is_stopped

    @property
    def stats(self) -> Stats:
        return self.speech.stats

    @property
    def n_read(self) -> int:
        """How much of the prompt has been read; safe to ask from another thread."""
        return self.speech.n_read
