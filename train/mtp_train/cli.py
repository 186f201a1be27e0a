"""The command `mtp-train`: makes heads for a target, step by step or all at once.

Owns the command line and what it prints (all of it on stderr, results on stdout). Every command
continues what it finds in its folder, so the same line can be run again after an interruption.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtp_cli.errors import MtpError
from mtp_cli.options import HELP, MAX_THREADS, Version
from mtp_cli.screen import printing, say_error
from mtp_train.pytorch import INSTALL_TORCH, NO_TORCH, check_torch

# What a command works with is imported when it runs, so that help comes without numpy.
if TYPE_CHECKING:
    from rich.progress import Progress

    from mtp_train.corpus import Sample
    from mtp_train.measure import Acceptance
    from mtp_train.target import Target

app = typer.Typer(
    context_settings=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Makes multi-token-prediction heads for a model that has none. The model writes its own "
    f"training text. Needs PyTorch; in a clone of mtp-cli: {INSTALL_TORCH}",
)

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
    bool, typer.Option("--bf16", help="Write with a BF16 copy of the target: faster on CPUs.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Another seed writes another corpus.")]
Steps = Annotated[int, typer.Option(metavar="N", help="Optimizer steps of the whole run.")]
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
    typer.Option(metavar="PATH", help="A head file to go on from. [default: random weights]"),
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
        "[default: the third, the middle one and the third to last]",
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
        help="Divide so many hours between writing and training, instead of --tokens and --steps.",
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

DEFAULT_FOLDER = Path("mtp-train")
DEFAULT_OUTPUT = Path("mtp-head.gguf")
_N_HELD_OUT = 60


def _target_path(model: Path | None) -> Path:
    from mtp_cli import models

    return models.find(model).model


def _progress() -> Progress:
    from rich import progress as bars
    from rich.console import Console

    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


@app.callback()
def commands(version: Version = False) -> None:
    """Makes multi-token-prediction heads for a model that has none."""


@app.command(short_help="Have the target write its training text.")
def generate(
    folder: Folder = DEFAULT_FOLDER,
    model: Model = None,
    tokens: Tokens = 1_000_000,
    slots: Slots = 128,
    seed: Seed = 1,
    bf16: Bf16 = False,
    layers: Layers = None,
    threads: Threads = None,
) -> None:
    """Have the target write its training text, with its hidden rows, until there is enough."""
    from mtp_cli import models
    from mtp_train.batching import bf16_copy
    from mtp_train.files import remove_abandoned
    from mtp_train.generate import Generator, Settings
    from mtp_train.layer_rows import chosen_layers
    from mtp_train.preflight import check_writing
    from mtp_train.target import Target

    corpus, path = folder / "corpus", _target_path(model)
    have = _written(corpus, path)
    check_writing(path, folder, n_tokens=max(0, tokens - have), bf16=bf16)
    corpus.mkdir(parents=True, exist_ok=True)
    for place in (folder, corpus):
        remove_abandoned(place)
    if have >= tokens:
        print(f"{corpus}: {have:,} tokens", file=sys.stderr)
        return
    if bf16:
        path = bf16_copy(path, folder)
    settings = Settings(
        tokens - have,
        n_slots=slots,
        seed=seed + 1000 * have,
        layers=chosen_layers(Target(path), layers),
        system=models.defaults(_target_path(model)).system,
    )
    generator = Generator(path, corpus, settings, threads or _threads())
    with _progress() as progress:
        task = progress.add_task("writing", total=tokens, completed=have, note="")
        generator.run(lambda n: progress.update(task, completed=have + n))
    generator.close()


def _written(corpus: Path, target: Path) -> int:
    """Tokens that are there already."""
    from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
    from mtp_train.corpus import n_tokens_in

    return n_tokens_in(corpus, target_fingerprint(read_shards(target))) if corpus.is_dir() else 0


def _threads() -> int:
    from mtp_cli.engine.backend.cores import physical_cores

    return physical_cores()


@app.command(short_help="Train a head on the corpus.")
def fit(
    folder: Folder = DEFAULT_FOLDER,
    model: Model = None,
    steps: Steps = 2000,
    vocabulary: Draft = None,
    ffn: Width = None,
    layers: Layers = None,
    prompt_rows: PromptRows = None,
    start: Start = None,
    cooldown: Cooldown = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Train a head on the corpus, from the folder's checkpoint if it has one."""
    if cooldown and start is None:
        raise typer.BadParameter("--cooldown goes on from a head: name it with --start")
    import torch

    from mtp_train.corpus import coverage, read_corpus
    from mtp_train.fit import Settings
    from mtp_train.recipe import Choices, prepare, rows_to_read
    from mtp_train.target import Target

    if cooldown:
        settings = Settings.cooldown(steps)
    else:
        settings = Settings.going_on(steps) if start else Settings(steps)
    torch.set_num_threads(threads or _threads())
    path = _target_path(model)
    target = Target(path)
    fused, n_rows = rows_to_read(target, folder, layers, prompt_rows, start)
    _add_layers(target, folder, fused, threads)
    banned = _measured_prompts(path)
    corpus = read_corpus(folder / "corpus", target.fingerprint, banned, fused)
    if not corpus.training or not corpus.held_out:
        raise MtpError(
            f"{folder}: too little text to train on and to measure with; mtp-train generate writes "
            "more, with a larger --tokens"
        )
    run = prepare(
        target,
        corpus,
        folder,
        settings,
        Choices(vocabulary, ffn, fused, n_rows),
        device=device,
        start=start,
    )
    covered = coverage(corpus.held_out, run.vocabulary.draft_ids)
    print(
        f"{corpus.n_tokens:,} tokens to train on, {len(corpus.held_out)} texts held out, "
        f"{covered:.1%} of their answers inside the draft vocabulary",
        file=sys.stderr,
    )
    held_out: Sequence[Sample] = corpus.held_out[:_N_HELD_OUT]
    with _progress() as progress:
        task = progress.add_task("training", total=steps, completed=run.progress.step, note="")
        run.train(
            held_out,
            lambda at, loss: progress.update(task, completed=at.step, note=f"loss {loss:.3f}"),
            lambda at, found: progress.console.print(f"step {at.step}: {found}"),
        )


