"""Time and peak memory of mtp-convert, alone on a huge checkpoint and beside llama.cpp's converter.

    python -m benchmarks.converting memory FOLDER --stored BF16,F8_E4M3 --outtypes q8_0,bf16,q4_k
                                                                   # sparse checkpoints of 20 GB
    python -m benchmarks.converting compare FOLDER --llama-cpp T   # a random one of 1.2 GB

`compare` needs PyTorch, transformers and llama.cpp's source tree T (in the llama-cpp-python sdist,
vendor/llama.cpp). FOLDER is made, and must not exist. Each measured process is one of its own;
"anonymous" is what it holds itself, without pages of mapped files.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from mtp_convert.checkpoint.folder import open_checkpoint
from tests.convert import llama_cpp_converter
from tests.convert.checkpoints import write_tokenizer
from tests.convert.sparse import ITEM_BYTES, write_sparse_checkpoint

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Folder = Annotated[Path, typer.Argument(help="A folder that does not exist yet.")]
SAMPLE_S = 0.05
ALLOWANCE = 300_000_000


@dataclass(frozen=True)
class Measured:
    """One process: seconds of the clock and of the CPU, and peaks of its memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak: int
    peak_anonymous: int


def measure(command: list[str]) -> Measured:
    """Run a command to its end; RuntimeError when it fails."""
    started, anonymous = time.perf_counter(), 0
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages)
        pid = 0
        while not pid:
            time.sleep(SAMPLE_S)
            anonymous = max(anonymous, _anonymous(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - started
        if status:
            messages.seek(0)
            said = messages.read().decode(errors="replace")[-500:]
            raise RuntimeError(f"{command[:5]} ended with {status}: {said}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, peak, anonymous)


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def ours(folder: Path, out: Path, outtype: str) -> list[str]:
    command = [sys.executable, "-m", "mtp_convert.cli", "convert", str(folder), "-o", str(out)]
    return [*command, "--outtype", outtype]


def theirs(folder: Path, out: Path, outtype: str, tree: Path) -> list[str]:
    command = [sys.executable, llama_cpp_converter.__file__, str(tree), "qwen2", "transformers"]
    return [*command, str(folder), str(out), outtype]


def n_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@app.command()
def memory(
    folder: Folder,
    stored: Annotated[
        str, typer.Option("--stored", help=f"The checkpoint's formats: {', '.join(ITEM_BYTES)}.")
    ] = "BF16",
    outtypes: Annotated[str, typer.Option("--outtypes")] = "q8_0",
    gigabytes: Annotated[float, typer.Option("--gigabytes", min=0.1)] = 20.0,
    json_file: JsonFile = None,
) -> None:
    """Convert sparse checkpoints whole, and compare their peaks with what is promised."""
    records, checkpoint = [], folder / "checkpoint"
    for source in stored.split(","):
        largest = sparse_checkpoint(checkpoint, source, int(gigabytes * 1e9))
        bound = 2 * largest + ALLOWANCE
        records += [_converted(checkpoint, source, to, bound) for to in outtypes.split(",")]
        shutil.rmtree(checkpoint)
    folder.rmdir()
    _save(json_file, records)
    raise typer.Exit(int(any(record["peak"] > record["bound"] for record in records)))


def sparse_checkpoint(folder: Path, stored: str, size: int) -> int:
    """A checkpoint of at least `size` bytes; the bytes of its largest tensor."""
    embd, ff = 4096, 16384
    layer_bytes = (2 * embd * embd + embd * embd // 2 + 3 * embd * ff) * ITEM_BYTES[stored]
    n_layers = -(-size // layer_bytes)
    write_sparse_checkpoint(folder, n_layers=n_layers, embd=embd, ff=ff, stored=stored)
    return max(entry.n_bytes for entry in open_checkpoint(folder).tensors.values())


def _converted(checkpoint: Path, stored: str, outtype: str, bound: int) -> dict[str, Any]:
    out = checkpoint.with_name("out.gguf")
    found = measure(ours(checkpoint, out, outtype))
    before, after = n_bytes(checkpoint), out.stat().st_size
    out.unlink()
    Console().print(
        f"{before / 1e9:.1f} GB in {stored} to {after / 1e9:.1f} GB in {outtype}: "
        f"{found.seconds:.0f} s ({found.cpu_seconds:.0f} s of CPU); peak {found.peak / 1e6:.0f} MB "
        f"({found.peak_anonymous / 1e6:.0f} MB anonymous), promised {bound / 1e6:.0f} MB",
        soft_wrap=True,
    )
    return {
        "stored": stored, "outtype": outtype, "checkpoint_bytes": before, "output_bytes": after,
        "bound": bound, **asdict(found),
    }  # fmt: skip


@app.command()
def compare(
    folder: Folder,
    llama_cpp: Annotated[Path, typer.Option("--llama-cpp", envvar="MTP_LLAMA_CPP")],
    outtypes: Annotated[str, typer.Option("--outtypes")] = "bf16,f16,q8_0",
    repetitions: Annotated[int, typer.Option("--repetitions", min=1)] = 3,
    json_file: JsonFile = None,
) -> None:
    """Convert a random checkpoint of 1.2 GB with both converters in turn."""
    checkpoint = write_sparse_checkpoint(folder / "checkpoint", n_layers=8, embd=2048, ff=8192)
    fill(checkpoint)
    write_tokenizer(checkpoint)
    out, records = folder / "out.gguf", []
    for outtype in outtypes.split(","):
        commands = {
            "mtp-convert": ours(checkpoint, out, outtype),
            "llama.cpp": theirs(checkpoint, out, outtype, llama_cpp),
        }
        for repetition in range(repetitions):
            for name, command in commands.items():
                found = asdict(measure(command))
                records.append({"converter": name, "outtype": outtype, "run": repetition, **found})
                out.unlink()
    size = n_bytes(checkpoint)
    shutil.rmtree(folder)
    Console().print(_table(records, size, repetitions))
    _save(json_file, {"checkpoint_bytes": size, "runs": records})


def fill(folder: Path) -> None:
    """Weights as a trained model has them, in place of the holes: normal, of deviation 0.02."""
    random = np.random.default_rng(1)
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("r+b") as stream:
            position = 8 + int.from_bytes(stream.read(8), "little")
            stream.seek(position)
            while position < size:
                count = min(1 << 22, (size - position) // 2)
                values = random.standard_normal(count, np.float32) * np.float32(0.02)
                position += stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())


def _table(records: list[dict[str, object]], size: int, repetitions: int) -> Table:
    table = Table(title=f"{size / 1e9:.2f} GB in BF16, medians of {repetitions}, peaks of all")
    for heading in ("outtype", "converter", "seconds", "CPU s", "peak MB", "anonymous MB"):
        table.add_column(
            heading, justify="left" if heading in ("outtype", "converter") else "right"
        )
    for key in dict.fromkeys((str(r["outtype"]), str(r["converter"])) for r in records):
        chosen = [r for r in records if (r["outtype"], r["converter"]) == key]

        def values(name: str, chosen: list[dict[str, object]] = chosen) -> list[float]:
            return [float(str(record[name])) for record in chosen]

        table.add_row(
            *key,
            f"{statistics.median(values('seconds')):.1f}",
            f"{statistics.median(values('cpu_seconds')):.1f}",
            f"{max(values('peak')) / 1e6:.0f}",
            f"{max(values('peak_anonymous')) / 1e6:.0f}",
        )
    return table


def _save(file: Path | None, record: object) -> None:
    if file is not None:
        file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app()
