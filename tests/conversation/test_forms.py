"""Templates that drop or refuse what they are given: another form is tried, or a line says so."""

from __future__ import annotations

import pytest

from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.errors import MtpError

SYSTEM = Message(role="system", content="Be terse.")
QUESTION = Message(role="user", content="hi")
ANSWER = Message(role="assistant", content="Hello.")
AGAIN = Message(role="user", content="again")
IN_FRONT = (
    "the chat template has no place for a system prompt: it goes in front of the first question"
)

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}<assistant>"
)
SYSTEM_IN_PARTS = (
    "{% if messages[0].role == 'system' %}<system>{{ messages[0].content[0].text }}"
    "{% set messages = messages[1:] %}{% endif %}" + PLAIN
)
ANSWERS_IN_PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{{ m.content[0].text }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}<assistant>"
)
NO_SYSTEM = PLAIN.replace(
    "<{{ m.role }}>", "{% if m.role == 'system' %}{% continue %}{% endif %}<{{ m.role }}>"
)
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
)
NEEDS_TOOLS = (
    "{% for t in tools %}{{ t }}{% endfor %}{{ 'TOOLS' if tools is defined and not tools }}" + PLAIN
)
NO_TOOLS_DEFINED = "{% if tools is defined %}{{ tools.names() }}{% endif %}" + PLAIN


