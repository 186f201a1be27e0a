"""Files of independent heads: each head a GGUF of one layer, inside an outer GGUF.

Works on headers alone. The outer file's directory names each head's header, a tensor of bytes, and
the head's tensors after it (`mtp_cli.head_file` has the names); llama.cpp loads the model that
begins at such a header. Knows nothing of contexts or drafting.
"""

from __future__ import annotations

from mtp_cli import head_file
from mtp_cli.engine.files.gguf_header import Header, is_head_file, read_embedded
from mtp_cli.errors import MtpError

_MOST_HEADS = 64
ARCHITECTURE = "llama"  # of the heads, and of trunks that llama.cpp takes their rows out of


def is_independent(header: Header) -> bool:
    """Whether this is a file of independent heads."""
    return is_head_file(header) and header.pairs.get(head_file.KEY_HIDDEN) == "last_layer"


def offsets(outer: Header) -> tuple[int, ...]:
    """Where in its file each head begins, in the order of what they predict."""
    found = []
    for name in map(head_file.EMBEDDED_HEADER.format, range(_MOST_HEADS)):
        if name not in outer.tensors:
            break
        found.append(outer.tensors[name].offset)
    if not found:
        raise MtpError(f"{outer.path}: {head_file.EMBEDDED_HEADER.format(0)} is missing")
    return tuple(found)


def headers(outer: Header) -> list[Header]:
    """The header of each head."""
    names = map(head_file.EMBEDDED_HEADER.format, range(len(offsets(outer))))
    found = [read_embedded(outer, name) for name in names]
    for index, header in enumerate(found):
        if header.architecture != ARCHITECTURE or header.number("block_count") != 1:
            raise MtpError(
                f"{outer.path}: head {index}: expected one layer of architecture {ARCHITECTURE}"
            )
    return found
