"""Draws docs/session.svg: the real `mtp-chat` with the built-in model, as a terminal showed it.

    python -m benchmarks.session

It asks two questions, greedily, in a pseudo-terminal; what is on its screen at the end is the
picture. It shows speeds, too: run it while nothing else runs.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pexpect
import pyte
import typer
from rich.console import Console
from rich.style import Style
from rich.text import Text

QUESTIONS = (
    "Write a Python function that reverses a string.",
    "Show it again, with a docstring.",
)
COLUMNS, MOST_LINES = 100, 200
_MARGIN = 4  # columns, for viewers whose letters are wider
_PROMPT = "\x1b[?2004h"  # the editor asks for pasted text in brackets whenever it reads a line
_TERMINAL = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}  # no one says where it is
_KEYS_S = 0.05  # between two keys, so that the editor draws each
_ANSWER_S = 300.0  # for an answer on a busy machine, calibration included
_FAINT, _GREY, _NO_LONGER_FAINT, _USUAL = 2, 90, 22, 39  # SGR parameters
_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # fonts from another server


class Screen(pyte.Screen):
    """pyte's screen knows no faint text; here it is grey."""

    def select_graphic_rendition(self, *attributes: int, **how: Any) -> None:
        renamed = {_FAINT: (_GREY,), _NO_LONGER_FAINT: (_NO_LONGER_FAINT, _USUAL)}
        shown = [code for one in attributes for code in renamed.get(one, (one,))]
        super().select_graphic_rendition(*shown, **how)


def converse(questions: tuple[str, ...]) -> pyte.Screen:
    """The screen once all are answered."""
    screen = Screen(COLUMNS, MOST_LINES)
    stream = pyte.Stream(screen)
    with tempfile.TemporaryDirectory() as state:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "mtp_cli.chat", "--temperature", "0"],
            env={**os.environ, **_TERMINAL, "XDG_STATE_HOME": state},
            encoding="utf-8",
            timeout=_ANSWER_S,
            dimensions=(MOST_LINES, COLUMNS),
        )
        child.logfile_read = _Tee(stream)
        for question in questions:
            child.expect_exact(_PROMPT)
            for key in question:
                child.send(key)
                child.expect(pexpect.TIMEOUT, timeout=_KEYS_S)
            child.send("\r")
        child.expect_exact(_PROMPT)
        child.expect(pexpect.TIMEOUT, timeout=1)
        child.close(force=True)
    return screen


class _Tee:
    """A file to pexpect, a stream to pyte."""

    def __init__(self, stream: pyte.Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.feed(text)

    def flush(self) -> None:
        pass


def drawn(screen: pyte.Screen) -> str:
    """The screen's lines down to the last that holds something, as SVG."""
    lines = [_line(screen, y) for y in range(screen.lines)]
    while lines and not lines[-1].plain.strip(" >"):  # the last prompt is not answered
        lines.pop()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, record=True, width=COLUMNS + _MARGIN, force_terminal=True)
        for line in lines:
            console.print(line, no_wrap=True, highlight=False)
        svg = console.export_svg(title="mtp-chat -t 0", unique_id="session")
    return _FONT_FACE.sub("", svg).replace("Fira Code, monospace", "monospace")


def _line(screen: pyte.Screen, y: int) -> Text:
    cells = [screen.buffer[y][x] for x in range(screen.columns)]
    styled = itertools.groupby(cells, _style)
    line = Text.assemble(*(("".join(c.data for c in run), style) for style, run in styled))
    line.rstrip()
    return line


def _style(cell: Any) -> Style:
    return Style(
        color=_color(cell.fg),
        bgcolor=_color(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _color(name: str) -> str | None:
    """rich's name of pyte's colour."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    bright = name.startswith("bright")
    plain = name.removeprefix("bright").replace("brown", "yellow")
    return f"bright_{plain}" if bright else plain


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path(
        "docs/session.svg"
    ),
) -> None:
    output.write_text(drawn(converse(QUESTIONS)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
