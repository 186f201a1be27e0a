"""Answers split into reasoning and content, however they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.control import as_control
from mtp_cli.conversation.reasoning import Around, Kind, Marks, Part, Splitter

THINK = Marks(pairs=(("<think>", "</think>"), ("[THINK]", "[/THINK]")))
C = as_control
CONTROL = Marks(pairs=((C("[THINK]"), C("[/THINK]")),))
CHANNELS = Marks(
    pairs=(("<|channel|>analysis<|message|>", "<|end|>"), ("", "<|end|>")),
    contents=("<|channel|>final<|message|>",),
    ends=("<|end|>",),
    headers=(("<|channel|>", "<|message|>"), ("<|start|>", "<|message|>")),
    channels=("analysis",),
)
CHANNELS_OF_CONTROL = CHANNELS.mapped(
    lambda mark: mark.replace("<|end|>", C("<|end|>")).replace("<|start|>", C("<|start|>"))
)
WRAPPED = Marks(
    pairs=(("<|START_THINKING|>", "<|END_THINKING|>"),),
    contents=("<|START_TEXT|>",),
    ends=("<|END_TEXT|>",),
)
INSIDE = ("</think>",)

CASES = [
    # (marks, what the prompt opened, what is said, reasoning, content)
    (THINK, (), "Just an answer.", "", "Just an answer."),
    (THINK, (), "\n  indented", "", "\n  indented"),
    (THINK, (), "<think>\nLet me see.\n</think>\n\nYes.", "Let me see.", "Yes."),
    (THINK, (), "\n<think>a\n\nb</think>c", "a\n\nb", "c"),
    (THINK, (), "[THINK]a</think>b[/THINK]c", "a</think>b", "c"),  # each pair by itself
    (
        THINK,
        (),
        "The tag <think> is for </think> models.",
        "",
        "The tag <think> is for </think> models.",
    ),
    (THINK, (), "<thi", "", "<thi"),
    (THINK, (), "<think>never ended", "never ended", ""),
    (THINK, (), "<think></think>\nAt once.", "", "At once."),
    (THINK, (), "</think>\n\nAt once.", "", "At once."),
    (THINK, INSIDE, "Let me see.\n</think>\n\nYes.", "Let me see.", "Yes."),
    (THINK, INSIDE, "<think>\nSaid again.</think>Yes.", "Said again.", "Yes."),
    (THINK, INSIDE, "a < b\n</b> </think> c", "a < b\n</b>", "c"),
    (THINK, INSIDE, " \n", "", ""),
    (Marks(), (), "<think>as it is</think>", "", "<think>as it is</think>"),
    (CONTROL, (), f"{C('[THINK]')}Two.{C('[/THINK]')}Yes.", "Two.", "Yes."),
    (CONTROL, (), "[THINK] is a token.", "", "[THINK] is a token."),
    (CONTROL, (), f"First.{C('[THINK]')}Hm.{C('[/THINK]')}Second.", "Hm.", "First.\n\nSecond."),
    (CONTROL, (), f"a{C('<s>')}b", "", "ab"),  # no mark: it shows nothing
    (THINK, (), f"{C('<s>')}<think>a</think>b", "a", "b"),
    (
        CHANNELS,
        (),
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.",
        "Hm.",
        "Hi.",
    ),
    (CHANNELS, (), "<|channel|>final<|message|>Hi.", "", "Hi."),
    (
        CHANNELS,
        (),
        "<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>analysis<|message|>B."
        "<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Hi.",
        "A.\n\nB.",
        "I look.\n\nHi.",
    ),
    (
        CHANNELS_OF_CONTROL,
        (),
        f"<|channel|>analysis<|message|>A <|end|> in words.{C('<|end|>')}{C('<|start|>')}assistant"
        "<|channel|>final<|message|>Hi.",
        "A <|end|> in words.",
        "Hi.",
    ),
    (
        CHANNELS,
        (),
        "<|channel|>analysis<|message|>A.<|end|><|start|>assistantfinalHi.",
        "A.",
        "Hi.",
    ),
    (CHANNELS, (), "<|channel|>" + "x" * 300, "", "x" * 300),  # no header ever ends
    (
        WRAPPED,
        ("<|END_THINKING|>",),
        "Hm.<|END_THINKING|><|START_TEXT|>Hi.<|END_TEXT|>",
        "Hm.",
        "Hi.",
    ),
    (WRAPPED, (), "Of <|END_TEXT|> in words.", "", "Of <|END_TEXT|> in words."),
]


def heard(parts: list[Part]) -> tuple[str, str]:
    reasoning = "".join(text for kind, text in parts if kind == "reasoning")
    return reasoning, "".join(text for kind, text in parts if kind == "content")


def chunks(said: str, sizes: list[int]) -> list[str]:
    """`said` cut somewhere, but never inside a control token, which comes as one."""
    pieces: list[str] = []
    whole = ""
    for character in said:
        whole += character
        if not whole.startswith("\ud800") or character == "\udfff":
            pieces.append(whole)
            whole = ""
    cut: list[str] = []
    for size in sizes:
        cut.append("".join(pieces[:size]))
        pieces = pieces[size:]
    return [*cut, "".join(pieces)]


@pytest.mark.parametrize(("marks", "closers", "said", "reasoning", "content"), CASES)
@given(sizes=st.lists(st.integers(0, 9)) | st.just([1] * 500))
def test_parts_are_the_same_however_they_come(
    marks: Marks,
    closers: tuple[str, ...],
    said: str,
    reasoning: str,
    content: str,
    sizes: list[int],
) -> None:
    splitter = Splitter(marks, closers)
    parts = [part for chunk in chunks(said, sizes) for part in splitter.feed(chunk)]
    assert heard(parts + splitter.finish()) == (reasoning, content)
    assert splitter.finish() == []
    written = said.replace(C("<s>"), "").replace("\ud800", "").replace("\udfff", "")
    assert splitter.as_said(lambda text: text) == written


@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<",
                "a",
                " ",
                "\n",
                "think>",
                C("<|end|>"),
                "<|channel|>",
                "<|message|>",
                "analysis",
                "<|end|>",
                "[THINK]",
            ]
        )
    ),
    st.sampled_from([THINK, CHANNELS, CHANNELS_OF_CONTROL, WRAPPED]),
    st.booleans(),
)
def test_nothing_is_lost_and_nothing_depends_on_the_pieces(
    pieces: list[str], marks: Marks, is_inside: bool
) -> None:
    closers = INSIDE if is_inside else ()
    one, other = Splitter(marks, closers), Splitter(marks, closers)
    parts = [part for piece in pieces for part in one.feed(piece)] + one.finish()
    assert heard(parts) == heard(other.feed("".join(pieces)) + other.finish())
    said = one.as_said(lambda text: text)
    assert said == other.as_said(lambda text: text)
    letters = [letter for letter in "".join(heard(parts)) if letter == "a"]
    assert len(letters) <= "".join(pieces).count("a")


def test_a_control_token_that_a_mark_of_text_is_found_in_leaves_no_trace() -> None:
    said = f"<|channel|>analysis<|message|>Hm.{C('<|end|>')}<|channel|>final<|message|>Hi."
    splitter = Splitter(CHANNELS)
    assert heard(splitter.feed(said) + splitter.finish()) == ("Hm.", "Hi.")


def test_text_shows_as_soon_as_it_can_be_no_mark() -> None:
    splitter = Splitter(THINK)
    assert splitter.feed("<") == []
    assert splitter.feed("b") == [Part("content", "<b")]
    assert splitter.feed("> is <think") == [Part("content", "> is <think")]
    inside = Splitter(THINK, INSIDE)
    assert inside.feed("so <") == [Part("reasoning", "so")]
    assert inside.feed("/") == []
    assert inside.feed("i>") == [Part("reasoning", " </i>")]


def test_texts_are_guarded_and_marks_are_not() -> None:
    splitter = Splitter(THINK)
    splitter.feed("<think>a</think> b")
    splitter.finish()
    assert splitter.as_said(lambda text: f"({text})") == "<think>(a)</think>( b)"


@pytest.mark.parametrize(("marks", "closers", "said", "reasoning", "content"), CASES)
@given(cut=st.integers(0, 130), again=st.integers(0, 3))
def test_an_answer_that_goes_on_is_split_as_if_it_had_not_ended(
    marks: Marks,
    closers: tuple[str, ...],
    said: str,
    reasoning: str,
    content: str,
    cut: int,
    again: int,
) -> None:
    pieces = chunks(said, [1] * len(said))
    splitter = Splitter(marks, closers)
    shown = [part for piece in pieces[:cut] for part in splitter.feed(piece)] + splitter.finish()
    for _time in range(again):  # stopped before anything came
        splitter = splitter.again()
        assert splitter.finish() == []
    splitter = splitter.again()
    shown += [part for piece in pieces[cut:] for part in splitter.feed(piece)] + splitter.finish()
    assert (splitter.reasoning, splitter.text) == (reasoning, content)
    letters = "".join(heard(shown)).replace("\ufffd", "")
    assert len(letters) <= len(said)


@pytest.mark.parametrize(
    ("begins", "goes_on", "shown"),
    [
        ("a <", "b", [Part("content", "a <"), Part("content", "b")]),
        ("<thi", "s>", [Part("content", "<thi"), Part("content", "s>")]),
        ("<thi", "nk>Hm.", [Part("content", "<thi"), Part("reasoning", "Hm.")]),
        ("<think>a </thi", "s>", [Part("reasoning", "a </thi"), Part("reasoning", "s>")]),
        ("<think>a </thi", "nk><b>", [Part("reasoning", "a </thi"), Part("content", "<b>")]),
    ],
)
def test_what_was_shown_once_is_not_shown_again(
    begins: str, goes_on: str, shown: list[Part]
) -> None:
    splitter = Splitter(THINK)
    before = splitter.feed(begins) + splitter.finish()
    splitter = splitter.again()
    after = splitter.feed(goes_on) + splitter.finish()
    assert [together(before), together(after)] == shown


def together(parts: list[Part]) -> Part:
    kinds: set[Kind] = {part.kind for part in parts}
    (kind,) = kinds
    return Part(kind, "".join(part.text for part in parts))


@pytest.mark.parametrize(
    ("closers", "reasoning", "content", "said"),
    [
        ((), "a</think>b", "c</think>", "<o>a</think>b</c>c</think>"),
        (INSIDE, "a</think>b", "c", "a</think>b</c>c"),
        (INSIDE, "", "c", "</c>c"),
        ((), "", "<think>c", "<h><think>c"),
        ((), "a</think>", "", "<o>a</think>"),
    ],
)
def test_what_is_known_by_its_parts_is_not_split_again(
    closers: tuple[str, ...], reasoning: str, content: str, said: str
) -> None:
    splitter = Splitter(THINK, closers)
    splitter.hear(reasoning, content, Around("<o>", "</think>", "</c>", "<h>"))
    for heard_it in (splitter, splitter.again(), splitter.again().again()):
        assert (heard_it.reasoning, heard_it.text) == (reasoning, content)
        assert heard_it.as_said(lambda text: text) == said
    more = splitter.again()
    kind = "content" if content else "reasoning"
    assert more.feed(" more") == [Part(kind, " more")]  # type: ignore[arg-type]
    if not content:
        assert more.feed("</think>Yes.") == [Part("content", "Yes.")]