def _add_layers(target: Target, folder: Path, layers: tuple[int, ...], threads: int | None) -> None:
    """Read texts again that lack the rows of some layers."""
    from mtp_train.corpus import n_tokens_of
    from mtp_train.layer_rows import missing_layers
    from mtp_train.reread import add_layers

    corpus = folder / "corpus"
    lacking = [path for path in sorted(corpus.glob("*.npz")) if missing_layers(path, layers)]
    if not lacking:
        return
    copies = sorted(folder.glob(f"target-bf16-{target.fingerprint[:16]}.gguf"))
    with _progress() as progress:
        n_tokens = sum(n_tokens_of(path, target.fingerprint) for path in lacking)
        task = progress.add_task("reading", total=n_tokens, note="")
        add_layers(
            copies[0] if copies else target.path,
            lacking,
            target.fingerprint,
            layers,
            eps=target.sizes.rms_eps,
            n_threads=threads or _threads(),
            on_text=lambda n: progress.advance(task, n),
        )


def _measured_prompts(path: Path) -> list[bytes]:
    from mtp_cli.engine import Engine
    from mtp_train.measure import held_out_keys

    with Engine.open(path, n_ctx=512) as engine:
        return held_out_keys(engine)


@app.command()
def export(
    folder: Folder = DEFAULT_FOLDER,
    model: Model = None,
    output: Output = DEFAULT_OUTPUT,
    average: Average = None,
) -> None:
    """Write the checkpoint as a head-only GGUF."""
    from mtp_train.recipe import export as write
    from mtp_train.target import Target

    n_bytes = write(Target(_target_path(model)), folder, output, average=average)
    print(f"{output}: {n_bytes:,} bytes", file=sys.stderr)


