"""Splits what a model says into reasoning and content, by marks, while it is being said.

Knows marks as strings and nothing of where they come from; control tokens come in as `as_control`
writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from mtp_cli.conversation.control import is_control, spelled, without_control
from mtp_cli.conversation.scan import Active, Found, find, may_grow, n_certain

Kind = Literal["content", "reasoning"]

_MAX_HEADER = 200  # characters: a header that is longer has lost its end, and hides no more text
_BREAK = "\n\n"  # between two sections of one kind


class Part(NamedTuple):
    """A piece of an answer."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Marks:
    """What tells the parts of an answer apart.

    pairs:    (open, close) of reasoning; as text, it opens only where a section begins, as control
              token anywhere. One without an open mark closes what a header or the prompt opened
    contents: content begins, as reasoning does
    ends:     content ends; as text only where one of `contents` came before
    headers:  (begin, end) of a section's header; `channels` are the words in it that make it
              reasoning, any other makes it content
    """

    pairs: tuple[tuple[str, str], ...] = ()
    contents: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    channels: tuple[str, ...] = ()

    def mapped(self, spell: Callable[[str], str]) -> Marks:
        """The same marks, each in another spelling."""
        return Marks(
            pairs=tuple((spell(open_), spell(close)) for open_, close in self.pairs),
            contents=tuple(map(spell, self.contents)),
            ends=tuple(map(spell, self.ends)),
            headers=tuple((spell(begin), spell(end)) for begin, end in self.headers),
            channels=self.channels,
        )


@dataclass(frozen=True)
class Around:
    """What a model would have said around the parts of an answer that is known by its parts.

    opening: before reasoning; closing: between reasoning and content
    close:   the mark in `closing` that ends the reasoning
    header:  before content that has no reasoning
    """

    opening: str = ""
    close: str = ""
    closing: str = ""
    header: str = ""


class _Shown(NamedTuple):
    """What was given out of an answer when it ended for the first time, behind so many marks."""

    n_marks: int
    text: str
    reasoning: str


