"""What is left of the speed while other programs compute, with threads as they come and fixed ones.

It makes the load itself: processes that only add numbers up. Answers of the same prompt take turns:
with threads that follow the machine (the default), with one on every core, and with one alone;
plain and drafting. A llama-bench beside them is asked for as many tokens.

    python -m benchmarks.busy                                  # the built-in model, two minutes
    python -m benchmarks.busy --model m.gguf --loads 0,1,2,4
    python -m benchmarks.busy --peer-bench path/to/llama-bench --json busy.json
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.llama_bench import written_per_s
from benchmarks.options import JsonFile
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.errors import MtpError

FOLLOWING, ALL, ONE = "following", "all cores", "one"
PEER = "llama-bench"
DEPTHS: dict[str, Depth] = {"plain": 0, "drafting": "auto"}
N_PEER = 64  # tokens that a llama-bench generates at a time
N_LEAST = 8  # tokens of an answer

Speeds = dict[tuple[int, str, str], list[float]]  # load, threads, plain or drafting


@contextmanager
def load(n_programs: int) -> Iterator[None]:
    """So many other programs compute meanwhile."""
    code = "while True: sum(range(100_000))"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(n_programs)]
    try:
        time.sleep(1.0)  # until they compute, and are seen
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def tokens_per_s(engine: Engine, prompt: list[int], depth: Depth, seconds: float) -> float:
    """Of answers one after another, for so long; reading the prompt does not count."""
    n_tokens, decode_s = 0, 0.0
    while decode_s < seconds:
        engine.forget()
        answer = engine.generate(prompt, Sampling(temperature=0), max_tokens=1024, depth=depth)
        for _ in answer:
            if decode_s + answer.stats.decode_s > seconds:
                answer.stop()
        is_cut_off = decode_s + answer.stats.decode_s > seconds
        if answer.stats.completion_tokens < N_LEAST and not is_cut_off:
            raise MtpError(
                f"the model answers in fewer than {N_LEAST} tokens, and would mostly read the "
                "prompt again; name another --model"
            )
        n_tokens += answer.stats.completion_tokens - 1  # the first is the prompt's
        decode_s += answer.stats.decode_s
    return n_tokens / decode_s


def measure(
    files: models.ModelFiles,
    loads: list[int],
    seconds: float,
    repetitions: int,
    peer: Path | None,
) -> Speeds:
    n_cores = physical_cores()
    found: Speeds = defaultdict(list)
    with ExitStack() as opened:
        engines = {
            name: opened.enter_context(
                Engine.open(files.model, files.heads, n_ctx=4096, n_threads=n_threads)
            )
            for name, n_threads in {FOLLOWING: None, ALL: n_cores, ONE: 1}.items()
        }
        first = engines[ALL]
        prompt = prompt_ids(first, PROMPTS["creative"][0], system=files.defaults.system)
        for engine in engines.values():
            engine.costs()
        for _ in range(repetitions):
            for n_programs in loads:
                with load(n_programs):
                    for what, depth in DEPTHS.items():
                        for name, engine in engines.items():
                            speed = tokens_per_s(engine, prompt, depth, seconds)
                            found[n_programs, name, what].append(speed)
                    if peer is not None:
                        speed = written_per_s(peer, files.model, N_PEER, n_cores)
                        found[n_programs, PEER, "plain"].append(speed)
    return found


def as_json(found: Speeds) -> dict[str, Any]:
    """loads: by other programs, then threads, then plain or drafting: tokens_per_s, a median, and
    of_idle, over the same with a thread on every core and no other program.
    """
    medians = {key: statistics.median(speeds) for key, speeds in found.items()}
    loads: dict[str, Any] = {}
    for (n_programs, threads, what), speed in medians.items():
        idle = medians[0, PEER if threads == PEER else ALL, what]
        one = {"tokens_per_s": speed, "of_idle": speed / idle}
        loads.setdefault(str(n_programs), {}).setdefault(threads, {})[what] = one
    return {"loads": loads}


def table(content: dict[str, Any]) -> Table:
    out = Table(title="tokens a second; in brackets of the idle machine's, a thread on every core")
    for name in ("other programs", "threads", *DEPTHS):
        out.add_column(name, justify="left" if name == "threads" else "right")
    for n_programs, by_threads in content["loads"].items():
        for threads, found in by_threads.items():
            cells = (
                f"{found[what]['tokens_per_s']:.1f} ({found[what]['of_idle']:.2f})"
                if what in found
                else ""
                for what in DEPTHS
            )
            out.add_row(n_programs, threads, *cells)
    return out


def main(
    model: Annotated[Path | None, typer.Option(help="Default: built in.")] = None,
    heads: Annotated[Path | None, typer.Option(help="Head-only GGUF.")] = None,
    loads: Annotated[
        str, typer.Option(help="Other programs, with commas between; 0 is what counts as idle.")
    ] = "0,1,2",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each answer.")] = 3.0,
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    peer_bench: Annotated[Path | None, typer.Option(help="A llama-bench to set beside.")] = None,
    json_file: JsonFile = None,
) -> None:
    wanted = sorted({0, *map(int, loads.split(","))})
    files = models.find(model, heads)
    content = as_json(measure(files, wanted, seconds, repetitions, peer_bench))
    Console().print(table(content))
    if json_file is not None:
        holds_for = recording.provenance(
            "busy", "python -m benchmarks.busy", physical_cores(), files
        )
        recording.write(json_file, {**holds_for, **content})


if __name__ == "__main__":
    try:
        typer.run(main)
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
