"""The benchmark on models that cost what larger ones do, and say what the built-in one says.

The built-in target and its head are zero-padded (widen.py): the hidden width alone to 4,032, which
gives the matrix rows of a 4B model, or all widths by 3, which gives 1.1B parameters. So real text
and real acceptance meet the memory traffic of a larger model. Nothing here is the speed of any
real model; wherever a number appears it is labelled "scaled".

    python -m benchmarks.scaled --quick                       # BF16 at width 4,032, three minutes
    python -m benchmarks.scaled --json scaled.json            # three formats, 15 minutes on 2 cores
    python -m benchmarks.scaled --sizes width,all --classes all --depths 0,1,2,3,4,5,6,7,8,auto \\
        --repetitions 5 --minutes 90 --json scaled.json       # every class and depth

The measuring is mtp-bench's: interleaved, medians. Answers are as long as the time allows. Before
each measurement the answers and the drafts of the widened model are compared with the narrow
one's in the same format.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.options import JsonFile
from benchmarks.widen import Scale, plan_heads, plan_target
from mtp_cli import models
from mtp_cli.bench import recording, report
from mtp_cli.bench.measure import Bench, Plan, Result, shortened, warm_up
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.bench.trace import Recorder
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from mtp_cli.options import MAX_THREADS
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.write import write

SIZES = {"width": Scale(7), "all": Scale(3, 3)}
FORMATS = ("bf16", "q8_0", "q4_0")
CLASSES = ("python", "explanation", "mathematics", "editing", "chat")
CHECKED = ("chat", "explanation")
N_CHECKED = 24  # tokens of each checked answer
N_CTX = 2048


@dataclass(frozen=True)
class Agreement:
    """How far the widened model says and drafts what the narrow one does.

    n_same:   greedy tokens before the first that differs, of n_tokens
    n_drafts: first drafts that are equal, of those n_same places
    """

    n_same: int = 0
    n_tokens: int = 0
    n_drafts: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.n_same + other.n_same,
            self.n_tokens + other.n_tokens,
            self.n_drafts + other.n_drafts,
        )


Answer = tuple[list[int], list[list[int]]]  # an answer's ids, and what was drafted in each round


def traced(engine: Engine, text: str, n_tokens: int) -> Answer:
    recorder, prompt = Recorder(), prompt_ids(engine, text)
    answer = engine.generate(prompt, Sampling(temperature=0), max_tokens=n_tokens, depth=recorder)
    for _ in answer:
        pass
    return answer.tokens, [draft.ids for draft in recorder.drafts]


def agreement(narrow: Answer, wide: Answer) -> Agreement:
    n = next(
        (i for i, pair in enumerate(zip(narrow[0], wide[0], strict=False)) if pair[0] != pair[1]),
        min(len(narrow[0]), len(wide[0])),
    )
    drafts = list(zip(narrow[1], wide[1], strict=False))[: max(0, n - 1)]
    return Agreement(n, len(narrow[0]), sum(a[:1] == b[:1] for a, b in drafts))


@contextlib.contextmanager
def widened(files: ModelFiles, scale: Scale, folder: Path) -> Iterator[ModelFiles]:
    """The files in BF16 and wider, for as long as they are needed."""
    if files.heads is None:
        raise MtpError(f"{files.name} has no heads of its own; name them with --heads")
    narrow, target, heads = (folder / f"{n}.gguf" for n in ("narrow", "target", "heads"))
    try:
        quantize(files.model, narrow, "bf16")
        write(plan_target(open_model(narrow), scale, "bf16"), target)
        write(plan_heads(open_model(files.heads), open_model(target), scale), heads)
        yield ModelFiles(target, heads)
    finally:
        for path in (narrow, target, heads):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def in_format(path: Path, outtype: str) -> Iterator[Path]:
    if outtype == "bf16":
        yield path
        return
    made = path.with_name(f"{path.stem}-{outtype}.gguf")
    try:
        quantize(path, made, outtype)
        yield made
    finally:
        made.unlink(missing_ok=True)


def checked(narrow: ModelFiles, engine: Engine, n_threads: int | None) -> Agreement:
    texts = [PROMPTS[cls][0] for cls in CHECKED]
    with Engine.open(narrow.model, narrow.heads, n_ctx=N_CTX, n_threads=n_threads) as other:
        expected = [traced(other, text, N_CHECKED) for text in texts]
    found = [traced(engine, text, N_CHECKED) for text in texts]
    return sum(map(agreement, expected, found), Agreement())


def measure(engine: Engine, plan: Plan, seconds: float, label: str) -> tuple[Plan, Result]:
    engine.costs()
    plan = shortened(plan, warm_up(engine), seconds)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=len(plan))
        return plan, Bench(engine, plan).run(lambda _cls: progress.advance(task))


def show(label: str, found: Agreement, plan: Plan, result: Result, engine: Engine) -> None:
    """mtp-bench's tables, each line under the label."""
    console = Console(width=140, highlight=False)
    with console.capture() as capture:
        console.print(
            f"{found.n_same} of {found.n_tokens} greedy tokens and {found.n_drafts} drafts are "
            f"the narrow model's; answers of {plan.max_tokens} tokens"
        )
        report.show(console, plan, result, engine.costs())
    for line in capture.get().splitlines():
        print(f"{label} | {line}".rstrip())


