"""Time and peak memory of mtp-convert and llama.cpp's converter on one checkpoint: a script.

Makes a random Llama of about 1.2 GB in BF16 and converts it with both, alternating, three times
each. Needs what the oracle tests need. Usage: python -m tests.convert.compare_converters FOLDER
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.convert.checkpoints import write_tokenizer
from tests.convert.sparse import write_sparse_checkpoint

SCRIPT = Path(__file__).with_name("llama_cpp_converter.py")
REPETITIONS = 3
CHUNK = 1 << 24


def fill(folder: Path) -> None:
    """Random bytes that are finite BF16 values, in place of the holes."""
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("r+b") as stream:
            position = 8 + int.from_bytes(stream.read(8), "little")
            stream.seek(position)
            while position < size:
                block = bytearray(os.urandom(min(CHUNK, size - position)))
                block[1::2] = bytes(byte & 0xBF for byte in block[1::2])  # exponents below 128
                position += stream.write(block)


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak gigabytes of one process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command[:4]} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    root, tree = Path(sys.argv[1]), os.environ["MTP_LLAMA_CPP"]
    folder = write_sparse_checkpoint(root / "checkpoint", n_layers=8, embd=2048, ff=8192)
    fill(folder)
    write_tokenizer(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    print(f"checkpoint: {size:.2f} GB in BF16; medians of {REPETITIONS}")
    for outtype in ("bf16", "f16", "q8_0"):
        out = str(root / "out.gguf")
        tail = ["--outtype", outtype]
        commands = {
            "mtp-convert": [sys.executable, "-m", "convert.cli", "convert", str(folder), "-o", out],
            "llama.cpp": [sys.executable, str(SCRIPT), tree, "qwen2", "transformers", str(folder),
                          "--outfile", out],
        }  # fmt: skip
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(REPETITIONS):
            for name, command in commands.items():
                found[name].append(run([*command, *tail]))
        for name, runs in found.items():
            seconds = statistics.median(seconds for seconds, _ in runs)
            peak = max(peak for _, peak in runs)
            print(f"{outtype:5} {name:12} {seconds:6.1f} s  {peak:5.2f} GB peak")


if __name__ == "__main__":
    main()
