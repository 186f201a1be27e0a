"""Tensors of an existing GGUF in a new one: copied, with rows moved, or in another format.

Owns the ways to take them over. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtp_cli.errors import MtpError
from mtp_convert.gguf import mixes
from mtp_convert.gguf.header import GgufFile, Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.plan import BLOCK_VALUES, PlannedTensor, encoded
from mtp_convert.tensors import formats
from mtp_convert.tensors.kinds import Kind, row_bytes
from mtp_convert.tensors.sources import STORAGE, Array, Index, Pick, Source

COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class Wanted:
    """The formats asked for; None: as it is. `explicit_head` is what was asked for heads alone."""

    outtype: str | None = None
    explicit_head: str | None = None

    @property
    def head(self) -> str | None:
        return self.explicit_head or (self.outtype and mixes.default_head_type(self.outtype))

    def metadata(self, outtype: str | None) -> dict[str, Pair]:
        """The pairs that tell a file's format, where it changes."""
        found = formats.file_metadata(outtype) if outtype else {}
        return {key: pair(value) for key, value in found.items()}


AS_IT_IS = Wanted()


@dataclass(frozen=True)
class Taken:
    """A tensor of `file` that is called `to` in another; `index`: only these rows, in this order.

    Byte for byte where its format stays: quantized rows move whole.
    """

    file: GgufFile
    name: str
    to: str
    index: Index | None = None

    @property
    def stored(self) -> Kind:
        return self.file.tensor(self.name).kind

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.file.tensor(self.name).shape
        return shape if self.index is None else (len(self.index), shape[-1])

    def planned(self, kind: Kind | None) -> PlannedTensor:
        """In the format `kind`; None: as it is. Integer tensors have no other format."""
        is_integer = self.stored.name.startswith(("I8", "I16", "I32", "I64"))
        if kind not in (None, self.stored) and not is_integer:
            return encoded(self.to, self.source(), kind)
        n_row = row_bytes(self.stored, self.shape[-1])
        n_bytes = n_row * int(np.prod(self.shape[:-1]))
        return PlannedTensor(self.to, self.shape, self.stored, n_bytes, self.blocks)

    def source(self) -> Source:
        source = Decoded(self.file, self.name)
        return source if self.index is None else Pick(source, self.index, self.shape)

    def blocks(self) -> Iterator[bytes | memoryview]:
        tensor = self.file.tensor(self.name)
        if self.index is None:
            for begin in range(0, tensor.n_bytes, COPY_BYTES):
                yield self.file.read(self.name, begin, min(COPY_BYTES, tensor.n_bytes - begin))
            return
        n_row = row_bytes(tensor.kind, tensor.shape[-1])
        step = max(1, BLOCK_VALUES // tensor.shape[-1])
        for begin in range(0, len(self.index), step):
            yield self._rows(self.index[begin : begin + step], n_row)

    def _rows(self, chosen: Index, n_row: int) -> bytes:
        first, last = int(chosen.min()), int(chosen.max()) + 1
        if last - first > 2 * len(chosen):  # scattered: one by one, to stay within a block
            return b"".join(self.file.read(self.name, i * n_row, n_row) for i in chosen.tolist())
        raw = self.file.read(self.name, first * n_row, (last - first) * n_row)
        return np.frombuffer(raw, np.uint8).reshape(-1, n_row)[chosen - first].tobytes()


def as_they_are(file: GgufFile, names: Iterable[str]) -> list[Taken]:
    """Whole tensors under their own names."""
    return [Taken(file, name, name) for name in names]


@dataclass(frozen=True)
class Decoded:
    """A GGUF tensor as a source: F32, F16 and BF16 as stored, quantized formats as float32."""

    file: GgufFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.tensor(self.name).shape

    @property
    def dtype(self) -> str:
        return "F32" if formats.is_quantized(self._kind) else self._kind.name

    @property
    def _kind(self) -> Kind:
        return self.file.tensor(self.name).kind

    def rows(self, begin: int, end: int) -> Array:
        n_cols = self.shape[-1]
        n_row = row_bytes(self._kind, n_cols)
        raw = self.file.read(self.name, begin * n_row, (end - begin) * n_row)
        if formats.is_quantized(self._kind):
            try:
                return formats.decode(raw, self._kind, (end - begin, n_cols))
            except NotImplementedError as error:
                raise MtpError(
                    f"{self.file.path}: {self.name}: cannot read {self._kind.name} to change it"
                ) from error
        return np.frombuffer(raw, STORAGE[self.dtype]).reshape(end - begin, n_cols)


def planned(
    target: Sequence[Taken], heads: Sequence[Taken], wanted: Wanted, traits: mixes.Traits
) -> list[PlannedTensor]:
    """The tensors of a new file, each in the format asked for, as for one file of that outtype."""
    shapes = [(tensor.to, tensor.shape) for tensor in (*target, *heads)]
    found: list[PlannedTensor] = []
    for tensors, outtype in ((target, wanted.outtype), (heads, wanted.head)):
        kinds: Mapping[str, Kind] = mixes.choose(outtype, shapes, traits) if outtype else {}
        found += [tensor.planned(kinds.get(tensor.to)) for tensor in tensors]
    return found


def losses(taken: Sequence[Taken], made: Sequence[PlannedTensor]) -> tuple[str, ...]:
    """What people should know: tensors that were quantized before and now are once more."""
    kinds = {tensor.name: tensor.kind for tensor in made}
    before = Counter(
        tensor.stored.name
        for tensor in taken
        if formats.is_quantized(tensor.stored) and kinds[tensor.to] != tensor.stored
    )
    if not before:
        return ()
    shown = ", ".join(f"{count} from {name}" for name, count in before.most_common())
    return (f"converted from a quantized format: {shown}; what that lost stays lost",)
