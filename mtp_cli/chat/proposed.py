"""Who proposed what, in colours: the rest is the model's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mtp_cli.chat.markdown import Run
from mtp_cli.engine.types import Proposer
from mtp_cli.screen import visible

_STYLES: dict[Proposer, str] = {
    "target": "",
    "drafter": "green",
    "copy": "cyan",
    "grammar": "magenta",
}
LEGEND = "drafted green, copied cyan, forced magenta, the rest is the model's own"


class Proposed:
    """A styler for text whose pieces were announced with `expect`."""

    def __init__(self) -> None:
        self._expected: deque[tuple[str, str]] = deque()  # characters and their styles

    def expect(self, pieces: Iterable[tuple[str, Proposer]]) -> None:
        for text, proposer in pieces:
            self._expected.extend((char, _STYLES[proposer]) for char in visible(text))

    def feed(self, text: str) -> list[Run]:
        """Of what was announced, spaces and newlines may never come."""
        runs: list[Run] = []
        for char in text:
            style = self._style_of(char)
            if runs and runs[-1].style == style:
                char = runs.pop().text + char
            runs.append(Run(char, style))
        return runs

    def _style_of(self, char: str) -> str:
        while self._expected:
            expected, style = self._expected.popleft()
            if expected == char:
                return style
        return ""

    def flush(self) -> list[Run]:
        return []
