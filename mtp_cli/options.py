"""What options of several commands have in common: limits, checks of values, -h, --version.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MAX_THREADS = 512  # ggml's GGML_MAX_N_THREADS: with more it crashes
MAX_INT32 = 2**31 - 1  # llama.cpp counts in C's int: anything above would arrive as another number
# Of an answer, unless the user says otherwise: a long one has half as many, and a model that finds
# no end stops at what can still be read.
MAX_TOKENS = 2048
_MAX_DEPTH = 8  # of drafts, as the engine's MAX_DEPTH
CACHE_PROMPT_GIB = 4.0  # that prompts on disk may take: some 170,000 tokens of a model of 1.5B


def file_name(text: str) -> Path:
    """A file that the user named; an empty name would be the current folder."""
    if not text:
        raise typer.BadParameter("an empty name.")
    return Path(text)


def utf8(text: str | None) -> str | None:
    if text is not None and any("\ud800" <= char <= "\udfff" for char in text):
        raise typer.BadParameter("not UTF-8 text.")
    return text


def depth_text(text: str) -> str:
    if text == "auto" or (text.isascii() and text.isdecimal() and int(text) <= _MAX_DEPTH):
        return text
    raise typer.BadParameter(f"{text!r} is neither 'auto' nor a number from 0 to {_MAX_DEPTH}.")


def pairs(texts: list[str] | None) -> list[str] | None:
    """Of the form NAME=VALUE."""
    for text in texts or ():
        name, equals, _value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE.")
        utf8(text)
    return texts


HELP = {"help_option_names": ["-h", "--help"]}  # context settings of every command


def _show_version(context: typer.Context, wanted: bool) -> None:
    """This package, the llama.cpp under it, and whose kernels run on this machine."""
    if not wanted:
        return
    from importlib.metadata import version

    print(f"{context.find_root().info_name} {version('mtp-cli')}")
    from mtp_cli.engine.backend import our_kernels  # loads llama.cpp

    print(f"llama-cpp-python {version('llama-cpp-python')}")
    vectors = our_kernels.install()
    print("kernels: llama.cpp's" if vectors is None else f"kernels: ours, {vectors}")
    raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Show the versions of this and of llama.cpp, and whose CPU kernels run.",
    ),
]