def run_one(
    files: ModelFiles, wide: ModelFiles, outtype: str, label: str, plan: Plan, seconds: float,
    n_threads: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Measure one size in one format; its JSON. model: the widened one, as made for this run."""
    folder = wide.model.parent
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(in_format(wide.model, outtype))
        narrow = stack.enter_context(in_format(folder / "narrow.gguf", outtype))
        engine = stack.enter_context(
            Engine.open(path, wide.heads, n_ctx=N_CTX, n_threads=n_threads)
        )
        found = checked(ModelFiles(narrow, files.heads), engine, n_threads)
        plan, result = measure(engine, plan, seconds, label)
        show(label, found, plan, result, engine)
        content = report.as_json(plan, result, engine.costs())
        model = recording.described(path)
    return {"label": label, "model": model, "agreement": vars(found), **content}


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    is_every = text == "all" and "all" not in known  # it is also the name of a size
    names = known if is_every else tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no {name!r}; there are {', '.join(known)}.")
    return names


def _depths(text: str) -> tuple[Depth, ...]:
    found: list[Depth] = ["auto" if part == "auto" else int(part) for part in text.split(",")]
    return tuple(dict.fromkeys([0, *found]))


def main(
    sizes: Annotated[str, typer.Option(help=f"Of {', '.join(SIZES)}.")] = "width",
    formats: Annotated[str, typer.Option(help=f"Of {', '.join(FORMATS)}.")] = ",".join(FORMATS),
    classes: Annotated[str, typer.Option(help="mtp-bench's, or all.")] = ",".join(CLASSES),
    depths: str = "0,1,2,3,auto",
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=2)] = 64,
    minutes: Annotated[float, typer.Option(help="Of answers, over all sizes and formats.")] = 13,
    quick: Annotated[bool, typer.Option("--quick", help="BF16, three classes, once.")] = False,
    model: Annotated[Path | None, typer.Option("--model", "-m")] = None,
    heads: Path | None = None,
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS)] = None,
    workdir: Annotated[Path | None, typer.Option(help="For files of up to 4 GB.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure drafting on zero-padded, that is scaled, copies of a model."""
    if quick:
        sizes, formats, classes, minutes = "width", "bf16", "python,editing,chat", 2
        depths, repetitions = "0,1,3,auto", 1
    plan = Plan(_chosen(classes, tuple(PROMPTS)), (0.0,), _depths(depths), repetitions, max_tokens)
    chosen = _chosen(formats, FORMATS)
    files = models.find(model, heads)
    runs = []
    for size in _chosen(sizes, tuple(SIZES)):
        seconds = 60 * minutes / len(chosen) / len(sizes.split(","))
        with (
            tempfile.TemporaryDirectory(dir=workdir) as name,
            widened(files, SIZES[size], Path(name)) as wide,
        ):
            width = open_model(wide.model).n_embd
            for outtype in chosen:
                label = f"scaled {size}, {width:,} {outtype}"
                runs.append(run_one(files, wide, outtype, label, plan, seconds, threads))
    if json_file is not None:
        program, n_threads = "python -m benchmarks.scaled", threads or physical_cores()
        holds_for = recording.provenance("scaled", program, n_threads, files, quick=quick)
        recording.write(json_file, {**holds_for, "is_scaled": True, "runs": runs})


if __name__ == "__main__":
    try:
        typer.run(main)
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
