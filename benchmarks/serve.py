"""mtp-serve beside llama-server: the same requests, one client, the same file.

    python -m benchmarks.serve --server runs/peer/build/bin/llama-server    # the built-in model
    python -m benchmarks.serve --server BINARY --model m.gguf --json serve.json

Each request is a chat completion, streamed over HTTP and read to its end. It goes to every server
directly one after another, in an order that changes. What counts is what a client sees: tokens of
the answer over the seconds from request to end, prompt and HTTP among them. Ratios are taken within
one request, then the median over repetitions, then the geometric mean over classes. All decode
greedily, with the same threads and context; everything else is as each does by default.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from benchmarks.peer.server import ANSWER_S, HOST, NGRAMS, PLAIN, Running, Server, free_port
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.errors import MtpError
from mtp_cli.options import MAX_THREADS

OURS, OURS_PLAIN = "mtp-serve", "mtp-serve, plain"
PEER, PEER_COPIES = "llama-server", "llama-server, copies"
COPIES = next(setting for setting in NGRAMS if setting.name == "ngram-mod")
WARM_UP = 4  # requests to each server before any that counts: costs are learned in them
REST_S = 0.1  # between requests: threads of the server before may still be waiting busily
_SYSTEM = "You are a helpful assistant."  # said, since servers add different ones where none is


@dataclass(frozen=True)
class Record:
    """One answer. first_s: until its first text; total_s: until its end"""

    server: str
    cls: str
    repetition: int
    tokens: int
    first_s: float
    total_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.total_s


def ours(files: models.ModelFiles, name: str, options: Sequence[str], log: Path) -> Running:
    port = free_port()
    program = (sys.executable, "-c", "from mtp_cli.serve.cli import main; main()")
    named = ["--model", str(files.model)] + (["--heads", str(files.heads)] if files.heads else [])
    return Running(
        name, [*program, *named, "--host", HOST, "--port", str(port), *options], port, log
    )


def ask(url: str, text: str, max_tokens: int) -> tuple[int, float, float]:
    """Tokens of the answer, seconds to the first text and to the end."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=ANSWER_S)
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
    body = {
        "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    started, first_s, n_tokens = time.perf_counter(), 0.0, 0
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        for line in connection.getresponse():
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            if not first_s and any(c["delta"].get("content") for c in chunk.get("choices", ())):
                first_s = time.perf_counter() - started
            if chunk.get("usage"):
                n_tokens = chunk["usage"]["completion_tokens"]
    if not n_tokens:
        raise MtpError(f"{url} gave no answer")
    return n_tokens, first_s, time.perf_counter() - started


def measure(
    servers: Mapping[str, Running], classes: Sequence[str], repetitions: int, max_tokens: int
) -> list[Record]:
    for running in servers.values():
        for n in range(WARM_UP):
            ask(running.client.url, f"Count to {n + 5}, and then back.", max_tokens)
    names, records = [*servers], list[Record]()
    for repetition in range(repetitions):
        for cls in classes:
            text = PROMPTS[cls][repetition % len(PROMPTS[cls])]
            names = [*names[1:], names[0]]
            for name in names:
                time.sleep(REST_S)
                found = ask(servers[name].client.url, text, max_tokens)
                records.append(Record(name, cls, repetition, *found))
    return records


def ratios(records: Sequence[Record], name: str, other: str) -> dict[str, float]:
    """Of speeds, by class, with "geomean" and "worst"."""

    def speeds(server: str, cls: str) -> list[float]:
        return [r.tokens_per_s for r in records if (r.server, r.cls) == (server, cls)]

    found: dict[str, float] = {}
    for cls in dict.fromkeys(record.cls for record in records):
        pairs = zip(speeds(name, cls), speeds(other, cls), strict=True)
        found[cls] = statistics.median(ours / theirs for ours, theirs in pairs)
    means = statistics.geometric_mean(found.values()), min(found.values())
    return {**found, "geomean": means[0], "worst": means[1]}


def compared(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    pairs = ((OURS, PEER), (OURS, PEER_COPIES), (OURS_PLAIN, PEER))
    return {f"{name} / {other}": ratios(records, name, other) for name, other in pairs}


def show(records: Sequence[Record], found: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title="Tokens a second of a client, and ratios", box=None)
    for column in ("server", "tokens/s", "first text, ms"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name in dict.fromkeys(record.server for record in records):
        of = [record for record in records if record.server == name]
        speed = statistics.geometric_mean(record.tokens_per_s for record in of)
        first = statistics.median(1000 * record.first_s for record in of)
        table.add_row(name, f"{speed:.1f}", f"{first:.0f}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for name, by_class in found.items():
        console.print(f"{name}: " + ", ".join(f"{cls} {v:.2f}" for cls, v in by_class.items()))


def main(
    server: Annotated[Path, typer.Option(help="The llama-server to compare with.")],
    model: Annotated[Path | None, typer.Option("--model", "-m")] = None,
    heads: Annotated[Path | None, typer.Option()] = None,
    classes: Annotated[str, typer.Option(help="mtp-bench's.")] = ",".join(PROMPTS),
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=2)] = 64,
    ctx: Annotated[int, typer.Option(min=512)] = 2048,
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS)] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure both servers, alternating."""
    files = models.with_heads_beside(models.find(model, heads))
    n_threads = threads or physical_cores()
    given = ["--ctx", str(ctx), "--threads", str(n_threads)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            OURS: ours(files, OURS, given, folder / "ours.log"),
            OURS_PLAIN: ours(files, OURS_PLAIN, [*given, "--depth", "0"], folder / "plain.log"),
        }
        for name, setting in ((PEER, PLAIN), (PEER_COPIES, COPIES)):
            servers[name] = Server(
                server, files.model, setting, n_ctx=ctx, n_threads=n_threads,
                log=folder / f"{setting.name}.log",
            )  # fmt: skip
        for running in servers.values():
            stack.enter_context(running)
        records = measure(servers, classes.split(","), repetitions, max_tokens)
    found = compared(records)
    show(records, found)
    if json_file is not None:
        holds_for = recording.provenance("serve", "python -m benchmarks.serve", n_threads, files)
        results: dict[str, Any] = {"summary": found, "records": [asdict(r) for r in records]}
        recording.write(json_file, {**holds_for, **results})


if __name__ == "__main__":
    try:
        typer.run(main)
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