@dataclass
class Splitter:
    """Takes text as it comes and gives parts; what may still become a mark is held back.

    closers: what ends the reasoning that the answer begins in, because its prompt opened it; none
             where it begins with content
    text:    what was given of the content; reasoning: of the reasoning
    """

    marks: Marks = field(default_factory=Marks)
    closers: tuple[str, ...] = ()
    text: str = ""
    reasoning: str = ""
    _held: str = ""
    _is_fresh: bool = True  # nothing but whitespace since the section began
    _is_marked: bool = False  # a mark has come before this section, whose margin is then no text
    _has_header: bool = False
    _margin: str = ""  # whitespace at the end of reasoning, which is text only if more follows
    _raw: list[tuple[bool, str]] = field(default_factory=list)  # (is a mark, as it was said)
    _unfinished: Splitter | None = None  # as it was before the end let go of what was held back
    _shown: _Shown | None = None

    def __post_init__(self) -> None:
        self._is_marked |= bool(self.closers)

    def feed(self, text: str) -> list[Part]:
        """What `text` makes certain."""
        self._held += text
        return self._drain(is_last=False)

    @property
    def is_answering(self) -> bool:
        """Whether what comes now is content: no reasoning, nor the blanks behind it."""
        return not self.closers and not (self._is_fresh and self._is_marked)

    @property
    def is_at_content(self) -> bool:
        """Whether content would begin with the next character, if that is no mark's."""
        return not self.closers and not self._held.strip() and self._is_fresh

    @property
    def can_reason(self) -> bool:
        """Whether anything is known that would begin reasoning, or end it."""
        return bool(self.closers or self.marks.pairs or self.marks.headers)

    @property
    def held(self) -> str:
        """What has come and may yet be part of a mark."""
        return self._held

    @property
    def is_after_mark(self) -> bool:
        """Whether a mark came before what comes now, so that blanks are no text yet."""
        return self._is_marked

    def with_more(self, text: str) -> Splitter:
        """One that has also heard `text`; for asking where an answer would be, not what it said."""
        other = replace(self, _raw=[])
        other.feed(text)
        return other

    def finish(self) -> list[Part]:
        """What was held back; the answer has ended."""
        if not self._held:
            return []
        self._unfinished = self._copy()
        return self._drain(is_last=True)

    def again(self) -> Splitter:
        """A splitter that has heard the same, and to which the answer goes on.

        What the end let go of may yet become a mark; where it stays text, it is not given again.
        """
        other = (self._unfinished or self)._copy()
        other._shown = _Shown(self._n_marks(), self.text, self.reasoning)
        return other

    @property
    def heard(self) -> str:
        """All that was fed, for another splitter to be fed."""
        before = self._unfinished or self
        return "".join(text for _is_mark, text in before._raw) + before._held

    def hear(self, reasoning: str, content: str, around: Around) -> None:
        """Take up an answer that is known by its parts: no marks are looked for in them."""
        if reasoning:
            mark = "" if self.closers else around.opening
            self._section(mark, reasoning, self.closers or (around.close,))
        if content:
            self._section(around.closing if self.closers else around.header, content, ())

    def _section(self, mark: str, text: str, closers: tuple[str, ...]) -> None:
        self._raw += [(True, mark), (False, text)]
        self._has_header |= any(header in mark for header in self.marks.contents)
        self._is_marked |= bool(mark)
        self._is_fresh = False
        self.closers = closers
        if closers:
            self.reasoning += text
        else:
            self.text += text

    def _copy(self) -> Splitter:
        return replace(self, _raw=[*self._raw])

    def _n_marks(self) -> int:
        return sum(is_mark for is_mark, _text in self._raw)

    def as_said(self, guard: Callable[[str], str]) -> str:
        """The whole answer with its marks, as a template would write it; texts are guarded."""
        pieces: list[tuple[bool, str]] = []
        for is_mark, text in self._raw:
            if pieces and pieces[-1][0] == is_mark:
                text = pieces.pop()[1] + text
            pieces.append((is_mark, text))
        return "".join(
            spelled(text) if is_mark else guard(without_control(text)) for is_mark, text in pieces
        )

    def _drain(self, *, is_last: bool) -> list[Part]:
        parts: list[Part] = []
        while self._held:
            active = self._active()
            found = find(self._held, active)
            n_taken = found.at if found else len(self._held)
            if not is_last:
                n_taken = min(n_taken, n_certain(self._held, active))
            text, self._held = self._held[:n_taken], self._held[n_taken:]
            if found is not None and n_taken == found.at and self._is_fresh and text.isspace():
                self._raw.append((False, text))  # before a section's mark it is no text
            else:
                parts += self._text(text)
            if found is None or n_taken < found.at:
                break
            if not is_last and may_grow(self._held, found.mark, self._active()):
                break
            if not self._take(found, is_last=is_last):
                break
        if is_last:
            parts += self._text(self._held)
            self._held = ""
        return _joined(parts)

    def _active(self) -> list[Active]:
        """The marks that count now."""
        marks = self.marks
        closers = self.closers or [close for _open, close in marks.pairs]
        active = [Active(mark, "close", not self.closers) for mark in closers]
        active += [Active(mark, "content", not is_control(mark)) for mark in marks.contents]
        active += [Active(mark, "open", not is_control(mark)) for mark, _close in marks.pairs]
        active += [Active(begin, "header", not is_control(begin)) for begin, _end in marks.headers]
        if not self.closers:
            ends = (mark for mark in marks.ends if self._has_header or is_control(mark))
            active += [Active(mark, "end", is_first=False) for mark in ends]
        return [one for one in active if one.mark and (self._is_fresh or not one.is_first)]

    def _take(self, found: Found, *, is_last: bool) -> bool:
        """Act on the mark that what is held begins with; False where its end is still to come."""
        size = len(found.mark)
        opened = [found.mark] if found.meaning == "open" else []
        if found.meaning == "header":
            header = self._header(found.mark)
            if header is None:
                if not is_last and len(self._held) < _MAX_HEADER:
                    return False
                header = found.mark + _role_and_channel(self._held[size:], self.marks.channels)
            opened = [""] if any(channel in header for channel in self.marks.channels) else []
            size = len(header)
        self._raw.append((True, self._held[:size]))
        self._held = self._held[size:]
        self._has_header |= found.meaning == "header" or found.mark in self.marks.contents
        self.closers = tuple(close for open_, close in self.marks.pairs if open_ in opened)
        self._is_fresh = self._is_marked = True
        self._margin = ""
        return True

    def _header(self, begin: str) -> str | None:
        """The whole header that what is held begins with."""
        end = dict(self.marks.headers)[begin]
        at = self._held.find(end, len(begin))
        return None if at < 0 else self._held[: at + len(end)]

    def _text(self, raw: str) -> list[Part]:
        if raw:
            self._raw.append((False, raw))
        text = without_control(raw)
        if self._is_fresh and self._is_marked:
            text = text.lstrip()
        if not text:
            return []
        kind: Kind = "reasoning" if self.closers else "content"
        if self.closers:
            text = self._margin + text
            self._margin = text[len(text.rstrip()) :]
            text = text.rstrip()
        already = self.reasoning if self.closers else self.text
        if self._is_fresh and text.strip():
            text = _BREAK + text if self._is_marked and already else text
            self._is_fresh = False
        new = self._not_shown(text)
        if self.closers:
            self.reasoning += text
        else:
            self.text += text
        return [Part(kind, new)] if new else []

    def _is_past_shown(self) -> bool:
        """Whether all that was given out before has been said again."""
        shown = self._shown
        return shown is None or (
            len(self.text) >= len(shown.text) and len(self.reasoning) >= len(shown.reasoning)
        )

    def _not_shown(self, text: str) -> str:
        """What of `text`, which comes next, was not given out before the answer went on."""
        if self._shown is None:
            return text
        shown, before = self._shown.text, self.text
        if self.closers:
            shown, before = self._shown.reasoning, self.reasoning
        rest = shown[len(before) :]
        is_other = not text.startswith(rest[: len(text)])
        # Counting marks takes as long as the answer is: not for every piece of it.
        if is_other or self._is_past_shown() or self._n_marks() > self._shown.n_marks:
            self._shown = None
            return text
        return text[len(rest) :]


def listening(splitter: Splitter, opening: str = "") -> Callable[[str], bool]:
    """Whether each text that comes belongs to the answer, for `Speech`.

    splitter: has heard what came before; opening: what comes first
    """
    splitter.feed(opening)

    def is_answering(text: str) -> bool:
        splitter.feed(text)
        return splitter.is_answering

    return is_answering


def _role_and_channel(text: str, channels: Sequence[str]) -> str:
    """What of a header without an end is header: a role, a channel's name."""
    names = "|".join(map(re.escape, (*channels, "commentary", "final")))
    found = re.match(rf"(?:assistant)?\s*(?:{names})?", text)
    return found.group() if found else ""


def _joined(parts: Sequence[Part]) -> list[Part]:
    joined: list[Part] = []
    for part in parts:
        if joined and joined[-1].kind == part.kind:
            part = Part(part.kind, joined.pop().text + part.text)
        joined.append(part)
    return joined
