"""Word wrap: words and their order stay, lines fit, clusters are whole, code keeps its lines."""

from __future__ import annotations

import itertools
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtp_cli.chat.wrap import WordWrap
from mtp_cli.screen import cells

# Parts of a syllable join on to earlier ones: any to a first, vowels and finals to a vowel, finals
# to a final.
JOINED_JAMO = "[\u1100-\u115f][\u1100-\u11ff]|[\u1160-\u11a7][\u1160-\u11ff]|[\u11a8-\u11ff]{2}"
ZWJ, VS16 = "\u200d", "\ufe0f"
FAMILY = f"👨{ZWJ}👩{ZWJ}👧"
ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
JAMO = "\u1112\u1161\u11ab"  # 한, spelled in its three parts


def wrapped(text: str, columns: int, cuts: tuple[int, ...] = ()) -> str:
    wrap = WordWrap(lambda: columns)
    places = [0, *sorted(c % (len(text) + 1) for c in cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    return "".join(wrap.feed(part) for part in parts) + wrap.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the sky is blue", "the sky is\nblue"),
        ("the sky is", "the sky is"),
        ("a\n\n  - indented item", "a\n\n  -\nindented\nitem"),
        ("unbreakablelong word", "unbreakablelong word"),
        ("```\nx = 1 + 2 + 3\n```\nthe sky is blue", "```\nx = 1 + 2 + 3\n```\nthe sky is\nblue"),
        ("日本語の長い文章です", "日本語の長\nい文章です"),
        ("a\tbc d", "a\tbc\nd"),
        ("a\tbcd", "a\nbcd"),
    ],
)  # fmt: skip
def test_lines_break_between_words(text: str, expected: str) -> None:
    assert wrapped(text, 10) == expected


@pytest.mark.parametrize(
    "cluster",
    [FAMILY, "🇩🇪", ENGLAND, f"❤{VS16}", f"1{VS16}\u20e3", "👋🏽", JAMO, "か\u3099", "क\u094dषि"],
)
def test_a_row_of_clusters_breaks_between_them(cluster: str) -> None:
    n_cells = cells(cluster)
    assert n_cells == 2
    assert wrapped(cluster * 7, 6) == f"{cluster * 3}\n{cluster * 3}\n{cluster}"
    assert wrapped(cluster * 7, 6, tuple(range(50))) == wrapped(cluster * 7, 6)


def test_accents_take_no_room() -> None:
    word = "e\u0301t\u0301e\u0301"  # three cells, six characters
    assert wrapped(f"{word} {word} {word}", 7) == f"{word} {word}\n{word}"


def test_the_newest_width_counts() -> None:
    columns = 20
    wrap = WordWrap(lambda: columns)
    shown = wrap.feed("one two three f")
    columns = 8
    shown += wrap.feed("our five six ") + wrap.flush()
    assert shown == "one two three\nfour\nfive six"


# What is put together of several characters, whole and in pieces.
pieces = st.sampled_from(
    [*"ab é\n日🇩🇪🇫🇷", "\u0301", ZWJ, VS16, "👩", "💻", FAMILY, ENGLAND, JAMO, "\u1112", "\u1161"]
)
texts = st.lists(pieces, max_size=60).map("".join)
cuts = st.lists(st.integers(0, 200), max_size=6).map(tuple)


@given(texts, st.integers(4, 20), cuts)
@example("  ", 4, (2,))  # nothing came, which is no word
def test_nothing_is_lost_and_lines_fit(text: str, columns: int, cuts: tuple[int, ...]) -> None:
    shown = wrapped(text, columns, cuts)
    assert shown == wrapped(text, columns)
    assert "".join(shown.split()) == "".join(text.split())
    for line in shown.split("\n"):
        if any(cells(word) >= columns for word in line.split()) or line.startswith(" "):
            continue  # a word no line has room for, or an indentation kept as it came
        assert cells(line) <= columns


@given(texts, st.integers(4, 20), cuts)
@example("aaa  \u0301", 4, ())  # a space with an accent
def test_no_line_begins_inside_a_cluster(text: str, columns: int, cuts: tuple[int, ...]) -> None:
    """By Unicode's own properties: what only joins on to what is before it begins no line of ours,
    and a flag's two letters stay together."""
    shown = wrapped(text, columns, cuts)
    for before, after in _breaks(text, shown):
        assert unicodedata.category(after) not in ("Mn", "Me", "Mc")
        assert after != ZWJ
        assert not re.search(f"[👨👩👧💻🏴❤👋]{VS16}*{ZWJ}$", before) or after not in "👨👩👧💻"
        assert not re.search(JOINED_JAMO, before[-1:] + after)
        assert not "\U000e0020" <= after <= "\U000e007f"
        if _is_flag_letter(after):
            n_letters = len(list(itertools.takewhile(_is_flag_letter, reversed(before))))
            assert n_letters % 2 == 0


def _breaks(text: str, shown: str) -> list[tuple[str, str]]:
    """Where lines were broken: the text before each place, and the character after it."""
    found, at = [], 0
    for character in shown:
        if at < len(text) and text[at] == character:
            at += 1
        else:  # a break of ours, instead of the spaces here
            rest = text[at:].lstrip(" ")
            spaces = len(text) - at - len(rest)
            if unicodedata.category(rest[0]) == "Mn" or rest[0] == ZWJ:
                spaces -= 1  # the last one carries that
            found.append((text[: at + spaces], text[at + spaces]))
            at += spaces
    return [(before, after) for before, after in found if before]


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
