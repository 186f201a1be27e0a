"""How often the built-in model answers right, under each of some settings.

152 short factual questions, 44 small Python tasks, whose code is run, and 48 instructions whose
following a program can check. Answers are appended to a JSON-lines file as they come, so that a run
that was stopped goes on where it was; only answers of the same model, requests and llama.cpp count.
The code that the model writes is run on this machine, with limits but in no sandbox.

    python -m benchmarks.answers    # what is shipped and the template's prompt, greedy too
    python -m benchmarks.answers --systems expert,teacher,helpful --temperatures 0.2 --seeds 3
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.answers.asking import Asked, Job, ask_all
from benchmarks.answers.items import ITEMS
from benchmarks.answers.settings import SYSTEMS, Setting, grid
from benchmarks.answers.summary import table
from mtp_cli import models
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import quantize

_PER_JOB = 24  # requests; so much is asked again when a run is stopped
_BEFORE = Setting("template", 0.8, 40, 0.95, 0.05, 1.0)  # what mtp-chat did until it was asked here

Record = dict[str, Any]


def setup(model: Path) -> Record:
    """What answers hold for, beside their setting, seed and request."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return {
        "benchmark": hashlib.sha256(code).hexdigest(),
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "llama-cpp-python": version("llama-cpp-python"),
    }


def earlier(results: Path, of: Record) -> list[Asked]:
    """What the file holds of one setup."""
    lines = results.read_text().splitlines() if results.exists() else []
    records = [record for record in map(json.loads, lines) if record.items() >= of.items()]
    return [_asked({k: v for k, v in record.items() if k not in of}) for record in records]


def _asked(record: Record) -> Asked:
    return Asked(**{**record, "setting": Setting(**record["setting"])})


def jobs(settings: Sequence[Setting], seeds: int, known: Sequence[Asked]) -> Iterator[Job]:
    """What is still to be asked; a greedy answer has one seed."""
    done = {(asked.setting, asked.seed, asked.request) for asked in known}
    for seed in range(seeds):
        for setting in settings:
            if setting.is_greedy and seed:
                continue
            left = [n for n, i in enumerate(ITEMS) if (setting, seed, i.request) not in done]
            for at in range(0, len(left), _PER_JOB):
                yield Job(setting, seed, tuple(left[at : at + _PER_JOB]))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers with commas between.") from None


def _systems(text: str) -> list[str]:
    unknown = set(text.split(",")) - set(SYSTEMS)
    if unknown:
        raise typer.BadParameter(f"no system prompt {min(unknown)!r}: {', '.join(SYSTEMS)}.")
    return text.split(",")


def main(
    systems: Annotated[str, typer.Option(help=", ".join(SYSTEMS))] = "template,expert",
    temperatures: str = "0,0.2",
    top_k: str = "40",
    top_p: str = "0.9",
    min_p: str = "0",
    repeat_penalty: str = "1",
    seeds: Annotated[int, typer.Option(min=1, help="Of each but greedy settings.")] = 1,
    outtype: Annotated[str, typer.Option(help="Requantize first, e.g. q8_0.")] = "",
    processes: Annotated[int | None, typer.Option(min=1, help="Default: the cores.")] = None,
    results: Path = Path("runs/answers.jsonl"),
) -> None:
    settings = list(
        grid(
            _systems(systems),
            _numbers(temperatures),
            [int(k) for k in _numbers(top_k)],
            _numbers(top_p),
            _numbers(min_p),
            _numbers(repeat_penalty),
        )
    )
    files = models.find()
    results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = files.model
        if outtype:
            model = Path(folder) / f"{outtype}.gguf"
            quantize(files.model, model, outtype)
        of = setup(model)
        known = earlier(results, of)
        to_ask = list(jobs(settings, seeds, known))
        with Progress(console=Console(stderr=True)) as progress, results.open("a") as file:
            task = progress.add_task("asking", total=sum(len(job.requests) for job in to_ask))
            for answers in ask_all(to_ask, model, files.heads, processes or physical_cores()):
                known += answers
                for asked in answers:
                    file.write(json.dumps({**of, **dataclasses.asdict(asked)}) + "\n")
                file.flush()
                progress.advance(task, len(answers))
    wanted = {*settings, _BEFORE}
    Console(width=140).print(table([a for a in known if a.setting in wanted], _BEFORE))


if __name__ == "__main__":
    typer.run(main)
