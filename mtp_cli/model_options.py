"""The options of commands that load a model: its files, what drafts, threads, its cache.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.options import MAX_INT32, MAX_THREADS, file_name


def _cache_type(text: str) -> str:
    from mtp_cli.engine.backend.cache import TYPES  # the converter's start needs no engine

    if text not in TYPES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(TYPES)}.")
    return text


def _on_the_hub(text: str) -> Path:
    return file_name(text and f"hf:{text.removeprefix('hf:')}")


def one_model(model: Path | None, hf_repo: Path | None) -> Path | None:
    """The model that the two options name."""
    if model is not None and hf_repo is not None:
        raise typer.BadParameter("--hf-repo and --model: one of them names the model.")
    return model or hf_repo


Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PATH|NAME",
        parser=file_name,
        help="GGUF file, name of a model on this machine (mtp-chat models lists them), or "
        "hf:USER/REPO[:QUANT], which is downloaded. [default: built in]",
    ),
]
HfRepo = Annotated[
    Path | None,
    typer.Option(
        "--hf-repo",
        "-hf",
        metavar="USER/REPO[:QUANT]",
        parser=_on_the_hub,
        help="The same as --model hf:USER/REPO[:QUANT].",
    ),
]
Heads = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        parser=file_name,
        help="Heads, EAGLE-3 or block drafter, a GGUF. [default: the heads inside the model; else "
        "mtp-*.gguf, *-mtp.gguf, eagle3-*.gguf, dflash-*.gguf or dspark-*.gguf beside it that was "
        "made for it]",
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
