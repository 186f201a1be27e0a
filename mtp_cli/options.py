"""What the options of all commands have in common: models and heads, limits, -h, --version.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.engine.backend.cache import TYPES

MAX_THREADS = 512  # ggml's GGML_MAX_N_THREADS: with more it crashes
MAX_INT32 = 2**31 - 1  # llama.cpp counts in C's int: anything above would arrive as another number
# Of an answer, unless the user says otherwise: a long one has half as many, and a model that finds
# no end stops at what can still be read.
MAX_TOKENS = 2048


def file_name(text: str) -> Path:
    """A file that the user named; an empty name would be the current folder."""
    if not text:
        raise typer.BadParameter("an empty name.")
    return Path(text)


def _cache_type(text: str) -> str:
    if text not in TYPES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(TYPES)}.")
    return text


Model = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", metavar="PATH", parser=file_name, help="GGUF file. [default: built in]"
    ),
]
Heads = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        parser=file_name,
        help="Head-only GGUF that drafts for the model. [default: the heads inside the model; else "
        "mtp-*.gguf or *-mtp.gguf beside it that was made for it]",
    ),
]
DraftModel = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        parser=file_name,
        help="Smaller model with the same vocabulary that drafts in place of heads.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_THREADS,
        help="CPU threads. [default: the physical cores that other programs leave]",
    ),
]
GpuLayers = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, max=MAX_INT32, help="Layers on the GPU. [default: all that fit]"
    ),
]
CacheTypeK = Annotated[
    str,
    typer.Option(
        "--cache-type-k",
        metavar="TYPE",
        callback=_cache_type,
        help="What the model keeps keys of the context in: f16, q8_0 for half the memory, f32, "
        "bf16, q4_0, q4_1, iq4_nl, q5_0 or q5_1. Answers are those of the model with it.",
    ),
]
CacheTypeV = Annotated[
    str,
    typer.Option(
        "--cache-type-v", metavar="TYPE", callback=_cache_type, help="The same for values."
    ),
]

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
