"""The options of `mtp-train`'s commands. Knows nothing of what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.options import MAX_THREADS

Folder = Annotated[
    Path, typer.Option("--folder", "-f", metavar="PATH", help="Corpus, checkpoint and log.")
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PATH|NAME",
        help="The target's GGUF, name, or hf:USER/REPO[:QUANT]. [default: built in]",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=MAX_THREADS, help="CPU threads. [default: the physical cores]"
    ),
]
Tokens = Annotated[
    int, typer.Option(metavar="N", help="How many tokens of text the target writes.")
]
Slots = Annotated[int, typer.Option(metavar="N", help="Conversations written at once.")]
Bf16 = Annotated[
    bool,
    typer.Option(
        "--bf16",
        help="Write with a BF16 copy of the target: for formats that our kernels lack.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Another seed writes another corpus.")]
Steps = Annotated[int, typer.Option(metavar="N", help="Optimizer steps of the whole run.")]
Batch = Annotated[
    int,
    typer.Option(metavar="N", min=512, help="Positions of a step: more are a calmer, longer one."),
]
Draft = Annotated[
    int | None,
    typer.Option(
        "--vocabulary",
        metavar="N",
        help="Draft in the ids that the target wrote most, so many. [default: --start's, or 8192]",
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Heads to go on from, which keep their form; none: random weights. "
        "[default: the model's own heads, if it has any]",
    ),
]
Cooldown = Annotated[
    bool,
    typer.Option(
        "--cooldown",
        help="Go on from --start at 0.3 of the usual rates, falling from the first step.",
    ),
]
Average = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Write the mean of the checkpoint's weights and this head file's, its --start.",
    ),
]
Width = Annotated[
    int | None, typer.Option("--ffn", metavar="N", help="FFN width. [default: the target's]")
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="I,J,K",
        help="Layers whose input rows the head fuses; none: it reads the final row alone. "
        "[default: --start's, or the third, the middle one and the third to last]",
    ),
]
PromptRows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=4096,
        help="Rows of a prompt's end that a head reads which fuses layers. [default: 256]",
    ),
]


Final = Annotated[
    bool | None,
    typer.Option(
        "--final/--no-final",
        help="Let a head that fuses layers read the final row, too, where the target answers. "
        "[default: --start's, or where llama.cpp gives it]",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, mps.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The head file to write.")
]
RunOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The head file to write. [default: beside the model, where mtp-chat finds it]",
    ),
]
Hours = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        min=0.1,
        help="Take so many hours for all of it, report included, instead of --tokens and --steps.",
    ),
]
Heads = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The head file to read.")
]
Depth = Annotated[int, typer.Option(metavar="N", min=1, max=8, help="Draft positions measured.")]
Length = Annotated[int, typer.Option(metavar="N", help="Longest measured answer, in tokens.")]

Second = Annotated[
    bool,
    typer.Option(
        "--second",
        help="Measure on a second set of prompts, by which no recipe was chosen.",
    ),
]
Recorded = Annotated[
    bool,
    typer.Option(
        "--record/--no-record",
        help="Measure what the head accepts, and keep that in its file for mtp-convert check.",
    ),
]
Record = Annotated[
    bool,
    typer.Option("--record", help="Keep it in the head file, for mtp-convert check."),
]

NO_START = Path("none")  # of --start
DEFAULT_FOLDER = Path("mtp-train")
DEFAULT_OUTPUT = Path("mtp-head.gguf")