@app.command(short_help="Acceptance at each draft position.")
def measure(
    heads: Heads = DEFAULT_OUTPUT,
    model: Model = None,
    depth: Depth = 3,
    max_tokens: Length = 200,
    second: Second = False,
    threads: Threads = None,
) -> None:
    """Acceptance at each draft position in the engine's own loop, on held-out chat prompts."""
    from mtp_cli import models
    from mtp_train import second_set
    from mtp_train.measure import PROMPTS
    from mtp_train.measure import measure as measure_heads

    target = _target_path(model)
    found = measure_heads(
        target,
        heads,
        system=models.defaults(target).system,
        depth=depth,
        max_tokens=max_tokens,
        n_threads=threads,
        prompts=second_set.PROMPTS if second else PROMPTS,
        on_answer=lambda group, one: print(f"{group}: {_line(one)}", file=sys.stderr),
    )
    for group, counts in found.items():
        print(f"{group:18} {_line(counts)}")


def _line(counts: Acceptance) -> str:
    conditional = " ".join(f"{rate:.3f}" for rate in counts.conditional)
    return f"{conditional}  tokens/round {counts.tokens_per_round:.2f}  ({counts.n_tokens} tokens)"


@app.command(short_help="Everything: write the text, train, export, measure, report.")
def run(
    folder: Folder = DEFAULT_FOLDER,
    model: Model = None,
    output: RunOutput = None,
    hours: Hours = None,
    tokens: Tokens = 1_000_000,
    steps: Steps = 2000,
    bf16: Bf16 = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Everything: write the text, train, export, measure, report. Run again to continue."""
    from mtp_train.layer_rows import chosen_layers
    from mtp_train.preflight import check_output, check_writing, default_output
    from mtp_train.target import Target

    path = _target_path(model)
    check_torch(device)
    output = output or default_output(path)
    check_output(output, path)
    written = _written(folder / "corpus", path)
    check_writing(
        path,
        folder,
        n_tokens=0 if hours else max(0, tokens - written),
        bf16=bf16,
        trains=True,
        n_layers=len(chosen_layers(Target(path), None)),
    )
    from mtp_train.plan import Plan, plan_of

    plan = plan_of(
        path,
        folder,
        Plan(tokens, steps),
        hours,
        bf16=bf16,
        device=device,
        n_threads=threads or _threads(),
        n_written=written,
        say=lambda line: print(line, file=sys.stderr),
    )
    generate(folder, model, plan.tokens, bf16=bf16, threads=threads)
    fit(folder, model, plan.steps, device=device, threads=threads)
    export(folder, model, output)
    _report(folder, path, output, threads)


def _report(folder: Path, path: Path, heads: Path, threads: int | None) -> None:
    """Measure the head, and say what it came to: on stdout, and in the folder's files."""
    from mtp_cli import models
    from mtp_train.measure import measure as measure_heads
    from mtp_train.measure import speeds
    from mtp_train.report import Report, group_of, read_curve, write_report
    from mtp_train.target import Target

    system = models.defaults(path).system
    counts = measure_heads(
        path, heads, system=system, depth=3, max_tokens=200, n_threads=threads,
        on_answer=lambda group, one: print(f"{group}: {_line(one)}", file=sys.stderr),
    )  # fmt: skip
    found = speeds(path, heads, max_tokens=200, system=system, n_threads=threads)
    groups = {name: group_of(counts[name], *found[name]) for name in found}
    made = Report(Target(path).name, _written(folder / "corpus", path), groups, read_curve(folder))
    print(made.text(), end="")
    for written in write_report(folder, made):
        print(f"{written}: written", file=sys.stderr)


def main() -> None:
    try:
        with printing():
            app(prog_name="mtp-train")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        say_error(MtpError(NO_TORCH), sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
