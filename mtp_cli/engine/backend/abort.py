"""Ends a decode that is under way. Owns the callback that ggml asks between the nodes of a graph.

ggml's CPU and Metal backends ask; with others a decode ends when it is done. Knows nothing of what
is decoded.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mtp_cli.engine.backend.binding import lib

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


class Stopped(Exception):
    """A decode that was ended before it was done."""


@contextlib.contextmanager
def asking(handle: Any, is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Within it decodes of the context `handle` end, with code 2, soon after `is_stopped` says so.

    Ctrl-C is noticed inside the callback, in whose frame Python may raise KeyboardInterrupt. ctypes
    would print that and go on: here it ends the decode, and is raised again after it.
    """
    is_interrupted = False

    def ask(_data: ctypes.c_void_p) -> bool:
        return is_interrupted or is_stopped()

    def keep(unraisable: UnraisableHookArgs) -> None:
        nonlocal is_interrupted
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            is_interrupted = True
        else:
            hook(unraisable)

    hook, callback = sys.unraisablehook, lib.ggml_abort_callback(ask)
    sys.unraisablehook = keep
    lib.llama_set_abort_callback(handle, callback, None)
    try:
        yield
    finally:
        lib.llama_set_abort_callback(handle, lib.ggml_abort_callback(), None)
        sys.unraisablehook = hook
        if is_interrupted:
            raise KeyboardInterrupt
