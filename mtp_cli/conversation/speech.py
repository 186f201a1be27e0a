"""What a model says: rounds of ids become text in whole characters, up to where it is to end.

Owns where an answer ends before the model ends it: at a text to stop at, or where it is stuck in a
loop. Knows nothing of prompts or of what the text means.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from mtp_cli.conversation.control import as_control
from mtp_cli.conversation.repetition import Loop
from mtp_cli.conversation.stops import StopScanner
from mtp_cli.conversation.tokenizer import Tokenizer

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import FinishReason as GenerationEnd
    from mtp_cli.engine import Stats
    from mtp_cli.engine.types import Proposer

FinishReason = Literal["stop", "length", "interrupted", "repetition"]
_LOOKS_EVERY = 16  # tokens from one look for a loop to the next: each costs 0.1 ms or so


class Generation(Protocol):
    """An answer under way: each item is the ids that one round made final."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def proposers(self) -> Sequence[Proposer]:
        """Who proposed each token."""

    @property
    def finish_reason(self) -> GenerationEnd: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def n_read(self) -> int: ...
    def __iter__(self) -> Iterator[Sequence[int]]: ...
    def stop(self) -> None: ...


class Heard(NamedTuple):
    """A token as it is heard.

    text:     its bytes, which may end inside a character; none for a control token
    spelling: of a control token, for stops to be found in
    shown_as: what stands for a control token in the text, usually nothing
    is_end:   it ends the answer and is no part of it
    """

    text: bytes
    spelling: str = ""
    shown_as: str = ""
    is_end: bool = False


def heard(tokenizer: Tokenizer, token: int, *, marks_control: bool) -> Heard:
    """marks_control: a control token stands in the text as a `Splitter` wants it"""
    if tokenizer.is_eog(token):
        return Heard(b"", is_end=True)
    text = tokenizer.piece(token)
    spelled = b"" if text else tokenizer.piece(token, special=True)
    spelling = spelled.decode(errors="replace")
    return Heard(text, spelling, as_control(spelling) if marks_control else "")


@dataclass(frozen=True)
class Ending:
    """Where an answer ends, though the model would go on.

    stops: texts, not counted in reasoning; neither they nor what follows is part of the answer
    loop:  what counts as stuck, None for nothing
    """

    stops: tuple[str, ...] = ()
    loop: Loop | None = None


UNENDED = Ending()


class _Border(NamedTuple):
    """A place between two tokens where no character is cut: counts of what is before it."""

    n_tokens: int
    n_scanned: int
    n_text: int


class Speech:
    """An answer under way, as an iterator over its text.

    is_answering: hears every text that comes, and says whether stops count in it; None: in all
    said:    all text that was given out
    pending: bytes of a character that an earlier part of the same answer began
    period:  the length of the loop, in tokens, that ended it; else 0
    """

    def __init__(
        self,
        generation: Generation,
        hear: Callable[[int], Heard],
        ending: Ending,
        pending: bytes = b"",
        is_answering: Callable[[str], bool] | None = None,
    ) -> None:
        self._generation = generation
        self._hear = hear
        self._is_answering = is_answering
        self._loop = ending.loop
        self._scanner = StopScanner(ending.stops)
        # A character cut off at the very end stays in the decoder: half of it is never shown.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoder.decode(pending)
        self._n_taken = self._n_looked = self._n_scanned = self._n_text = 0
        self._proposed: list[tuple[int, Proposer]] = []  # where each token's text ends, and whose
        self._borders = [] if pending else [_Border(0, 0, 0)]
        self.said = ""
        self.period = 0

    def __iter__(self) -> Iterator[str]:
        for ids in self._generation:
            yield from self._given_out("".join(map(self._take, ids)))
            if self._is_over():
                self._generation.stop()
        if self._scanner.found is None:
            yield from self._given_out(self._scanner.rest())

    def _given_out(self, text: str) -> Iterator[str]:
        self.said += text
        if text:
            yield text

    def _take(self, token: int) -> str:
        """What a token makes certain of the text."""
        if self._scanner.found is not None:
            return ""
        self._n_taken += 1
        heard = self._hear(token)
        text = self._decoder.decode(heard.text)
        self._n_scanned += len(text) + len(heard.spelling)
        self._n_text += len(text) + len(heard.shown_as)
        self._proposed.append((self._n_text, self._generation.proposers[self._n_taken - 1]))
        if not heard.is_end and not self.pending:
            self._borders.append(_Border(self._n_taken, self._n_scanned, self._n_text))
        counts = self._is_answering is None or self._is_answering(text + heard.shown_as)
        certain = self._scanner.feed(text, is_looked_at=counts)
        return certain + self._scanner.feed(heard.spelling, heard.shown_as, is_looked_at=counts)

    def _is_over(self) -> bool:
        if self._scanner.found is not None:
            return True
        if self._loop is not None and self._n_taken - self._n_looked >= _LOOKS_EVERY:
            self._n_looked = self._n_taken
            self.period = self._loop.period(self._generation.tokens)
        return self.period > 0

    def stop(self) -> None:
        """Let the round under way be the last; safe to call from a signal handler."""
        self._generation.stop()

    @property
    def pending(self) -> bytes:
        """What has come of a character that is not whole yet."""
        return self._decoder.getstate()[0]

    @property
    def is_stopped(self) -> bool:
        """Whether it ended at one of the stops."""
        return self._scanner.found is not None

    @property
    def tokens(self) -> list[int]:
        """Up to the one with which a stop was whole, and the end that the model gave it."""
        return list(self._generation.tokens[: self._n_taken])

    def kept(self) -> tuple[list[int], str]:
        """The tokens that say `said`, and the rest at its end that is less than a token."""
        n_shown = self._n_scanned - self._scanner.n_held
        borders = [border for border in self._borders if border.n_scanned <= n_shown]
        if not borders:
            return [], self.said
        return self.tokens[: borders[-1].n_tokens], self.said[borders[-1].n_text :]

    def proposed(self, start: int, end: int) -> list[tuple[str, Proposer]]:
        """`said[start:end]`, in pieces that one has proposed."""
        pieces: list[tuple[str, Proposer]] = []
        for token_end, proposer in self._proposed:
            if start < min(token_end, end):
                pieces.append((self.said[start : min(token_end, end)], proposer))
                start = token_end
        return pieces

    def cut_off(self) -> str:
        """The stop and what else came in its last token."""
        return self._scanner.held if self.is_stopped else ""

    @property
    def finish_reason(self) -> FinishReason:
        if self.is_stopped:
            return "stop"
        return "repetition" if self.period else self._generation.finish_reason

    @property
    def stats(self) -> Stats:
        return self._generation.stats

    @property
    def n_read(self) -> int:
        """How much of the prompt has been read; safe to ask from another thread."""
        return self._generation.n_read
