"""The form in which a template takes a conversation: found by trying, and by looking for the texts.

A template that drops what it is given says nothing. So words of our own take the place of each
text, and where one of them does not come out, the next form is tried. Knows nothing of token ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtp_cli.conversation.template import ChatTemplate, Message, Role
from mtp_cli.errors import MtpError

Place = Literal["reasoning_content", "thinking", "reasoning", "parts"]

_WHOLE = "Qzw{}qjx"  # no text, no template and no spelling of a token holds it by chance
_REASONED = "Qzw{}vkx"
_NAMES: Mapping[Role, str] = {
    "system": "the system prompt",
    "user": "a question",
    "assistant": "an answer",
    "tool": "what a tool gave",
}


@dataclass(frozen=True)
class Form:
    """How messages are put to a template.

    system:    a string, a list of parts, or text in front of the first question
    user, assistant: a string or a list of parts
    no_tools:  what stands for "no tools": None, an empty list, or no such variable at all
    """

    system: Literal["text", "parts", "question"] = "text"
    user: Literal["text", "parts"] = "text"
    assistant: Literal["text", "parts"] = "text"
    no_tools: Literal["none", "empty", "undefined"] = "none"

    @property
    def context(self) -> dict[str, Any]:
        if self.no_tools == "undefined":
            return {}
        nothing: list[Any] | None = None if self.no_tools == "none" else []
        return {"tools": nothing, "documents": nothing}


_TEXT_OR_PARTS: tuple[Literal["text", "parts"], ...] = ("text", "parts")
_SYSTEM: tuple[Literal["text", "parts", "question"], ...] = ("text", "parts", "question")
_NO_TOOLS: tuple[Literal["none", "empty", "undefined"], ...] = ("none", "empty", "undefined")


def _distance(form: Form) -> tuple[bool, int]:
    """From the usual form; moving the system prompt is the last resort."""
    n_differing = sum(vars(form)[name] != value for name, value in vars(Form()).items())
    return form.system == "question", n_differing


_FORMS = sorted(
    itertools.starmap(Form, itertools.product(_SYSTEM, _TEXT_OR_PARTS, _TEXT_OR_PARTS, _NO_TOOLS)),
    key=_distance,
)


class FittedTemplate:
    """A template, and the form that it was found to take.

    place: where it takes what an assistant thought; None for not at all
    wraps: (open, close) that put it into the content, for a template that looks for them there
    notes: what a user should know of how the last conversation was put, a line each
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.place: Place | None = None
        self.wraps: tuple[str, str] | None = None
        self.notes: list[str] = []
        self._form = Form()

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """The prompt, with every text in it; MtpError, which says what to do, where that fails."""
        words = [_words(message, i) for i, message in enumerate(messages)]
        form = self._fitting(words, variables)
        try:
            rendered = self._apply(messages, form, variables, place=self.place, wraps=self.wraps)
        except MtpError as error:  # it takes the form, and not what is said in it
            raise _refusal(error) from error
        self.notes = list(_notes(messages, form, rendered))
        return rendered

    def tail(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """What the prompt for `messages` says after its last text."""
        *before, last = messages
        marked = Message(role=last["role"], content=last["content"] + _WHOLE)
        if "more" in last:
            marked["more"] = last["more"]
        rendered = self._apply(
            [*before, marked], self._form, variables, place=self.place, wraps=self.wraps
        )
        return rendered.rpartition(_WHOLE)[2]

    def probe(
        self,
        words: Sequence[Message],
        variables: Mapping[str, Any],
        *,
        answering: bool = True,
        place: Place | None = None,
        is_checked: bool = True,
    ) -> str | None:
        """The same for words that no template holds; None where it refuses, or leaves one out."""
        try:
            form = self._fitting(words, variables) if is_checked else self._form
            return self._apply(words, form, variables, answering=answering, place=place)
        except MtpError:
            return None

    def _fitting(self, words: Sequence[Message], variables: Mapping[str, Any]) -> Form:
        problems = []
        for form in (self._form, *_FORMS):
            problem = self._problem(words, form, variables)
            if problem is None:
                self._form = form
                return form
            problems.append(problem)
        # The usual form's: the first may be an earlier finding.
        raise self._refused(words, problems[1], variables)

    def _refused(
        self, words: Sequence[Message], problem: MtpError | Message, variables: Mapping[str, Any]
    ) -> MtpError:
        """Why no form fits; what a system prompt has no part in is said without it."""
        first, *rest = words
        if first["role"] != "system" or not rest:
            return _refusal(problem)
        problems = [self._problem(rest, form, variables) for form in _FORMS]
        if None in problems:
            return _refusal(problem, '--system "" leaves out the system prompt')
        return _refusal(problems[0] or problem)

    def _problem(
        self, words: Sequence[Message], form: Form, variables: Mapping[str, Any]
    ) -> MtpError | Message | None:
        """What is wrong with a form: an error, or the first message that does not come out."""
        try:
            rendered = self._apply(words, form, variables, place=self.place, wraps=self.wraps)
        except MtpError as error:
            return error
        for message in filter(lambda message: message["content"], words):
            before, found, _after = rendered.casefold().partition(message["content"].casefold())
            if not found or _is_printed_list(before):
                return message
        return None

    def _apply(
        self,
        messages: Sequence[Message],
        form: Form,
        variables: Mapping[str, Any],
        *,
        answering: bool = True,
        place: Place | None = None,
        wraps: tuple[str, str] | None = None,
    ) -> str:
        placed = _placed(messages, form)
        dressed = [_dressed(message, form, place, wraps) for message in placed]
        return self.template.apply(dressed, answering=answering, **{**form.context, **variables})


def _words(message: Message, i: int) -> Message:
    """A message of the same kind in words of our own."""
    more = message.get("more", {})
    # What is said beside a call is no part of it, and many templates leave it out.
    content = _WHOLE.format(i) if message["content"] and "tool_calls" not in more else ""
    words = Message(role=message["role"], content=content)
    if more:
        words["more"] = more
    if "reasoning" in message:
        words["reasoning"] = _REASONED.format(i)
    return words


def _is_printed_list(before: str) -> bool:
    """Whether what comes before a text shows that a list of parts was printed as it is."""
    return before.endswith(("'text': '", '"text": "', '"text":"'))


def _placed(messages: Sequence[Message], form: Form) -> list[Message]:
    if form.system != "question" or len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, question, *rest = messages
    content = f"{system['content']}\n\n{question['content']}".lstrip("\n")
    return [Message(role=question["role"], content=content), *rest]


def _dressed(
    message: Message, form: Form, place: Place | None, wraps: tuple[str, str] | None
) -> dict[str, Any]:
    role, content, reasoning = message["role"], message["content"], message.get("reasoning")
    more = dict(message.get("more", {}))
    if reasoning and place == "parts":
        thought = {"type": "thinking", "thinking": reasoning, "closed": True}
        return {"role": role, "content": [thought, {"type": "text", "text": content}], **more}
    if reasoning and wraps and not place:
        content = f"{wraps[0]}\n{reasoning}\n{wraps[1]}\n\n{content}"
    if reasoning and place:
        more[place] = reasoning
    is_parts = vars(form).get(role) == "parts"
    return {
        "role": role,
        "content": [{"type": "text", "text": content}] if is_parts else content,
        **more,
    }


def _refusal(problem: MtpError | Message, *ways: str) -> MtpError:
    listed = ", ".join(("--chat-template gives another", "--raw does without", *ways))
    if isinstance(problem, MtpError):
        return MtpError(f"{problem} ({listed})")
    return MtpError(f"the chat template leaves out {_NAMES[problem['role']]} ({listed})")


def _notes(messages: Sequence[Message], form: Form, rendered: str) -> list[str]:
    notes = []
    first = messages[0]
    if form.system == "question" and first["role"] == "system" and first["content"]:
        notes.append(
            "the chat template has no place for a system prompt: it goes in front of the first "
            "question"
        )
    squeezed = "".join(rendered.split())
    changed = [
        message
        for message in messages
        if "more" not in message and "".join(message["content"].split()) not in squeezed
    ]
    notes += [f"the chat template changes {_NAMES[m['role']]}" for m in changed]
    return list(dict.fromkeys(notes))
