"""An answer as it streams, Ctrl-C, typed keys.

Knows streams and signals. Knows nothing of models or conversations.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from mtp_cli.chat.colours import RESET, code
from mtp_cli.chat.markdown import Run, Styler
from mtp_cli.chat.wrap import WordWrap
from mtp_cli.screen import is_terminal, visible, width


class AnswerStream:
    """Writes an answer as it comes.

    On a terminal it is made safe, its lines break between words, and one that has begun ends with
    just one newline. Elsewhere it is what was said, and a newline where that does not end with one.

    before_text, after_text: called before and after anything is written
    styler: gives text its styles, where a terminal shows them
    """

    def __init__(
        self,
        out: TextIO,
        before_text: Callable[[], None] = lambda: None,
        after_text: Callable[[str], None] = lambda text: None,
        styler: Styler | None = None,
    ) -> None:
        self._out = out
        self._before_text = before_text
        self._after_text = after_text
        self._styler = styler
        self._wrap = WordWrap(lambda: width(out)) if is_terminal(out) else None
        self._held = ""  # newlines and spaces that a terminal gets once something follows them
        self._is_mid_line = False
        self._is_broken = False  # by a newline that was not said yet

    def write(self, chunk: str) -> None:
        self._write(chunk if self._wrap is None else self._tidied(visible(chunk)))

    def pause(self) -> None:
        """Leave a terminal's line to others: what comes next begins one of its own."""
        if self._wrap is None:
            return
        rest = self._flush()
        if rest or self._is_mid_line:
            self._write(rest + self._wrap.feed("\n") + self._wrap.flush())
            self._is_broken = True

    def end(self) -> None:
        rest = self._flush()
        if rest or self._is_mid_line or (self._held.strip(" ") and not self._is_broken):
            self._write(rest + "\n")

    def _write(self, text: str) -> None:
        if text:
            self._before_text()
            self._out.write(text)
            self._out.flush()
            self._is_mid_line = not text.endswith("\n")
            self._after_text(text)

    def _tidied(self, text: str) -> str:
        assert self._wrap is not None
        text = self._held + text
        if self._is_broken and text:
            text = text.removeprefix("\n")
            self._is_broken = False
        body = text.rstrip("\n ")
        self._held = text[len(body) :]
        return self._styled(body) if body else ""

    def _styled(self, text: str) -> str:
        assert self._wrap is not None
        return (
            self._wrap.feed(text) if self._styler is None else self._placed(self._styler.feed(text))
        )

    def _placed(self, runs: list[Run]) -> str:
        assert self._wrap is not None
        shown = ""
        for text, style in runs:
            before, after = (code(style), RESET) if style else ("", "")
            shown += self._wrap.mark(before) if before else ""
            shown += self._wrap.feed(text)
            shown += self._wrap.mark(after) if after else ""
        return shown

    def _flush(self) -> str:
        """What is held back of a terminal's line."""
        if self._wrap is None:
            return ""
        rest = "" if self._styler is None else self._placed(self._styler.flush())
        return rest + self._wrap.flush()


@contextlib.contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Within it the first Ctrl-C calls `stop`; the second is a KeyboardInterrupt."""

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """Within it typed keys wait unseen for the next prompt instead of garbling the answer."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    try:
        fd = -1 if sys.stdin is None else sys.stdin.fileno()  # None: closed by the caller
        before = termios.tcgetattr(fd)
    except (OSError, ValueError, termios.error):
        yield  # not a terminal that can: keys show as they are typed
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)
