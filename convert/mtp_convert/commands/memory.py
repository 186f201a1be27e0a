"""What a GGUF takes of memory to run, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.files.beside import heads_beside
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.memory import Machine, estimate, shortage, size
from mtp_cli.errors import MtpError


def memory_lines(
    path: Path, n_ctx: int | None, cache_type_k: str, cache_type_v: str
) -> Iterator[str]:
    """The parts of the estimate, with heads beside the file; then whether it fits here."""
    if path.is_dir():
        raise MtpError(f"{path}: --memory needs a GGUF; mtp-convert convert makes one")
    needed = estimate(
        read_shards(path),
        n_ctx=n_ctx,
        cache=CacheTypes(cache_type_k, cache_type_v),
        heads=heads_beside(path),
    )
    named = ", ".join(f"{name} {size(n_bytes)}" for name, n_bytes in needed.parts())
    yield f"memory: about {size(needed.total)}: {named}"
    machine = Machine.here()
    here = f"this machine: {size(machine.total)}, {size(machine.free)} free"
    yield f"{here}: it fits" if shortage(path.name, needed, machine) is None else here
    if line := shortage(path.name, needed, machine):
        yield f"warning: {line}"
