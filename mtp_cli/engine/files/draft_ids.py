"""The ids that a drafter in llama.cpp's own layout drafts in, where they are fewer than its
target's: its tensor `d2t`.

Owns the checks of what llama.cpp ends the process on, or writes to the wrong place.
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.files.gguf_header import Header, read_i64
from mtp_cli.errors import MtpError

NAME = "d2t"  # drafted id -> the target's


def n_draft(heads: Header) -> int:
    """Ids that it drafts in; 0 for all of its target's."""
    entry = heads.tensors.get(NAME)
    return 0 if entry is None else entry.shape[0]


def check(heads: Header, n_vocab: int) -> None:
    """That each stands for an id of the target's own, of which there are n_vocab."""
    if NAME not in heads.tensors:
        return
    ids = read_i64(heads, NAME)
    if ids is None:
        raise MtpError(f"{heads.path}: {NAME}: expected int64 numbers")
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= n_vocab:
        raise MtpError(f"{heads.path}: {NAME}: expected ids from 0 to {n_vocab - 1}")
    if len(np.unique(ids)) != len(ids):
        raise MtpError(f"{heads.path}: {NAME}: an id is there twice")
