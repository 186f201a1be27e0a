"""What drafting is worth where answers keep to a JSON schema: ten schemas of different shapes.

Plain constrained decoding and automatic depth take turns, answer by answer; a ratio is taken within
a pair, and the median of a schema's ratios counts. Beside them the same request is answered without
a schema, as free text. All greedy. Every drafted answer is held to the plain one, token for token.

    python -m benchmarks.schemas                            # the built-in model, half a minute
    python -m benchmarks.schemas --model m.gguf --json schemas.json
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from benchmarks.schema_tasks import TASKS, Task
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Generation, Sampling
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.grammar.source import Grammar, json_schema

MAX_TOKENS = 160
N_FREE = 48  # tokens of free text


@dataclass
class Found:
    """Of one schema. speeds: tokens a second; of one repetition after the other

    n_tokens, n_rounds: of the last drafted answer; n_differing: drafted answers that are not plain
    decoding's
    """

    plain: list[float] = field(default_factory=list)
    drafting: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    n_tokens: int = 0
    n_rounds: int = 0
    n_differing: int = 0

    def as_json(self) -> dict[str, Any]:
        pairs = zip(self.drafting, self.plain, strict=True)
        drafting = statistics.median(self.drafting)
        return {
            "tokens": self.n_tokens,
            "rounds": self.n_rounds,
            "plain_per_s": statistics.median(self.plain),
            "drafting_per_s": drafting,
            "free_text_per_s": statistics.median(self.free),
            "over_plain": statistics.median(a / b for a, b in pairs),
            "over_free_text": drafting / statistics.median(self.free),
            "differing": self.n_differing,
        }


def answered(
    engine: Engine, prompt: list[int], depth: Depth, grammar: Grammar | None
) -> Generation:
    answer = engine.generate(
        prompt,
        Sampling(temperature=0),
        max_tokens=N_FREE if grammar is None else MAX_TOKENS,
        depth=depth,
        constraint=None if grammar is None else engine.constrain(grammar),
    )
    for _ in answer:
        pass
    return answer


def measure_once(engine: Engine, task: Task, found: Found) -> None:
    grammar = json_schema(task.schema)
    prompt = prompt_ids(engine, task.request, system="Answer in JSON.")
    plain = answered(engine, prompt, 0, grammar)
    drafted = answered(engine, prompt, "auto", grammar)
    free = answered(engine, prompt, "auto", None)
    found.plain.append(plain.stats.tokens_per_s)
    found.drafting.append(drafted.stats.tokens_per_s)
    found.free.append(free.stats.tokens_per_s)
    found.n_tokens, found.n_rounds = len(drafted.tokens), drafted.stats.rounds
    found.n_differing += drafted.tokens != plain.tokens


def measure(engine: Engine, names: Iterable[str], seconds: float, least: int) -> dict[str, Found]:
    """Each `least` times, and again while there is time."""
    found = {name: Found() for name in names}
    engine.costs()
    for name in found:  # what is read and learned once
        measure_once(engine, TASKS[name], Found())
    started, n = time.monotonic(), 0
    while n < least or time.monotonic() - started < seconds:
        for name, one in found.items():
            measure_once(engine, TASKS[name], one)
        n += 1
    return found


def as_json(found: dict[str, Found]) -> dict[str, Any]:
    schemas = {name: one.as_json() for name, one in found.items()}
    ratios = [one["over_plain"] for one in schemas.values()]
    return {
        "repetitions": min(len(one.plain) for one in found.values()),
        "schemas": schemas,
        "summary": {
            "over_plain": {"geomean": statistics.geometric_mean(ratios), "worst": min(ratios)},
            "over_free_text": statistics.geometric_mean(
                [one["over_free_text"] for one in schemas.values()]
            ),
            "differing": sum(one["differing"] for one in schemas.values()),
        },
    }


def table(content: dict[str, Any]) -> Table:
    out = Table(title="greedy answers in a schema, drafted over plain")
    heads = ("schema", "tokens", "rounds", "plain tok/s", "drafting", "over plain", "free text")
    for name in heads:
        out.add_column(name, justify="left" if name == "schema" else "right")
    for name, one in content["schemas"].items():
        speeds = (f"{one[key]:.1f}" for key in ("plain_per_s", "drafting_per_s"))
        last = f"{one['over_plain']:.2f}", f"{one['free_text_per_s']:.1f}"
        out.add_row(name, str(one["tokens"]), str(one["rounds"]), *speeds, *last)
    return out


def said(content: dict[str, Any]) -> str:
    found = content["summary"]
    return (
        f"over plain {found['over_plain']['geomean']:.2f}, "
        f"worst {found['over_plain']['worst']:.2f}; "
        f"over free text {found['over_free_text']:.2f}; {found['differing']} answers differ"
    )


def main(
    model: Annotated[Path | None, typer.Option(help="Default: built in.")] = None,
    heads: Annotated[Path | None, typer.Option(help="Head-only GGUF.")] = None,
    only: Annotated[str, typer.Option(help="Names, with commas between.")] = "",
    seconds: Annotated[float, typer.Option(min=0, help="Go on for so long.")] = 20.0,
    repetitions: Annotated[int, typer.Option(min=1, help="At least so many.")] = 3,
    json_file: JsonFile = None,
) -> None:
    names = only.split(",") if only else list(TASKS)
    files = models.with_heads_beside(models.find(model, heads))
    with Engine.open(files.model, files.heads, n_ctx=2048) as engine:
        content = as_json(measure(engine, names, seconds, repetitions))
    Console().print(table(content))
    print(said(content))
    if json_file is not None:
        program = "python -m benchmarks.schemas"
        holds_for = recording.provenance("schemas", program, physical_cores(), files)
        recording.write(json_file, {**holds_for, **content})
    sys.exit(1 if content["summary"]["differing"] else 0)


if __name__ == "__main__":
    typer.run(main)
