"""An answer: ids from the engine as they come, text in whole characters.

Knows nothing of prompts, and of the engine only that an answer under way is iterated over.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Stats

FinishReason = Literal["stop", "length", "interrupted"]


class Generation(Protocol):
    """An answer under way: each item is the ids that one round made final."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def n_read(self) -> int: ...
    def __iter__(self) -> Iterator[Sequence[int]]: ...
    def stop(self) -> None: ...


class Answer:
    """An answer as it comes: iterate over its text, in whole characters.

    However the iteration ends, `text` is what was said, and the session has taken it up.
    """

    def __init__(
        self,
        generation: Generation,
        piece: Callable[[int], bytes],
        on_end: Callable[[Answer], None],
    ) -> None:
        self._generation = generation
        self._piece = piece
        self._on_end = on_end
        self.text = ""

    def __iter__(self) -> Generator[str, None, None]:
        # A character cut off at the very end stays in the decoder: half of it is never shown.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        try:
            for ids in self._generation:
                chunk = decoder.decode(b"".join(map(self._piece, ids)))
                self.text += chunk
                if chunk:
                    yield chunk
        finally:
            self._on_end(self)

    def stop(self) -> None:
        """Let the round under way be the last; safe to call from a signal handler."""
        self._generation.stop()

    @property
    def tokens(self) -> list[int]:
        return list(self._generation.tokens)

    @property
    def finish_reason(self) -> FinishReason:
        return self._generation.finish_reason

    @property
    def stats(self) -> Stats:
        return self._generation.stats

    @property
    def n_read(self) -> int:
        """How much of the prompt has been read; safe to ask from another thread."""
        return self._generation.n_read
