"""An answer as it streams, a wait that is announced, Ctrl-C, typed keys.

Knows streams and signals. Knows nothing of models or conversations.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal, TextIO

from mtp_cli.chat.wrap import WordWrap
from mtp_cli.screen import dim, is_dumb, is_terminal, visible, width

_PATIENCE_S = 1.0


class AnswerStream:
    """Writes an answer as it comes, made safe; one that has begun ends with just one newline.

    On a terminal its lines break between words; elsewhere they are the model's own.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._wrap = WordWrap(lambda: width(out)) if is_terminal(out) else None
        self._n_held = 0  # newlines that are written only once something follows them
        self._has_begun = False

    def write(self, chunk: str) -> None:
        safe = visible(chunk)
        body = safe.rstrip("\n")
        self._has_begun |= bool(safe)
        if body:
            self._show("\n" * self._n_held + body)
            self._n_held = 0
        self._n_held += len(safe) - len(body)

    def end(self) -> None:
        if self._has_begun:
            rest = self._wrap.flush() if self._wrap else ""
            self._out.write(rest + "\n")
            self._out.flush()

    def _show(self, text: str) -> None:
        self._out.write(self._wrap.feed(text) if self._wrap else text)
        self._out.flush()


class Wait:
    """Says what is going on when nothing has been heard for a while, until its `end`."""

    def __init__(
        self, text: str, screen: TextIO, *, quiet: bool, after_s: float = _PATIENCE_S
    ) -> None:
        self._text = text
        self._screen = screen
        self._lock = threading.Lock()
        self._state: Literal["patient", "shown", "over"] = "patient"
        self._timer = threading.Timer(after_s, self._show)
        self._timer.daemon = True
        if is_terminal(screen) and not quiet and not is_dumb():  # or it could not be taken back
            self._timer.start()

    def _show(self) -> None:
        with self._lock:
            if self._state == "patient":
                self._state = "shown"
                self._screen.write(dim(f"{self._text} …", self._screen))
                self._screen.flush()

    def end(self) -> None:
        """Take it back; from then on nothing is said."""
        with self._lock:
            if self._state == "shown":
                self._screen.write("\r\x1b[K")
                self._screen.flush()
            self._state = "over"
        self._timer.cancel()


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

        fd = -1 if sys.stdin is None else sys.stdin.fileno()  # None: closed by the caller
        before = termios.tcgetattr(fd)
    except (ImportError, OSError, ValueError, termios.error):
        yield  # not a terminal that can: keys show as they are typed
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)
