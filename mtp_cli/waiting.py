"""Says what is awaited wherever a person would wait without a word; all commands use it.

Knows streams and clocks. Knows nothing of what it is that takes so long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TextIO

from mtp_cli.screen import cells, cut, dim, forget_unwritten, is_dumb, is_terminal, one_line, width

_SHOWN_S = 0.5  # a terminal's line appears after this: what is quicker needs no word
_FRESH_S = 0.2  # it is brought up to date as often
_SAID_S = 2.0  # elsewhere a line is written after this, and cannot be taken back
_AGAIN_S = 10.0  # how often another follows, so that a log does not fill with them


class Wait:
    """From its beginning to its `end`, a line on `screen` about what is awaited.

    A terminal shows one line, with the seconds so far, that is kept up to date and taken back;
    elsewhere plain lines follow one another. `describe` is called from another thread.
    """

    def __init__(
        self,
        describe: Callable[[], str],
        screen: TextIO,
        *,
        quiet: bool,
        shown_s: float = _SHOWN_S,
        said_s: float = _SAID_S,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._describe = describe
        self._screen = screen
        self._is_live = is_terminal(screen) and not is_dumb()
        self._first_s = shown_s if self._is_live else said_s
        self._next_s = _FRESH_S if self._is_live else again_s
        self._lock = threading.RLock()  # a signal's handler may end what it interrupted
        self._shown = ""
        self._began_s = time.monotonic()
        self._over = threading.Event()
        if not quiet:
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause_s = self._first_s
        while not self._over.wait(pause_s):
            with self._lock:
                if self._over.is_set():
                    return
                try:
                    self._show(one_line(self._describe()))
                except OSError:  # whatever is done meanwhile is no worse for it
                    forget_unwritten(self._screen)
            pause_s = self._next_s

    def _show(self, text: str) -> None:
        if self._is_live:  # a line that never changes looks as if nothing happened any more
            passed = f" … {time.monotonic() - self._began_s:.0f} s"
            text = cut(text, width(self._screen) - 1 - cells(passed)) + passed
            if text == self._shown:
                return
            self._screen.write("\r\x1b[K" + dim(text, self._screen))
        else:
            self._screen.write(f"{text}\n")
        self._screen.flush()
        self._shown = text

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def end(self) -> None:
        """Take it back; from then on nothing is said."""
        self._over.set()
        with self._lock:
            if self._shown and self._is_live:
                with contextlib.suppress(OSError):
                    self._screen.write("\r\x1b[K")
                    self._screen.flush()
            self._shown = ""

    def __enter__(self) -> Wait:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


@contextlib.contextmanager
def loading(name: str, screen: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """While a model is examined and loaded; gives a function that takes the loaded fraction.

    Ctrl-C ends the process at once: an exception would be lost inside llama.cpp's callback, and
    there is nothing to keep yet.
    """
    fraction: float | None = None

    def report(loaded: float) -> None:
        nonlocal fraction
        fraction = loaded

    def describe() -> str:
        if fraction is None:
            return f"examining {name}"
        return f"preparing {name}" if fraction >= 1 else f"loading {name}: {fraction:.0%}"

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        wait.end()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

    wait = Wait(describe, screen, quiet=quiet)
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield report
    finally:
        signal.signal(signal.SIGINT, before)
        wait.end()
