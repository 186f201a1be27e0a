"""Finds out how a template marks reasoning: renders words of its own and looks what is around them.

Knows templates and no token ids. What a template does not tell, because its model alone decides to
think, is looked up among the marks that models commonly use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtp_cli.conversation.forms import FittedTemplate, Place
from mtp_cli.conversation.reasoning import Marks
from mtp_cli.conversation.template import Message

QUESTION = Message(role="user", content="Qzwquestionqjx")
_ANSWER, _THOUGHT = "Qzwanswerqjx", "Qzwthoughtqjx"
_PLACES: tuple[Place, ...] = ("reasoning_content", "thinking", "reasoning", "parts")

# Some templates show reasoning only where thinking is on; others do not know these variables.
_ON: Mapping[str, Any] = {"enable_thinking": True, "thinking": True}
_OFF: Mapping[str, Any] = {"enable_thinking": False, "thinking": False}

COMMON = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
"""(open, close) that models put around reasoning; they count where an answer begins with them."""

_PHRASES = (
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("Here is my thought process:", "Here is my response:"),
)
"""The same in words, which count only where the template has them too."""

_WRAPPERS = (
    ("<response>", "</response>"),
    ("<answer>", "</answer>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
)
"""(open, close) around what is said after reasoning, where template or vocabulary has them."""

_HARMONY = Marks(
    pairs=(("", "<|end|>"),),
    ends=("<|end|>",),
    headers=(("<|channel|>", "<|message|>"), ("<|start|>", "<|message|>")),
    channels=("analysis",),
)
"""Messages in channels, as gpt-oss says them; there are more channels than its template writes."""

_OF_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
_MARK = re.compile(r"<[^<>\s][^<>]*>|\[[^\[\]\s][^\[\]]*\]|◁[^◁▷]+▷")


@dataclass(frozen=True)
class Reasoning:
    """What a template tells of reasoning.

    marks:  what an answer is split by
    place:  where the template takes reasoning; None for not at all
    wraps:  (open, close) that put reasoning into the content, for a template that takes it out
    inside: what follows a question in a prompt that has opened reasoning
    header: what the model says before content that has no reasoning
    opening, between: what it says before reasoning and between reasoning and content
    """

    marks: Marks = field(default_factory=Marks)
    place: Place | None = None
    wraps: tuple[str, str] | None = None
    inside: str = ""
    header: str = ""
    opening: str = ""
    between: str = ""

    def closers(self, tail: str) -> tuple[str, ...]:
        """The marks that end the reasoning that a prompt has opened; none where it has not.

        tail: what follows the last question in the prompt
        """
        tail, inside = tail.strip(), self.inside.strip()
        closes = tuple(close for _open, close in self.marks.pairs)
        if inside and tail.startswith(inside):
            rest = tail[len(inside) :]
            return () if any(close in rest for close in closes) else closes[:1]
        opened, closer = max(
            ((tail.rfind(open_), close) for open_, close in self.marks.pairs if open_),
            default=(-1, ""),
        )
        is_closed = opened < 0 or closer in tail[opened:]
        return () if is_closed else (closer,)


@dataclass(frozen=True)
class _Written:
    """An answer with reasoning as a template writes it: what is around the two texts."""

    before: str
    between: str
    behind: str
    place: Place
    variables: Mapping[str, Any]


def find(
    template: FittedTemplate, variables: Mapping[str, Any], is_token: Callable[[str], bool]
) -> Reasoning:
    """Ask the template; `variables` are the user's, `is_token` asks the vocabulary."""
    written = _written(template, variables)
    if written is not None:
        own, inside = _marks_of(written, template), written.before
    else:
        own, inside = _prompted(template, variables), ""

    def is_known(mark: str) -> bool:
        return mark in template.template.source or is_token(mark)

    marks = _with_common(own, is_known)
    taken = written.place if written else None
    wraps = _taken_out(template, variables, marks) if taken is None else None
    opening, between = _said_around(written, marks)
    return Reasoning(
        marks=marks,
        place=taken,
        wraps=wraps,
        inside=inside,
        header=_header(template, written.variables if written else variables, own),
        opening=opening,
        between=between,
    )


def _said_around(written: _Written | None, marks: Marks) -> tuple[str, str]:
    """What a model says before reasoning, and between it and content."""
    open_, close = next(pair for pair in marks.pairs if pair[0])
    if written is None or open_ not in written.before:
        return f"{open_}\n", f"\n{close}\n\n"
    return open_ + written.before.rpartition(open_)[2], written.between


