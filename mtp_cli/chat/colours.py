"""Styles as a terminal obeys them, and code in its colours; both by rich."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtp_cli.chat.markdown import Run

if TYPE_CHECKING:
    from rich.style import Style
    from rich.syntax import SyntaxTheme

RESET = "\x1b[0m"
_CONTEXT = 200  # lines of code that a line is highlighted with: longer texts and comments are rare


@functools.cache
def code(style: str) -> str:
    """What switches a style on, in the terminal's 16 colours."""
    from rich.color import ColorSystem
    from rich.style import Style

    before, _text, _after = (
        Style.parse(style).render("\n", color_system=ColorSystem.STANDARD).partition("\n")
    )
    return before


@functools.cache
def _theme() -> SyntaxTheme:
    """The terminal's own colours, but those that a light or a dark background swallows."""
    from pygments import token
    from rich.style import Style
    from rich.syntax import ANSISyntaxTheme

    styles = {
        token.Comment: "italic bright_black",
        token.Keyword: "magenta",
        token.Operator.Word: "magenta",
        token.String: "green",
        token.Number: "cyan",
        token.Name.Builtin: "cyan",
        token.Name.Function: "bold",
        token.Name.Class: "bold",
        token.Name.Decorator: "magenta",
        token.Name.Tag: "magenta",
        token.Name.Attribute: "cyan",
        token.Generic.Deleted: "red",
        token.Generic.Inserted: "green",
        token.Generic.Heading: "bold",
    }
    return ANSISyntaxTheme({kind: Style.parse(style) for kind, style in styles.items()})


def highlighted(lines: Sequence[str], language: str) -> list[Run]:
    """The last of some lines of code, read with those before it; unknown languages stay plain."""
    name = language.split(maxsplit=1)[0].strip("{}.") if language.strip("{}. ") else ""
    if not name or not lines[-1]:
        return [Run(lines[-1], "")]
    from rich.console import Console
    from rich.syntax import Syntax

    syntax = Syntax("", name.lower(), theme=_theme(), background_color="default")
    last = syntax.highlight("\n".join(lines[-_CONTEXT:])).split("\n", allow_blank=True)
    text = next((line for line in reversed(last) if line.plain), None)
    if text is None or text.plain != lines[-1]:  # a lexer that changes what it reads
        return [Run(lines[-1], "")]
    segments = text.render(Console(color_system="standard", force_terminal=True))
    return [Run(part.text, _named(part.style)) for part in segments if part.text != "\n"]


def _named(style: Style | None) -> str:
    """As Markdown's styles are named; whatever is behind the code stays behind it."""
    return "" if style is None else " ".join(str(style).replace("on default", "").split())
