"""Templates that would use all memory or never end: one clear line, soon, in little memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.template import MAX_CHARACTERS, ChatTemplate, Message
from mtp_cli.errors import MtpError

HELLO = [Message(role="user", content="Hi")]
STATUS = Path("/proc/self/status")
TOO_MUCH, ENDLESS, TOO_FAR = (
    "makes far more text than it is given",
    "comes to no end",
    "counts too far",
)


def doubles(first: str, doubled: str) -> str:
    return f"{{% set ns = namespace(s={first}) %}}" + again(doubled)


def again(body: str) -> str:
    return f"{{% for i in range(99999) %}}{body}{{% endfor %}}"


RUNAWAYS = {
    # One value from another of its kind, over and over.
    "plus": (doubles("'a'", "{% set ns.s = ns.s + ns.s %}"), TOO_MUCH),
    "tilde": (doubles("'a'", "{% set ns.s = ns.s ~ ns.s %}"), TOO_MUCH),
    "a block": (
        doubles("'a'", "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}"),
        TOO_MUCH,
    ),
    "a macro": (
        "{% macro two(x) %}{{ x }}{{ x }}{% endmacro %}"
        + doubles("'a'", "{% set ns.s = two(ns.s) %}"),
        TOO_MUCH,
    ),
    "a filter": (doubles("'a'", "{% set ns.s = [ns.s, ns.s] | join %}"), TOO_MUCH),
    # Lists are looked through: a slow machine is out of time first.
    "lists": (doubles("[1, 1]", "{% set ns.s = ns.s + ns.s %}"), f"({TOO_MUCH}|{ENDLESS})"),
    "lists of lists": (doubles("[1]", "{% set ns.s = [ns.s, ns.s] %}") + "{{ ns.s }}", TOO_MUCH),
    "dicts of dicts": (
        doubles("1", "{% set ns.s = dict(a=ns.s, b=ns.s) %}") + "{{ ns.s }}",
        TOO_MUCH,
    ),
    "numbers": (doubles("3", "{% set ns.s = ns.s * ns.s %}"), TOO_FAR),
    # Out of one step.
    "times": ("{{ 'a' * 10**10 }}", TOO_MUCH),
    "times a list": ("{{ [0] * 10**10 }}", TOO_MUCH),
    "power": ("{{ 10 ** (10**10) }}", TOO_FAR),
    "center": ("{{ 'a' | center(10**10) }}", TOO_MUCH),
    "by map": ("{{ [1] | map('center', 10**10) | list }}", TOO_MUCH),
    "as a block": ("{% filter center(10000000000) %}a{% endfilter %}", TOO_MUCH),
    "a method": ("{{ 'a'.ljust(10**10) }}", TOO_MUCH),
    "a method by name": ("{{ ('a' | attr('ljust'))(10**10) }}", TOO_MUCH),
    "of a number": ("{{ (1).to_bytes(10**10, 'big') }}", TOO_MUCH),
    "percent": ("{{ '%10000000000d' % 1 }}", TOO_MUCH),
    "percent star": ("{{ '%*d' % (10**9, 1) }}", TOO_MUCH),
    "format": ("{{ '{:{}}'.format(1, 10**10) }}", TOO_MUCH),
    "the format filter": ("{{ '%*d' | format(10**9, 1) }}", TOO_MUCH),
    "replace": ("{{ ('a' * 100000).replace('', 'b' * 100000) }}", TOO_MUCH),
    "join": ("{{ ('a' * 100000).join(range(10000) | map('string')) }}", TOO_MUCH),
    "indent": ("{{ ('\\n' * 100000) | indent(100000) }}", TOO_MUCH),
    "tojson": ("{{ messages | tojson(indent=10**9) }}", TOO_MUCH),
    "batch": ("{{ [1] | batch(10**10, 'x') | list }}", TOO_MUCH),
    "split": ("{{ ('a ' * 1000000).split() | length }}", TOO_MUCH),
    "sum": ("{{ ([[0] * 10000] * 10000) | sum(start=[]) | length }}", TOO_MUCH),
    # A little at a time.
    "says it": (again("{{ 'x' * 10000 }}"), TOO_MUCH),
    "says a slice": ("{% set y = 'x' * 1000000 %}" + again("{{ y[1:] }}"), TOO_MUCH),
    "keeps slices": (
        "{% set y = 'x' * 1000000 %}" + "".join(f"{{% set y{i} = y[1:] %}}" for i in range(999)),
        TOO_MUCH,
    ),
    # For ever.
    "loops": (again(again("")), ENDLESS),
    "loops that leave out": (again("{% for j in range(99999) if j < 0 %}{% endfor %}"), ENDLESS),
    "macros": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(90) }}",
        ENDLESS,
    ),
    "a loop in itself": (
        "{% for x in [1, 1] recursive %}{{ loop([1, 1]) if loop.depth < 90 }}{% endfor %}",
        ENDLESS,
    ),
    "filters": (again("{{ range(99999) | sort | length }}"), ENDLESS),
    "range": ("{% for i in range(10**9) %}{% endfor %}", TOO_FAR),
    "itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
}


@pytest.mark.parametrize("name", RUNAWAYS)
def test_a_template_that_runs_away_is_stopped(name: str) -> None:
    source, said = RUNAWAYS[name]
    with pytest.raises(MtpError, match=f"^the chat template {said}, in line 1$"):
        ChatTemplate(source, bos="", eos="").render(HELLO)


@pytest.mark.skipif(not STATUS.exists(), reason="no /proc here")
def test_all_of_them_together_need_little_memory() -> None:
    """In a process of its own, whose peak is theirs: 400 MB would be the end of it.

    Its VmHWM: the ru_maxrss of a new process begins with that of the one that started it.
    """
    run = (
        "from tests.conversation.test_bounded import RUNAWAYS, STATUS, stopped\n"
        "for source, _said in RUNAWAYS.values(): stopped(source)\n"
        "print(STATUS.read_text())"
    )
    found = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    peak = re.search(r"^VmHWM:\s+(\d+) kB", found.stdout, re.MULTILINE)
    assert peak is not None
    assert int(peak[1]) << 10 < 200 << 20


def stopped(source: str) -> None:
    with pytest.raises(MtpError):
        ChatTemplate(source, bos="", eos="").render(HELLO)


def test_it_is_tried_only_once() -> None:
    """And not in every form, each of which would last as long."""
    template = ChatTemplate(RUNAWAYS["loops"][0], bos="", eos="")
    for _time in range(100):
        with pytest.raises(MtpError, match=f"{ENDLESS}, in line 1 .*--chat-template gives another"):
            FittedTemplate(template).render(HELLO, {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "not " * 5000 + "1 }}",
        "{{ a" + ".b" * 5000 + " }}",
        "{% if 1 %}" * 120 + "{% endif %}" * 120,
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    ],
)
def test_what_is_nested_too_deeply_does_not_compile(source: str) -> None:
    with pytest.raises(MtpError, match=r"nested too deeply \(--chat-template gives another"):
        ChatTemplate(source, bos="", eos="")


def test_what_is_too_long_is_not_read() -> None:
    with pytest.raises(MtpError, match="longer than the 250,000 characters that are read"):
        ChatTemplate("x" * (MAX_CHARACTERS + 1), bos="", eos="")


def test_a_long_conversation_is_no_runaway() -> None:
    """Each message cut, looked through and joined; all messages looked at for each of them."""
    source = (
        "{% set ns = namespace(last=0) %}{% for m in messages %}"
        "{% for n in messages[::-1] %}{% if n.role == 'user' %}{% set ns.last = loop.index0 %}"
        "{% endif %}{% endfor %}"
        "{% set c = m.content.split('</think>')[-1].strip() | replace('a', 'bb') %}"
        "{{ '<' ~ m.role + '>' }}{{ '%s: %s' % (m.role, c | trim | indent(4)) }}{% endfor %}"
    )
    words = "a word or two, and more of them\n" * 1000
    talk = [Message(role="user", content=words) for _ in range(150)]
    rendered = ChatTemplate(source, bos="", eos="").render(talk)
    assert rendered.count("<user>user: bb word") == 150


def test_a_long_question_is_no_runaway() -> None:
    content = "word " * 1_000_000
    source = "{{ ('<' * 999 ~ '%s') | format(messages[0].content | trim) }}"
    talk = [Message(role="user", content=content)]
    assert ChatTemplate(source, bos="", eos="").render(talk).endswith(content.strip())