def _header(template: FittedTemplate, variables: Mapping[str, Any], own: Marks) -> str:
    """What a model says before content that has no reasoning."""
    prompt = tail_of(template, variables) or ""
    close = own.pairs[0][1] if own.pairs else ""
    return "".join(_content_marks(_plain(template, variables), prompt, close))


def tail_of(template: FittedTemplate, variables: Mapping[str, Any]) -> str | None:
    """What a prompt says after its question; None where the template refuses."""
    rendered = template.probe([QUESTION], variables)
    return None if rendered is None else rendered.rpartition(QUESTION["content"])[2]


def _with_common(own: Marks, is_known: Callable[[str], bool]) -> Marks:
    wrappers = [pair for pair in _WRAPPERS if is_known(pair[0])]
    phrases = [pair for pair in _PHRASES if any(map(is_known, pair))]
    harmony = _HARMONY if is_known("<|channel|>") and is_known("<|message|>") else Marks()
    return Marks(
        pairs=_once((*own.pairs, *COMMON, *phrases, *harmony.pairs)),
        contents=_once((*own.contents, *(open_ for open_, _close in wrappers))),
        ends=_once((*own.ends, *(close for _open, close in wrappers), *harmony.ends)),
        headers=harmony.headers,
        channels=harmony.channels,
    )


def _once(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(items))


def _written(template: FittedTemplate, variables: Mapping[str, Any]) -> _Written | None:
    """An answer with reasoning as the template writes it; None where it leaves reasoning out."""
    answer = Message(role="assistant", content=_ANSWER, reasoning=_THOUGHT)
    for more in ({}, _ON):
        given = {**more, **variables}
        for name in _PLACES:
            rendered = template.probe([QUESTION, answer], given, answering=False, place=name)
            texts = _around(rendered or "")
            if texts is not None:
                return _Written(*texts, name, given)
    return None


def _around(rendered: str) -> tuple[str, str, str] | None:
    """What is before, between and behind thought and answer, after the question."""
    before, thought, rest = rendered.rpartition(QUESTION["content"])[2].partition(_THOUGHT)
    between, answer, behind = rest.partition(_ANSWER)
    is_printed = re.search(r"""["'](type|thinking|reasoning|reasoning_content)["']""", before)
    return (before, between, behind) if thought and answer and not is_printed else None


def _marks_of(written: _Written, template: FittedTemplate) -> Marks:
    prompt = tail_of(template, written.variables) or ""
    plain = _plain(template, written.variables)
    close, header = _closing(written.between, prompt, plain)
    contents = (*_content_marks(plain, prompt, close), *_shorter(header, prompt))
    return Marks(
        pairs=((_opening(written.before, prompt), close),),
        contents=contents,
        ends=_ending(written.behind) if contents else (),
    )


def _plain(template: FittedTemplate, variables: Mapping[str, Any]) -> str:
    """What is between a question and an answer without reasoning."""
    answer = Message(role="assistant", content=_ANSWER)
    rendered = template.probe([QUESTION, answer], variables, answering=False) or ""
    return rendered.rpartition(QUESTION["content"])[2].partition(_ANSWER)[0]


def _opening(before: str, prompt: str) -> str:
    """What opens reasoning, if the model says it and not the prompt: else what it would be."""
    before, prompt = before.rstrip(), prompt.rstrip()
    said = prompt[len(before) :].strip() if prompt.startswith(before) else ""
    if said and not _MARK.search(said):  # the prompt begins the reasoning in words
        return said
    last = _last_mark(before)
    if before.endswith(last) and _OF_THOUGHT.search(last):
        return last
    if prompt.startswith(before):
        return ""
    if before.startswith(prompt):
        return before[len(prompt) :].strip()
    return _after_shared(before, prompt)


def _closing(between: str, prompt: str, plain: str) -> tuple[str, str]:
    """What ends reasoning, and the header of the content that may follow it."""
    between = between.strip()
    for start in [mark.start() for mark in _MARK.finditer(prompt)]:
        again = prompt[start:].strip()  # the content is a message of its own
        at = between.find(again)
        if at > 0:
            return between[:at].strip(), between[at:]
    head, tail = _shared_tail(between, plain.strip())
    return (head, tail) if head and tail else (between, "")


def _shorter(header: str, prompt: str) -> list[str]:
    """A header, and what is left of it where the prompt has said its beginning."""
    if not header:
        return []
    starts = [mark.start() for mark in _MARK.finditer(prompt)]
    begun = next((p for p in (prompt[at:].strip() for at in starts) if header.startswith(p)), "")
    return [mark for mark in (header, header[len(begun) :].strip()) if mark]


