"""Heads whose output has fewer rows than their embedding: which ids of the target those stand for.

The common form, of llama.cpp's pull request 29143: the tensor `d2t` holds the target's id of each
row of the output, and the embedding is whole. llama.cpp as it is pinned loads no such file.
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.files import draft_ids as d2t
from mtp_cli.engine.files.gguf_header import Header, read_i64
from mtp_cli.engine.types import Ids
from mtp_cli.errors import MtpError

D2T, _OUTPUT = d2t.NAME, "output.weight"
_ARCHITECTURE = "mimo2"  # that of mtp-train's heads, which code of our own computes
LEAST = 64  # ids; the compiled head reads as many rows at once


def is_trimmed(heads: Header) -> bool:
    return D2T in heads.tensors


def draft_ids(heads: Header, n_vocab: int) -> Ids | None:
    """The target's id of each row of the output, None where there is one for each id.

    n_vocab: of the target

    MtpError, naming the file, where the ids are none, or nothing here computes these heads.
    """
    if not is_trimmed(heads):
        return None
    d2t.check(heads, n_vocab)
    ids, output = read_i64(heads, D2T), heads.tensors.get(_OUTPUT)
    assert ids is not None
    if len(ids) < LEAST:
        raise MtpError(f"{heads.path}: {D2T}: expected {LEAST} ids or more, found {len(ids)}")
    if output is not None and output.shape[-1] != len(ids):
        raise MtpError(f"{heads.path}: {_OUTPUT}: expected {len(ids)} rows, as {D2T} has")
    if heads.architecture != _ARCHITECTURE:
        raise unrun(heads)
    return ids.astype(np.int32)


def unrun(heads: Header) -> MtpError:
    """Why heads in the common form do not run."""
    return MtpError(
        f"{heads.path}: fewer ids by {D2T}, which llama.cpp cannot run yet, and code of our own "
        "only for heads of mtp-train in q8_0; mtp-convert trim turns them into a form that runs"
    )
