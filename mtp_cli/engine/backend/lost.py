"""Ends the process with one line where an RPC server has gone: llama.cpp can only abort there.

Owns ggml's abort callback once a server is used. Knows nothing of models.

llama.cpp's client finds out in a thread of its own, while the decode that waits for it cannot be
left: there is no way back into Python's code. What is left is to say which server it was, and to
leave the terminal as it was found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from mtp_cli.engine.backend.binding import llama_library
from mtp_cli.screen import is_terminal, say_error

_CLIENT = "ggml-rpc"  # in the message: the file where llama.cpp gave up
_N_LOOKS, _PATIENCE_S = 10, 0.1  # for the server that is gone, and seconds for each
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p)

_servers: list[str] = []
_kept: list[Any] = []  # ggml has only a bare pointer to the callback


def watch(server: str) -> None:
    """From now on say so where the server at "HOST:PORT" has gone."""
    _servers.append(server)
    if not _kept:
        # Of the copy that llama.cpp itself loaded: a file by another name is another copy.
        set_callback = llama_library.ggml_set_abort_callback
        set_callback.argtypes, set_callback.restype = [_CALLBACK], ctypes.c_void_p
        _kept.append(_CALLBACK(_on_abort(_terminal())))
        set_callback(_kept[0])


def _on_abort(restore: Callable[[], None]) -> Callable[[bytes], None]:
    def on_abort(message: bytes) -> None:
        """llama.cpp aborts when this returns."""
        text = message.decode(errors="replace")
        restore()
        if _CLIENT in text:
            _end()
        print(text, file=sys.stderr, flush=True)

    return on_abort


def _end() -> NoReturn:
    with contextlib.suppress(OSError, ValueError):  # what was answered so far
        sys.stdout.flush()
    if is_terminal(sys.stderr):
        sys.stderr.write("\x1b[0m\n\x1b[J")  # below the answer, in place of what stood there
    what = f"--rpc {', '.join(_gone())}: the server is gone, or said what llama.cpp cannot read"
    say_error(Exception(f"{what}; start it again, and then this"), sys.stderr)
    os._exit(1)


def _gone() -> list[str]:
    """The servers where nothing listens any more; all of them where none is found to be gone."""
    for _ in range(_N_LOOKS):  # one that is being killed may listen a moment longer
        gone = [*filter(_refuses, _servers)]
        if gone:
            return gone
        time.sleep(_PATIENCE_S)
    return _servers


def _refuses(server: str) -> bool:
    """Whether nothing listens there: one that still has its client answers nobody else."""
    host, _, port = server.rpartition(":")
    with contextlib.suppress(OSError):
        try:
            socket.create_connection((host, int(port)), _PATIENCE_S).close()
        except ConnectionRefusedError:
            return True
    return False


def _terminal() -> Callable[[], None]:
    """What brings stdin's terminal back to what it is now."""
    try:
        import termios
    except ImportError:  # Windows
        return lambda: None
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (AttributeError, OSError, ValueError, termios.error):
        return lambda: None
    return lambda: termios.tcsetattr(fd, termios.TCSANOW, before)
