"""A terminal's window: a pseudo-terminal of any width, and what was written to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from typing import TextIO

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Window:
    """screen: what programs write to, as UTF-8."""

    def __init__(self, columns: int) -> None:
        self._reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        attributes = termios.tcgetattr(writer)
        attributes[1] &= ~termios.ONLCR  # newlines arrive as they were written
        termios.tcsetattr(writer, termios.TCSANOW, attributes)
        self.screen: TextIO = os.fdopen(writer, "w", encoding="utf-8")
        self._written = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last writer is gone
            while chunk := os.read(self._reader, 4096):
                self._written += chunk

    @property
    def so_far(self) -> str:
        return self._written.decode(errors="replace")

    def raw(self) -> str:
        """Everything that was written; the window is closed."""
        self.screen.close()
        self._thread.join(10)
        return self.so_far

    def shown(self) -> str:
        """The same without what a terminal obeys and does not show."""
        return _CODES.sub("", self.raw())

    def close(self) -> None:
        if not self.screen.closed:
            self.raw()
        os.close(self._reader)


@contextlib.contextmanager
def window(columns: int = 80) -> Iterator[Window]:
    opened = Window(columns)
    try:
        yield opened
    finally:
        opened.close()
