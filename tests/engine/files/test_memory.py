"""The estimate beside what llama.cpp says it allocates, for each kind of memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.memory import Estimate, Machine, estimate, fits_laid_out, shortage
from mtp_cli.engine.tuning import TUNING
from tests.engine import tiny, tiny_block, tiny_eagle3
from tests.engine.conftest import Files

N_CTX = 1000  # no multiple of what llama.cpp gives
# Loads each file as the engine does, and prints the sizes that llama.cpp logs, in MiB.
SCRIPT = """
import ctypes, json, re, sys
from pathlib import Path
from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import HiddenSource
said = []
callback = lib.llama_log_callback(lambda level, text, _: said.append(text.decode()))
lib.llama_log_set(callback, ctypes.c_void_p(0))
found = []
for path in sys.argv[4:]:
    said.clear()
    model = Model(Path(path))
    target = Target(model, n_ctx=int(sys.argv[1]), n_threads=1, hidden=HiddenSource.EMBD,
                    cache=CacheTypes(*sys.argv[2:4]))
    log = "".join(said)
    def sizes(pattern):
        return sum(float(size) for size in re.findall(pattern, log))
    found.append({
        "cache": sizes(r"llama_kv_cache: size = +([\\d.]+) MiB"),
        "state": sizes(r"llama_memory_recurrent: size = +([\\d.]+) MiB")
        + sizes(r"DSV4 \\w+ state buffer size = +([\\d.]+) MiB"),
        "compute": sizes(r"compute buffer size = +([\\d.]+) MiB"),
    })
    target.close()
    model.close()
print(json.dumps(found))
"""
MIB = 1 << 20
ROUNDED = 0.0051  # MiB: two decimals of each size that llama.cpp logs
SPECS = ("llama", "gemma2", "mimo2", "mamba", "jamba", "qwen3next", "qwen35", "lfm2", "lfm2-window")


def allocated(n_ctx: int, cache: CacheTypes, *paths: Path) -> list[dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(n_ctx), *cache, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("cache", [CacheTypes(), CacheTypes("f32", "bf16")])
def test_cache_and_state_are_what_llama_cpp_allocates(tiny_file: Files, cache: CacheTypes) -> None:
    paths = [tiny_file(name) for name in SPECS]
    for path, real in zip(paths, allocated(N_CTX, cache, *paths), strict=True):
        needed = estimate(read_shards(path), n_ctx=N_CTX, cache=cache)
        assert needed.cache / MIB == pytest.approx(real["cache"], abs=2 * ROUNDED), path.name
        assert needed.state / MIB == pytest.approx(real["state"], abs=ROUNDED), path.name


def test_the_buffers_are_of_the_right_order(tiny_file: Files) -> None:
    paths = [tiny_file(name) for name in SPECS]
    for path, real in zip(paths, allocated(8192, CacheTypes(), *paths), strict=True):
        needed = estimate(read_shards(path))
        assert 0.5 < needed.compute / MIB / real["compute"] < 2, path.name


def test_weights_are_all_tensors_and_heads_what_is_beside(tiny_file: Files) -> None:
    target, heads = tiny_file("llama"), tiny_file("heads")
    alone = estimate(read_shards(target))
    header = read_shards(target)[0]
    assert alone.weights == sum(entry.n_bytes for entry in header.tensors.values())
    assert (alone.heads, alone.n_ctx) == (0, 4096)  # what it was trained with
    of_heads = sum(entry.n_bytes for entry in read_shards(heads)[0].tensors.values())
    assert estimate(read_shards(target), heads=heads).heads > of_heads
    small = estimate(read_shards(target), draft_model=target)
    assert small.heads > small.weights
    within = estimate(read_shards(tiny_file("mimo2")))
    assert within.heads > 0  # the cache of heads in the file


def test_a_drafter_that_reads_the_prompt_remembers_that_too(tmp_path: Path) -> None:
    """Beside its weights, in F16: keys and values of each of its layers, by what was tuned."""
    llama = tiny.llama(n_blocks=4)
    target = read_shards(llama.write(tmp_path / "target.gguf"))
    fused = tiny.fused_heads_for(llama, (1, 2), prompt_rows=300)
    eagle3, block = tiny_eagle3.drafter(), tiny_block.dflash()
    for spec, n_rows in (
        (fused, TUNING.heads.n_ctx + 300),
        (eagle3, TUNING.heads.n_ctx + TUNING.heads.n_prompt_eagle3),
        (block, TUNING.heads.n_ctx + TUNING.heads.n_prompt_block + tiny_block.SIZE),
    ):
        path = spec.write(tmp_path / "drafter.gguf")
        header = read_shards(path)[0]
        weights = sum(entry.n_bytes for entry in header.tensors.values())
        width = sum(t.shape[1] for n, t in header.tensors.items() if re.search("attn_[kv]\\.", n))
        width = width or 2 * 2 * tiny.D_HEAD  # in one matrix with the queries
        n_cells = -(-n_rows // 256) * 256
        assert estimate(target, n_ctx=4096, heads=path).heads == weights + 2 * n_cells * width


def test_a_damaged_header_is_estimated_too(tiny_file: Files) -> None:
    header = read_shards(tiny_file("jamba"))[0]
    pairs: dict[str, Any] = {"general.architecture": "jamba", "jamba.block_count": 4}
    header.pairs.clear()
    header.pairs.update(pairs)
    flat = {n: replace(t, shape=t.shape[:1]) for n, t in header.tensors.items()}
    assert estimate([header]).total > estimate([replace(header, tensors=flat)]).total > 0


NEEDED = Estimate(
    8192, weights=4_000_000_000, cache=900_000_000, state=0, heads=0, compute=100_000_000
)


def test_nothing_is_said_of_what_fits() -> None:
    assert shortage("big", NEEDED, Machine(8_000_000_000, 6_000_000_000)) is None


@pytest.mark.parametrize(
    ("total", "free", "said"),
    [
        (8, 3, "big takes about 5.0 GB of memory, and 3.0 GB are free now: it may be slow until"),
        (
            4,
            3,
            "and this machine has 4.0 GB: it will be read from the disk all the time (a smaller",
        ),
        (0.5, 0.4, "and this machine has 500.0 MB: it cannot be held"),
    ],
)
def test_what_will_not_fit_is_said_with_what_takes_less(
    total: float, free: float, said: str
) -> None:
    line = shortage("big", NEEDED, Machine(int(total * 1e9), int(free * 1e9)))
    assert line is not None
    assert said in line
    assert "a --ctx below 8,192" in line


def test_weights_are_laid_out_where_the_rest_still_finds_room(
    tiny_file: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = read_shards(tiny_file("llama"))
    n_bytes = estimate(shards).weights
    for free, fits in ((2 * n_bytes, True), (n_bytes, False)):
        machine = Machine(total=10 * n_bytes, free=free)
        monkeypatch.setattr(Machine, "here", lambda machine=machine: machine)
        assert fits_laid_out(shards) == fits


def test_its_parts_are_named() -> None:
    assert [name for name, _ in NEEDED.parts()] == [
        "weights",
        "context of 8,192 tokens",
        "buffers, about",
    ]
    assert sum(n_bytes for _, n_bytes in NEEDED.parts()) == NEEDED.total
