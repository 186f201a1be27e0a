"""Files of independent heads: each head a GGUF of one layer, inside an outer GGUF.

Works on headers alone. The outer file's directory names each head's header, a tensor of bytes, and
the head's tensors after it (`mtp_cli.head_file` has the names); llama.cpp loads the model that
begins at such a header. Knows nothing of contexts or drafting.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtp_cli import head_file
from mtp_cli.engine.files.gguf_header import Header, is_head_file, read_embedded
from mtp_cli.errors import MtpError

_MOST_HEADS = 64
ARCHITECTURE = "llama"  # of the heads, and of targets that llama.cpp takes their rows out of


def is_independent(header: Header) -> bool:
    """Whether this is a file of independent heads."""
    return is_head_file(header) and header.says(head_file.KEY_HIDDEN, "last_layer")


@dataclass(frozen=True)
class Embedded:
    """One head: where in the outer file its GGUF begins, and what that says."""

    offset: int
    header: Header


def embedded(outer: Header) -> list[Embedded]:
    """The heads of a file, in the order of what they predict."""
    found = []
    for index, name in enumerate(map(head_file.EMBEDDED_HEADER.format, range(_MOST_HEADS))):
        if name not in outer.tensors:
            break
        header = read_embedded(outer, name)
        if header.architecture != ARCHITECTURE or header.number("block_count") != 1:
            raise MtpError(
                f"{outer.path}: head {index}: expected one layer of architecture {ARCHITECTURE}"
            )
        found.append(Embedded(outer.tensors[name].offset, header))
    if not found:
        raise MtpError(f"{outer.path}: {head_file.EMBEDDED_HEADER.format(0)} is missing")
    return found