def fitted(source: str) -> FittedTemplate:
    return FittedTemplate(ChatTemplate(source, bos="<s>", eos="</s>"))


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        (PLAIN, "<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
        (PARTS, "<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
        (SYSTEM_IN_PARTS, "<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
        (ANSWERS_IN_PARTS, "<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
        (NO_SYSTEM, "<user>Be terse.\n\nhi<assistant>Hello.<user>again<assistant>"),
        (REFUSES_SYSTEM, "<user>Be terse.\n\nhi<assistant>Hello.<user>again<assistant>"),
        (NEEDS_TOOLS, "TOOLS<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
        (NO_TOOLS_DEFINED, "<system>Be terse.<user>hi<assistant>Hello.<user>again<assistant>"),
    ],
)
def test_every_text_is_in_the_prompt_in_the_form_that_the_template_takes(
    source: str, prompt: str
) -> None:
    template = fitted(source)
    assert template.render([SYSTEM, QUESTION, ANSWER, AGAIN], {}) == prompt
    in_front = "<user>Be terse." in prompt
    assert template.notes == ([IN_FRONT] if in_front else [])


def test_a_form_found_once_is_kept_and_given_up_where_it_fails_later() -> None:
    template = fitted(ANSWERS_IN_PARTS)
    assert template.render([QUESTION], {}) == "<user>hi<assistant>"
    again = template.render([QUESTION, ANSWER, AGAIN], {})
    assert again == "<user>hi<assistant>Hello.<user>again<assistant>"
    assert template.render([QUESTION], {}) == "<user>hi<assistant>"


def test_without_a_system_prompt_nothing_is_said_of_one() -> None:
    template = fitted(NO_SYSTEM)
    template.render([QUESTION], {})
    assert template.notes == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("<user>hello<assistant>", "leaves out a question"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "an answer"),
        ("{{ raise_exception('not\nfor you') }}", "refuses: not for you"),
        (
            "{{ functions }}{{ functions.all }}",
            "needs a variable functions: .*--template-var functions=",
        ),
        (
            "{{ messages[0].content }}{{ messages[9].content }}",
            "reads what is not there, in line 1",
        ),
        ("{{ messages[-1].content[:4] }}", "leaves out a question"),
    ],
)
def test_where_nothing_helps_one_line_says_what_to_do(source: str, said: str) -> None:
    template = fitted(source)
    talk = [QUESTION, ANSWER, AGAIN]
    with pytest.raises(MtpError, match=said) as caught:
        template.render(talk, {})
    line = str(caught.value)
    assert "--chat-template" in line
    assert "--raw" in line
    assert "\n" not in line
    assert "--system" not in line
    with pytest.raises(MtpError) as caught:  # the same without one: that is no advice
        template.render([SYSTEM, *talk], {})
    assert str(caught.value) == line


def test_to_do_without_the_system_prompt_is_advised_where_it_helps() -> None:
    """Whoever set it: the option, the built-in model's settings, a file."""
    short = "{% for m in messages %}{{ m.content[:8] if m.role == 'user' }}{% endfor %}"
    template = fitted(short)
    assert template.render([QUESTION], {}) == "hi"
    with pytest.raises(MtpError, match=r'leaves out the system prompt .*, --system "" leaves out'):
        template.render([SYSTEM, QUESTION], {})
    assert template.render([Message(role="system", content=""), QUESTION], {}) == "hi"


def test_what_it_refuses_only_in_these_words_is_refused_with_advice() -> None:
    picky = "{% if 'bad' in messages[0].content %}{{ raise_exception('a bad word') }}{% endif %}"
    template = fitted(picky + PLAIN)
    with pytest.raises(MtpError, match=r"refuses: a bad word \(--chat-template gives another"):
        template.render([Message(role="user", content="bad")], {})


@pytest.mark.parametrize("changed", ["upper", "lower", "title", "capitalize", "swapcase()"])
def test_a_template_that_changes_the_case_leaves_nothing_out(changed: str) -> None:
    said = "m.content.swapcase()" if "(" in changed else f"m.content | {changed}"
    source = PLAIN.replace(
        "{{ m.content }}", f"{{{{ {said} if m.role == 'system' else m.content }}}}"
    )
    template = fitted(source)
    system = Message(role="system", content="Be TERSE, friend.")
    assert template.render([system, QUESTION], {}).casefold() == (
        "<system>be terse, friend.<user>hi<assistant>"
    )
    assert template.notes == ["the chat template changes the system prompt"]


def test_a_list_printed_as_it_is_is_no_text() -> None:
    printed = "{% for m in messages %}{{ m.content if m.content is not string }}{% endfor %}"
    with pytest.raises(MtpError, match="leaves out a question"):
        fitted(printed).render([QUESTION], {})


def test_a_template_that_rewrites_a_text_is_followed_and_it_is_said() -> None:
    template = fitted(PLAIN.replace("m.content", "m.content.replace('/no_think', '')"))
    spoken = Message(role="user", content="hi /no_think")
    assert template.render([spoken], {}) == "<user>hi <assistant>"
    assert template.notes == ["the chat template changes a question"]
    trimmed = fitted(PLAIN.replace("m.content", "m.content | trim | indent(2)"))
    trimmed.render([Message(role="user", content=" a\nb ")], {})
    assert trimmed.notes == []  # spaces around and inside are no loss


def test_short_texts_are_not_found_by_chance() -> None:
    with pytest.raises(MtpError, match="leaves out a question"):
        fitted("<user>this<assistant>").render([QUESTION], {})  # "hi" is in "this"


def test_the_tail_is_what_comes_after_the_question_whatever_it_says() -> None:
    template = fitted(PLAIN)
    asked = [Message(role="user", content="assistant")]
    template.render(asked, {})
    assert template.tail(asked, {}) == "<assistant>"


@pytest.mark.parametrize(
    ("place", "template", "prompt"),
    [
        ("reasoning_content", "{{ m.reasoning_content }}|{{ m.content }}", "Hm.|Hello."),
        ("thinking", "{{ m.thinking }}|{{ m.content }}", "Hm.|Hello."),
        ("parts", "{{ m.content[0].thinking }}|{{ m.content[1].text }}", "Hm.|Hello."),
        (None, "{{ m.thinking }}|{{ m.content }}", "|Hello."),
    ],
)
def test_reasoning_goes_where_the_template_takes_it(
    place: str | None, template: str, prompt: str
) -> None:
    source = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
    made = fitted(source + template + "{% endif %}{% endfor %}")
    made.place = place  # type: ignore[assignment]
    answer = Message(role="assistant", content="Hello.", reasoning="Hm.")
    assert made.render([QUESTION, answer, AGAIN], {}) == f"hi{prompt}again"


def test_reasoning_goes_into_the_content_between_marks_where_the_template_looks_there() -> None:
    template = fitted(PLAIN)
    template.wraps = ("<think>", "</think>")
    answer = Message(role="assistant", content="Hello.", reasoning="Hm.")
    prompt = template.render([QUESTION, answer, AGAIN], {})
    assert "<assistant><think>\nHm.\n</think>\n\nHello.<user>" in prompt
