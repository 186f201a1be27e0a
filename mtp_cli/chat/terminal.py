"""What reaches the terminal, and how: safe text, dim notes, the answer as it streams, Ctrl-C.

Knows streams and signals. Knows nothing of models or conversations.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Literal, TextIO

from mtp_cli.chat.wrap import WordWrap

# Controls become their visible pictures; what has none, and what reorders text to deceive the
# reader, becomes U+FFFD. A carriage return would let a line overwrite itself: it is dropped, so
# that CRLF text still reads well. Newline and tab stay.
_C0_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_C1 = range(0x80, 0xA0)
_BIDI_OVERRIDES = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE: dict[int, int | None] = {
    **_C0_PICTURES,
    0x0D: None,
    0x7F: 0x2421,
    **dict.fromkeys((*_C1, *_BIDI_OVERRIDES), 0xFFFD),
}


_PATIENCE_S = 1.0


def visible(text: str) -> str:
    """`text` with nothing in it that a terminal would obey, character by character."""
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """`text` safe for a terminal and on one line."""
    return visible(" ".join(text.split()))


def error_line(error: Exception) -> str:
    return f"error: {one_line(str(error))}"


def say(text: str, err: TextIO) -> None:
    """Print a line beside the answer, which is no worse where that line cannot be written."""
    try:
        print(text, file=err, flush=True)
    except OSError:
        forget_unwritten(err)


def forget_unwritten(stream: TextIO) -> None:
    """Drop what a failed write left behind, or every later flush fails on it again.

    The interpreter's last one too, which would then change the exit status.
    """
    fd = stream.fileno()
    kept = os.dup(fd)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), fd)
            stream.flush()
    finally:
        os.dup2(kept, fd)
        os.close(kept)


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def dim(text: str, stream: TextIO) -> str:
    """`text`, dimmed where the stream is a terminal that shows it."""
    plain = not is_terminal(stream) or "NO_COLOR" in os.environ or _is_dumb()
    return text if plain else f"\x1b[2m{text}\x1b[0m"


def _is_dumb() -> bool:
    """Whether the terminal obeys nothing, as an editor's shell window."""
    return os.environ.get("TERM") == "dumb"


def width(stream: TextIO) -> int:
    """Columns of the terminal behind `stream`, 80 where there is none to ask."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def fold(parts: Sequence[str], stream: TextIO, joint: str = " · ") -> str:
    """`parts` joined, on as many lines as a terminal is too narrow for; elsewhere on one."""
    columns = width(stream) if is_terminal(stream) else sys.maxsize
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(joint) + len(part) < columns:
            lines[-1] += joint + part
        else:
            lines.append(part)
    return "\n".join(lines)


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
        if is_terminal(screen) and not quiet and not _is_dumb():  # or it could not be taken back
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
