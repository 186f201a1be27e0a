"""Every template of a folder, such as llama.cpp's models/templates: rendered, and answers split.

Opt in with `-m templates` and MTP_TEMPLATES=FOLDER: the templates are other people's, and not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.conversation import marks
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.reasoning import Splitter
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.errors import MtpError

_FOLDER = os.environ.get("MTP_TEMPLATES", "")
_FILES = sorted(Path(_FOLDER).glob("*.jinja")) if _FOLDER else []

pytestmark = [
    pytest.mark.templates,
    pytest.mark.skipif(not _FILES, reason="MTP_TEMPLATES names no folder with *.jinja files"),
]
each_template = pytest.mark.parametrize(
    "path", _FILES or [Path("none")], ids=lambda path: path.stem
)

SYSTEM, QUESTION, LATER = "Qsystemq, be kind.", "Qquestionq, is it?", "Qlaterq, then?"
THOUGHT, ANSWER = "Qthoughtq, I think.", "Qanswerq, it is."
ASKED = [Message(role="user", content=QUESTION)]
WAYS: Sequence[Mapping[str, Any]] = (
    {},
    {"enable_thinking": True, "thinking": True},
    {"reasoning_effort": "high", "thinking_mode": "enabled"},
    {"enable_thinking": False, "thinking": False, "thinking_budget": 0},
)
# The line that says why a template of that folder cannot be used as it is.
REFUSED = {"fireworks-ai-llama-3-firefunction-v2": "--template-var functions=VALUE"}


def fitted(path: Path) -> FittedTemplate:
    source = path.read_text(encoding="utf-8")
    return FittedTemplate(ChatTemplate(source, bos="<s>", eos="</s>"))


@each_template
def test_all_that_is_given_is_in_the_prompt_or_a_line_says_why_not(path: Path) -> None:
    template = fitted(path)
    found = marks.find(template, {}, lambda _text: False)
    template.place, template.wraps = found.place, found.wraps
    talk = [
        Message(role="system", content=SYSTEM),
        *ASKED,
        Message(role="assistant", content=ANSWER, reasoning=THOUGHT),
        Message(role="user", content=LATER),
    ]
    if path.stem in REFUSED:
        with pytest.raises(MtpError, match=REFUSED[path.stem]):
            template.render(talk, {})
        return
    prompt = template.render(talk, {})
    places = [prompt.find(text) for text in (SYSTEM, QUESTION, ANSWER, LATER)]
    assert -1 not in places
    assert places[1:] == sorted(places[1:])  # Mistral's put the system prompt before the last one
    assert "'text'" not in prompt
    assert template.notes == (
        [
            "the chat template has no place for a system prompt: it goes in "
            "front of the first question"
        ]
        if "gemma-2" in path.stem
        else []
    )


@each_template
@pytest.mark.parametrize("variables", WAYS, ids=["usual", "on", "effort", "off"])
@pytest.mark.parametrize("thought", ["", THOUGHT], ids=["plain", "reasoned"])
def test_an_answer_is_split(path: Path, variables: Mapping[str, Any], thought: str) -> None:
    if path.stem in REFUSED:
        return
    template = fitted(path)
    given = {name: v for name, v in variables.items() if name in template.template.names}
    found = marks.find(template, given, lambda _text: False)
    tail = template.tail(ASKED, given)
    said = as_written(template, found, given, thought)
    if said is None:  # what the template writes does not follow a prompt that has thinking off
        return
    splitter = Splitter(found.marks, found.closers(tail))
    parts = [part for letter in said for part in splitter.feed(letter)] + splitter.finish()
    heard = {
        kind: "".join(part.text for part in parts if part.kind == kind).lstrip()
        for kind in ("reasoning", "content")
    }
    assert heard == {"reasoning": thought, "content": ANSWER}, (said, tail)


def as_written(
    template: FittedTemplate, found: marks.Reasoning, given: Mapping[str, Any], thought: str
) -> str | None:
    """What the model says, as the template writes it, else with the marks that it is known by."""
    prompt = template.render(ASKED, given).rstrip()
    closers = found.closers(prompt.rpartition(QUESTION)[2])
    answer = Message(role="assistant", content=ANSWER)
    if thought:
        answer["reasoning"] = thought
    written = template.probe([*ASKED, answer], given, answering=False, place=found.place) or ""
    if written.startswith(prompt) and thought in written:
        said = written[len(prompt) : written.rindex(ANSWER) + len(ANSWER)]
        return said if not closers or closers[0] in said else None
    if not thought:
        return None if closers else ANSWER
    open_, close = next(pair for pair in found.marks.pairs if pair[0])
    if closers:
        return f"{thought}\n{closers[0]}\n{ANSWER}"
    is_off = close in prompt.rpartition(QUESTION)[2]
    return None if is_off else f"{open_}\n{thought}\n{close}\n\n{ANSWER}"
