"""A file of independent heads: each a whole GGUF of one layer, inside an outer GGUF.

llama.cpp can load a GGUF that begins anywhere in a file, as long as its tensors follow its header
without a gap. So the outer file's directory lists, for each head, its header as a tensor of bytes
and then its tensors, and llama.cpp finds a model at every header. Owns that layout; the engine's
`gguf_header` reads it. Knows nothing of checkpoints or families.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from mtp_cli import head_file
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.plan import Plan, PlannedTensor
from mtp_convert.tensors.kinds import Kind


def _block(content: bytes) -> Iterator[bytes]:
    yield content


def own_metadata(outer: Mapping[str, Pair]) -> dict[str, Pair]:
    """What each head's header says: the outer file's words on the architecture, and no more."""
    arch = outer["general.architecture"]
    start = f"{arch.value}."
    own = {key: value for key, value in outer.items() if key.startswith(start)}
    return {"general.architecture": arch, **own, "tokenizer.ggml.model": pair("no_vocab")}


def members(names: Iterable[str], n_heads: int) -> Iterator[list[tuple[str, str]]]:
    """For each head its tensors: the name in the outer file's directory, and its own."""
    listed = list(names)
    for index in range(n_heads):
        header, start = (
            name.format(index) for name in (head_file.EMBEDDED_HEADER, head_file.EMBEDDED_START)
        )
        chosen = (name for name in listed if name.startswith(start) and name != header)
        yield [(name, name.removeprefix(start)) for name in chosen]


def embedded(
    metadata: Mapping[str, Pair], heads: Iterable[Sequence[PlannedTensor]]
) -> Iterator[PlannedTensor]:
    """The outer file's tensors. metadata: each head's own; heads: the tensors of each."""
    for index, tensors in enumerate(heads):
        header = Plan(metadata, tuple(tensors)).header()
        name = head_file.EMBEDDED_HEADER.format(index)
        yield PlannedTensor(name, (len(header),), Kind.I8, len(header), partial(_block, header))
        for tensor in tensors:
            start = head_file.EMBEDDED_START.format(index)
            yield dataclasses.replace(tensor, name=start + tensor.name)
