"""Proves that drafted greedy output is the model's own, token for token.

For each number format of the built-in model it answers varied chat prompts plainly, then with
heads at every fixed depth from 1 to 8 and at the automatic depth, and compares the ids. Nothing
here is timed. Findings are appended to a JSON-lines file as they come, so that a run that was
stopped goes on where it was.

    python benchmarks/lossless.py                           # everything: about an hour on 2 cores
    python benchmarks/lossless.py --formats q4_0 --limit 5  # a first look
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from mtp_cli import models
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.quantize import quantize
from mtp_cli.session import prompt_ids

DEPTHS: tuple[Depth, ...] = (1, 2, 3, 4, 5, 6, 7, 8, "auto")
TOPICS = ("volcanoes", "bread", "the Roman Empire", "bicycles", "sleep", "whales", "chess")
REQUESTS = (
    "Tell me five facts about {}.",
    "Write a short dialogue between two friends about {}.",
    "Explain {} to a child.",
)


def prompts() -> list[str]:
    """The benchmark's prompts, and a few subjects in a few forms: 54 in all."""
    varied = [request.format(topic) for topic in TOPICS for request in REQUESTS]
    return [*(text for group in PROMPTS.values() for text in group), *varied]


def answer(engine: Engine, prompt: list[int], depth: Depth, max_tokens: int) -> list[int]:
    generation = engine.generate(
        prompt, Sampling(temperature=0), max_tokens=max_tokens, depth=depth
    )
    for _ in generation:
        pass
    return generation.tokens


def compare(engine: Engine, text: str, max_tokens: int) -> dict[str, object]:
    """Every depth against plain decoding, for one prompt."""
    prompt = prompt_ids(engine, text)
    plain = answer(engine, prompt, 0, max_tokens)
    differing = [d for d in DEPTHS if answer(engine, prompt, d, max_tokens) != plain]
    return {"prompt": text, "n_tokens": len(plain), "differing": differing}


def done_before(results: Path) -> Iterator[tuple[str, str]]:
    if results.exists():
        for line in results.read_text().splitlines():
            record = json.loads(line)
            yield record["format"], record["prompt"]


def main(
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = "q4_0,q4_1,q8_0",
    heads: Annotated[Path | None, typer.Option(help="Default: the shipped ones.")] = None,
    limit: Annotated[int, typer.Option(help="Prompts of each format.")] = 1000,
    max_tokens: int = 200,
    results: Path = Path("runs/lossless.jsonl"),
) -> None:
    files = models.find(heads=heads)
    results.parent.mkdir(parents=True, exist_ok=True)
    known = set(done_before(results))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = {}
        for name in formats.split(","):
            quantize(files.model, folder / name, name)
            engine = Engine.open(folder / name, files.heads, n_ctx=2048)
            engines[name] = stack.enter_context(engine)
        todo = [(text, name) for text in prompts()[:limit] for name in engines]
        for text, name in track(todo, "comparing", console=Console(stderr=True)):
            if (name, text) not in known:
                record = {"format": name, **compare(engines[name], text, max_tokens)}
                with results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    sys.exit(summarize(results))


def summarize(results: Path) -> int:
    """Print the count by format; 1 if any answer differed."""
    records = [json.loads(line) for line in results.read_text().splitlines()]
    for name in sorted({record["format"] for record in records}):
        of_format = [record for record in records if record["format"] == name]
        n_tokens = sum(record["n_tokens"] for record in of_format)
        differing = [record for record in of_format if record["differing"]]
        print(
            f"{name}: {len(of_format)} prompts, {n_tokens} tokens, depths 1-8 and auto: "
            f"{len(differing)} prompts differ"
        )
        for record in differing:
            print(f"  depths {record['differing']}: {record['prompt'][:60]}")
    return int(any(record["differing"] for record in records))


if __name__ == "__main__":
    typer.run(main)
