"""An answer for who reads it: text as it comes, and what came of it.

Knows nothing of prompts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from mtp_cli.conversation.reasoning import Part, Splitter
from mtp_cli.conversation.speech import FinishReason, Speech
from mtp_cli.conversation.template import Message

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Stats
    from mtp_cli.engine.types import Proposer


class Answer:
    """An answer as it comes: iterate over its text, or over its parts, in whole characters.

    However the iteration ends, `text` is what was said, `reasoning` what was thought, and the
    session has taken both up.

    splitter:   tells the two apart, and has heard the parts of this answer that came before
    asked:      the messages that it answers
    opening:    text of an earlier part that was not shown then and begins this one
    margin:     what its tokenizer puts in front of a first word: it is no part of the text
    n_left_out: exchanges that its prompt does not have any more, for want of room, and the one
                before it had
    """

    def __init__(
        self,
        speech: Speech,
        on_end: Callable[[Answer], None],
        splitter: Splitter,
        *,
        asked: Sequence[Message] = (),
        opening: str = "",
        margin: str = "",
        n_left_out: int = 0,
    ) -> None:
        self.speech = speech
        self.splitter = splitter
        self.asked = asked
        self.n_left_out = n_left_out
        self._opening = opening
        self._margin = margin
        self._on_end = on_end
        self._n_found = 0  # of what was said, by the parts that `proposed` was asked about
        self.text = ""
        self.reasoning = ""

    def __iter__(self) -> Generator[str, None, None]:
        with contextlib.closing(self.parts()) as parts:
            for part in parts:
                if part.kind == "content":
                    yield part.text

    def parts(self) -> Generator[Part, None, None]:
        """Reasoning and content, as they come."""
        try:
            yield from self._taken(self.splitter.feed(self._opening))
            for chunk in self.speech:
                yield from self._taken(self.splitter.feed(chunk))
            yield from self._taken(self.splitter.finish())
        finally:
            self._taken(self.splitter.finish())
            self._on_end(self)

    def _taken(self, parts: list[Part]) -> list[Part]:
        taken = [part for part in map(self._without_margin, parts) if part.text]
        for kind, text in taken:
            if kind == "reasoning":
                self.reasoning += text
            else:
                self.text += text
        return taken

    def _without_margin(self, part: Part) -> Part:
        margin, self._margin = self._margin, ""
        return part._replace(text=part.text.removeprefix(margin))

    def proposed(self, part: Part) -> list[tuple[str, Proposer]]:
        """A part that has just come, in pieces that one has proposed; ask about each in turn."""
        start = self.speech.said.find(part.text, self._n_found)
        if start < 0:  # said in an earlier part of the same answer
            return [(part.text, "target")]
        self._n_found = start + len(part.text)
        return self.speech.proposed(start, self._n_found)

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
    def is_thinking(self) -> bool:
        """Whether what comes now is reasoning; safe to ask from another thread."""
        return bool(self.splitter.closers)

    @property
    def is_thought(self) -> bool:
        """Whether all that was said so far is reasoning."""
        return bool(self.splitter.reasoning and not self.splitter.text)

    @property
    def stats(self) -> Stats:
        return self.speech.stats

    @property
    def n_read(self) -> int:
        """How much of the prompt has been read; safe to ask from another thread."""
        return self.speech.n_read