def _content_marks(plain: str, prompt: str, close: str = "") -> list[str]:
    """What a model says before an answer without reasoning, if anything."""
    if plain.startswith(prompt):
        said = plain[len(prompt) :]
        mark = said.strip() if _MARK.search(said) else said.lstrip()
    else:
        mark = _after_shared(plain, prompt)
        mark = mark if _MARK.match(mark) and not prompt.rstrip().endswith(mark) else ""
    closes = [close] if close else [close for _open, close in COMMON]
    return [mark] if mark.strip() and not any(close in mark for close in closes) else []


def _ending(behind: str) -> tuple[str, ...]:
    """What ends the content before the mark that ends the turn."""
    marks = list(_MARK.finditer(behind))
    return (behind[: marks[-1].start()].strip(),) if len(marks) > 1 else ()


def _prompted(template: FittedTemplate, variables: Mapping[str, Any]) -> Marks:
    """Marks that only the prompt for an answer shows, most often where thinking can be off."""
    on = (tail_of(template, {**_ON, **variables}) or "").rstrip()
    off = (tail_of(template, {**_OFF, **variables}) or "").rstrip()
    pair = _pair_of(on, off)
    contents = _content_marks(_plain(template, variables), tail_of(template, variables) or "")
    return Marks(pairs=(pair,) if pair else (), contents=tuple(contents))


def _pair_of(on: str, off: str) -> tuple[str, str] | None:
    """From two prompts, thinking on and off: the one that is longer has a mark more, or both."""
    if off.startswith(on) and on != off:
        more = off[len(on) :].strip()
        close = _last_mark(more)
        open_ = more[: more.rfind(close)].strip() if close else ""
        return (open_ or _last_mark(on), close) if close else None
    if on.startswith(off) and on != off:
        open_ = on[len(off) :].strip()
        return (open_, _closing_of(open_)) if _MARK.fullmatch(open_) else None
    return None


def _closing_of(mark: str) -> str:
    """The usual counterpart of a mark."""
    known = dict(COMMON).get(mark)
    return known or mark[0] + "/" + mark[1:]


def _taken_out(
    template: FittedTemplate, variables: Mapping[str, Any], marks: Marks
) -> tuple[str, str] | None:
    """The pair that a template looks for in answers, where it keeps some reasoning: else None.

    Answers go to it without reasoning where all of it would be taken out again.
    """
    later = Message(role="assistant", content="Qzwlaterqjx")
    for open_, close in marks.pairs:
        if not open_ or close not in template.template.source:
            continue
        content = f"{open_}\n{_THOUGHT}\n{close}\n\n{_ANSWER}"
        newest = [QUESTION, Message(role="assistant", content=content), QUESTION]
        older = [*newest, later, QUESTION]
        usual = template.probe(older, {}, is_checked=False) or _THOUGHT
        kept = [template.probe(talk, variables, is_checked=False) or "" for talk in (newest, older)]
        if _ANSWER in usual and _THOUGHT not in usual and any(_THOUGHT in text for text in kept):
            return open_, close
    return None


def _segments(text: str) -> list[tuple[int, str]]:
    """(where it begins, text) of each mark and of what is between marks, blanks left out."""
    found, at = list[tuple[int, str]](), 0
    for mark in (*_MARK.finditer(text), None):
        start = len(text) if mark is None else mark.start()
        if text[at:start].strip():
            found.append((at, text[at:start].strip()))
        if mark is not None:
            found.append((start, mark.group()))
            at = mark.end()
    return found


def _after_shared(text: str, other: str) -> str:
    """`text` without the marks and words that both begin with."""
    ours, theirs = _segments(text), _segments(other)
    n = _n_equal(ours, theirs)
    return text[ours[n][0] :].strip() if n < len(ours) else ""


def _shared_tail(text: str, other: str) -> tuple[str, str]:
    """`text` before the marks and words that both end with, and those."""
    ours, theirs = _segments(text), _segments(other)
    n = _n_equal(ours[::-1], theirs[::-1])
    at = ours[-n][0] if n else len(text)
    return text[:at].strip(), text[at:].strip()


def _n_equal(ours: list[tuple[int, str]], theirs: list[tuple[int, str]]) -> int:
    n = 0
    for (_at, one), (_there, other) in zip(ours, theirs, strict=False):
        if one != other:
            break
        n += 1
    return n


def _last_mark(text: str) -> str:
    found: list[str] = _MARK.findall(text)
    return found[-1] if found else ""
