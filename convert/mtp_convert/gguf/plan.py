"""The frozen plan of one GGUF file: what will be written, to the byte, before anything is.

Owns the plan and its checks (duplicate names, room on the disk). `write.py` executes it and can
change nothing in it. Knows nothing of where a plan comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from mtp_cli.errors import MtpError
from mtp_convert.gguf.ahead import in_order
from mtp_convert.gguf.header import ALIGNMENT, KEY_ALIGNMENT, Pair
from mtp_convert.gguf.metadata import encode_header
from mtp_convert.tensors import formats
from mtp_convert.tensors.kinds import Kind, row_bytes
from mtp_convert.tensors.sources import Source, n_rows

# A block of rows holds about this many values: 4 MB as float32, and several are alive at a time.
BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output: `blocks()` yields exactly n_bytes, a block at a time."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    n_bytes: int
    blocks: Callable[[], Iterator[bytes | memoryview]]


def encoded(name: str, source: Source, kind: Kind) -> PlannedTensor:
    """A tensor computed from a source and encoded as `kind` (or what its row length allows)."""
    fits = formats.fitting(kind, source.shape[-1])
    n_bytes = n_rows(source) * row_bytes(fits, source.shape[-1])

    def block(begin: int, end: int) -> bytes | memoryview:
        try:
            rows = source.rows(begin, end)
            if not formats.is_finite(rows, source.dtype):
                raise MtpError("holds NaN or infinity; get the checkpoint again")
            return formats.encode(rows, source.dtype, fits)
        except MtpError as error:
            raise MtpError(f"{name}: {error}") from error

    def blocks() -> Iterator[bytes | memoryview]:
        step, n = max(1, BLOCK_VALUES // source.shape[-1]), n_rows(source)
        jobs = [partial(block, begin, min(begin + step, n)) for begin in range(0, n, step)]
        yield from in_order(jobs) if len(jobs) > 1 else (job() for job in jobs)

    return PlannedTensor(name, source.shape, fits, n_bytes, blocks)


@dataclass(frozen=True)
class Plan:
    """Metadata and tensors in file order. `notes` are for people: what was left out, and why."""

    metadata: Mapping[str, Pair]
    tensors: tuple[PlannedTensor, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise MtpError(f"{twice}: planned twice")
        for tensor in self.tensors:
            if len(tensor.name.encode()) >= 64:  # ggml's GGML_MAX_NAME
                raise MtpError(f"{tensor.name}: a name longer than 63 bytes")

    @property
    def alignment(self) -> int:
        pair = self.metadata.get(KEY_ALIGNMENT)
        return ALIGNMENT if pair is None else int(pair.value)

    def offsets(self) -> list[int]:
        """Each tensor's offset from the start of the data, then the data's length."""
        found, position = [], 0
        for tensor in self.tensors:
            found.append(position)
            position += -(-tensor.n_bytes // self.alignment) * self.alignment
        return [*found, position]

    def header(self) -> bytes:
        placed = zip(self.tensors, self.offsets(), strict=False)
        described = ((t.name, t.shape, t.kind, offset) for t, offset in placed)
        return encode_header(self.metadata, described, self.alignment)

    @property
    def n_bytes(self) -> int:
        return len(self.header()) + self.offsets()[-1]

    @property
    def n_parameters(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors)
