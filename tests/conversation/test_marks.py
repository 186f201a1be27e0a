"""How templates mark reasoning, found by rendering them: no table of models."""

from __future__ import annotations

from typing import Any

import pytest

from mtp_cli.conversation import marks
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.reasoning import Splitter
from mtp_cli.conversation.template import ChatTemplate, Message

LOOP = "{% for m in messages %}"
ASK = "{% if add_generation_prompt %}"
TURNS = LOOP + "<|im_start|>{{ m.role }}\n"
ENDS = "{{ m.content }}<|im_end|>\n{% endfor %}"
OPENED = ASK + "<|im_start|>assistant\n"

# The kinds of llama.cpp's folder, in the fewest words: where reasoning goes, how it is marked.
FIELD = TURNS + (
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}" + ENDS
)
SWITCHED = (
    FIELD
    + OPENED
    + (
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
        "{% endif %}{% endif %}"
    )
)
ALWAYS = FIELD + OPENED + "<think>\n{% endif %}"
ONLY_THE_PROMPT = TURNS + ENDS + OPENED + "<think>\n{% endif %}"
EMPTY_PAIR = (
    TURNS
    + ENDS
    + OPENED
    + ("{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}{% endif %}")
)
CLOSED_WHEN_OFF = TURNS.replace("<|im_start|>", "<|Bot|>") + (
    "{% if m.role == 'assistant' %}"
    "{{ '<think>' + m.reasoning_content if m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% endfor %}"
    + ASK
    + "<|Bot|>assistant\n{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
IN_PARTS = LOOP + (
    "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.content is string %}"
    "{{ m.content }}</s>{% else %}{% for p in m.content %}{% if p.type == 'thinking' %}"
    "[THINK]{{ p.thinking }}[/THINK]{% else %}{{ p.text }}{% endif %}{% endfor %}</s>{% endif %}"
    "{% endfor %}"
)
CHANNELS = LOOP + (
    "{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}<|start|>assistant<|channel|>"
    "analysis<|message|>{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final"
    "<|message|>{{ m.content }}<|end|>{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "<|end|>{% endif %}{% endfor %}" + ASK + "<|start|>assistant{% endif %}"
)
MESSAGES = LOOP + (
    "{% if m.reasoning %}<|begin|>{{ m.role }}<|think|>{{ m.reasoning }}<|end|>{% endif %}"
    "<|begin|>{{ m.role }}<|content|>{{ m.content }}<|end|>{% endfor %}"
    + ASK
    + "<|begin|>assistant{% endif %}"
)
WRAPPED = LOOP + (
    "<|TURN|><|{{ m.role }}|>{% if m.role == 'assistant' %}{% if m.thinking %}<|START_THINKING|>"
    "{{ m.thinking }}<|END_THINKING|>{% endif %}<|START_TEXT|>{{ m.content }}<|END_TEXT|>"
    "{% else %}{{ m.content }}{% endif %}<|END|>{% endfor %}"
    + ASK
    + "<|TURN|><|assistant|>{{ '<|START_THINKING|>' if reasoning is not defined }}{% endif %}"
)
IN_WORDS = LOOP + (
    "<|begin_{{ m.role }}|>\n{% if m.reasoning_content %}{{ m.reasoning_content }}\n"
    "[BEGIN FINAL RESPONSE]\n{% endif %}{{ m.content }}\n<|end|>\n{% endfor %}"
    + ASK
    + "<|begin_assistant|>\nHere are my reasoning steps:\n{% endif %}"
)
KEEPS_THE_NEWEST = LOOP + (
    "<|im_start|>{{ m.role }}\n{% set last = loop.index0 == messages | length - 2 %}"
    "{{ m.content if last else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    + OPENED
    + "{% endif %}"
)
TAKES_ALL_OUT = KEEPS_THE_NEWEST.replace("m.content if last else ", "")
SAYS_NOTHING = TURNS + ENDS + OPENED + "{% endif %}"
HEADER = LOOP + (
    "<|start|>{{ m.role }}\n>>>{{ 'all\n' if m.role == 'assistant' }}{{ m.content }}{% endfor %}"
    + ASK
    + "<|start|>assistant\n>>>{% endif %}"
)


def fitted(source: str) -> FittedTemplate:
    return FittedTemplate(ChatTemplate(source, bos="<s>", eos="</s>"))


def found(source: str, **variables: Any) -> tuple[marks.Reasoning, tuple[str, ...]]:
    """What is found, and what closes the reasoning that the prompt has opened."""
    template = fitted(source)
    reasoning = marks.find(template, variables, lambda _text: False)
    return reasoning, reasoning.closers(template.tail([marks.QUESTION], variables))


@pytest.mark.parametrize(
    ("source", "place", "pair"),
    [
        (FIELD, "reasoning_content", ("<think>", "</think>")),
        (SWITCHED, "reasoning_content", ("<think>", "</think>")),
        (ALWAYS, "reasoning_content", ("<think>", "</think>")),
        (ONLY_THE_PROMPT, None, ("<think>", "</think>")),
        (EMPTY_PAIR, None, ("<|channel>thought", "<channel|>")),
        (CLOSED_WHEN_OFF, "reasoning_content", ("<think>", "</think>")),
        (IN_PARTS, "parts", ("[THINK]", "[/THINK]")),
        (CHANNELS, "thinking", ("<|channel|>analysis<|message|>", "<|end|>")),
        (MESSAGES, "reasoning", ("<|think|>", "<|end|>")),
        (WRAPPED, "thinking", ("<|START_THINKING|>", "<|END_THINKING|>")),
        (
            IN_WORDS,
            "reasoning_content",
            ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
        ),
    ],
)
def test_marks_and_place_come_from_what_the_template_writes(
    source: str, place: str | None, pair: tuple[str, str]
) -> None:
    reasoning, _closers = found(source)
    assert reasoning.place == place
    assert reasoning.marks.pairs[0] == pair


@pytest.mark.parametrize(
    ("source", "variables", "closers"),
    [
        (SWITCHED, {}, ()),
        (SWITCHED, {"enable_thinking": False}, ()),
        (ALWAYS, {}, ("</think>",)),
        (ONLY_THE_PROMPT, {}, ("</think>",)),
        (EMPTY_PAIR, {}, ()),
        (EMPTY_PAIR, {"enable_thinking": True}, ()),
        (CLOSED_WHEN_OFF, {}, ()),
        (CLOSED_WHEN_OFF, {"thinking": True}, ("</think>",)),
        (CHANNELS, {}, ()),
        (MESSAGES, {}, ()),
        (WRAPPED, {}, ("<|END_THINKING|>",)),
        (WRAPPED, {"reasoning": False}, ()),
        (IN_WORDS, {}, ("[BEGIN FINAL RESPONSE]",)),
        (SAYS_NOTHING, {}, ()),
    ],
)
def test_an_answer_begins_inside_reasoning_where_its_prompt_opened_it(
    source: str, variables: dict[str, Any], closers: tuple[str, ...]
) -> None:
    assert found(source, **variables)[1] == closers


@pytest.mark.parametrize(
    ("source", "said", "parts"),
    [
        (CHANNELS, "<|channel|>final<|message|>Hi", ("", "Hi")),
        (CHANNELS, "<|channel|>commentary<|message|>So<|end|>", ("", "So")),
        (MESSAGES, "<|think|>Hm<|end|><|begin|>assistant<|content|>Hi", ("Hm", "Hi")),
        (MESSAGES, "<|content|>Hi", ("", "Hi")),
        (WRAPPED, "Hm<|END_THINKING|><|START_TEXT|>Hi<|END_TEXT|>", ("Hm", "Hi")),
        (HEADER, "all\nHi all", ("", "Hi all")),
        (HEADER, "all is well", ("", "all is well")),
        (IN_WORDS, "1. Hm\n[BEGIN FINAL RESPONSE]\nHi\n[END FINAL RESPONSE]", ("1. Hm", "Hi\n")),
        (SAYS_NOTHING, "<think>\nHm\n</think>\nHi", ("Hm", "Hi")),
        (SAYS_NOTHING, "[THINK]Hm[/THINK]Hi", ("Hm", "Hi")),
        (SAYS_NOTHING, "◁think▷Hm◁/think▷Hi", ("Hm", "Hi")),
        (SAYS_NOTHING, "<response>Hi</response>", ("", "<response>Hi</response>")),
        (
            SAYS_NOTHING + "{# <response></response> #}",
            "<think>Hm</think><response>Hi</response>",
            ("Hm", "Hi"),
        ),
    ],
)
def test_headers_and_wrappers_around_content_are_no_text(
    source: str, said: str, parts: tuple[str, str]
) -> None:
    reasoning, closers = found(source)
    splitter = Splitter(reasoning.marks, closers)
    heard = [part for letter in said for part in splitter.feed(letter)] + splitter.finish()
    kinds = ("reasoning", "content")
    assert parts == tuple("".join(p.text for p in heard if p.kind == kind) for kind in kinds)


def test_channels_are_known_by_the_vocabulary_where_the_template_does_not_write_them() -> None:
    template = fitted(SAYS_NOTHING)
    spelled = {"<|channel|>", "<|message|>"}
    assert marks.find(template, {}, spelled.__contains__).marks.headers
    assert not marks.find(template, {}, lambda _text: False).marks.headers


@pytest.mark.parametrize(
    ("source", "wraps"),
    [
        (KEEPS_THE_NEWEST, ("<think>", "</think>")),
        (TAKES_ALL_OUT, None),  # and so it need not be given
        (SAYS_NOTHING, None),  # it would keep all of it, for ever
        (FIELD, None),
    ],
)
def test_reasoning_goes_back_inside_the_content_only_where_some_of_it_is_kept(
    source: str, wraps: tuple[str, str] | None
) -> None:
    assert found(source)[0].wraps == wraps


def test_a_message_printed_whole_shows_no_marks() -> None:
    reasoning, closers = found("{% for m in messages %}{{ m | tojson }}{% endfor %}")
    assert reasoning.place is None
    assert closers == ()
    assert reasoning.marks.pairs[0] == marks.COMMON[0]


def test_a_conversation_s_own_words_may_switch_thinking() -> None:
    """As Nemotron's: the prompt that is asked with counts, not one of ours."""
    source = (
        TURNS
        + ENDS
        + OPENED
        + (
            "{{ '<think></think>' if '/no_think' in messages[0].content else '<think>\n' }}"
            "{% endif %}"
        )
    )
    template = fitted(source)
    reasoning = marks.find(template, {}, lambda _text: False)
    asked = [Message(role="user", content="hi")]
    quiet = [Message(role="system", content="/no_think"), *asked]
    assert reasoning.closers(template.tail(asked, {})) == ("</think>",)
    assert reasoning.closers(template.tail(quiet, {})) == ()
