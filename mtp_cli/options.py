"""What the options of several commands have in common: the limits of numbers, names of files.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path

import typer

MAX_THREADS = 512  # ggml's GGML_MAX_N_THREADS: with more it crashes
MAX_INT32 = 2**31 - 1  # llama.cpp counts in C's int: anything above would arrive as another number


def file_name(text: str) -> Path:
    """A file that the user named; an empty name would be the current folder."""
    if not text:
        raise typer.BadParameter("an empty name.")
    return Path(text)
