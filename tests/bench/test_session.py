"""The picture of a conversation: what a screen shows, and nothing from elsewhere."""

from __future__ import annotations

import re

import pyte

from benchmarks import session


def svg(shown: str) -> str:
    screen = session.Screen(session.COLUMNS, 6)
    pyte.Stream(screen).feed(shown)
    return session.drawn(screen)


def shown_in(picture: str) -> list[str]:
    return [text.replace("&#160;", " ") for text in re.findall(r">([^<>]+)</text>", picture)]


def test_it_shows_what_is_on_the_screen_at_the_end() -> None:
    shown = shown_in(svg("reading the prompt \r\x1b[Kthe answer\r\n> "))
    assert "the answer" in shown
    assert not any("reading" in text for text in shown)


def test_faint_text_has_another_colour() -> None:
    picture = svg("\x1b[2mfaint\x1b[0m usual \x1b[2mfaint\x1b[22m usual")
    classes = re.findall(r'class="session-(r\d)"[^>]*>(faint|&#160;usual)', picture)
    assert len({name for name, text in classes if text == "faint"}) == 1
    assert len({name for name, _ in classes}) == 2


def test_it_loads_nothing() -> None:
    assert "url(http" not in svg("text")
    assert "@font-face" not in svg("text")


def test_a_last_prompt_without_a_question_is_left_out() -> None:
    assert svg("text\r\n\r\n> ") == svg("text")
