"""A progress bar while a large model loads; a small one loads without a word."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from mtp_cli.screen import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE_S = 0.3


@contextlib.contextmanager
def progress_bar(screen: TextIO, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Gives a function that takes the loaded fraction, from 0 to 1."""
    started = time.monotonic()
    bar: Progress | None = None
    shown = is_terminal(screen) and not quiet

    def report(fraction: float) -> None:
        nonlocal bar
        if bar is None and shown and time.monotonic() - started > _PATIENCE_S:
            bar = _open_bar(screen)
        if bar is not None:
            bar.update(bar.task_ids[0], completed=fraction, refresh=True)

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        # An exception would be lost inside llama.cpp's callback; and there is nothing to keep yet.
        if bar is not None:
            bar.stop()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield report
    finally:
        signal.signal(signal.SIGINT, before)
        if bar is not None:
            bar.stop()


def _open_bar(screen: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = Progress(
        TextColumn("loading"),
        BarColumn(),
        TaskProgressColumn(),
        console=Console(file=screen),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("", total=1.0)
    bar.start()
    return bar
