"""Heads in a file of their own as llama.cpp's converter writes it (`--mtp`): whether one fits.

Works on headers and one small tensor. Such a file has its target's metadata, its embedding, final
norm and output, and no key of ours: the final norm tells whose it is.
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.files.gguf_header import Header, n_vocab, read_f32
from mtp_cli.errors import MtpError

_NORM = "output_norm.weight"


def check(target: list[Header], heads: Header) -> None:
    """MtpError, naming the file, unless its heads were made for this target."""
    first, name = target[0], target[0].path.name
    for what, made_for, found in (
        ("architecture", heads.architecture, first.architecture),
        ("rows of width", *(h.number("embedding_length") for h in (heads, first))),
        ("a vocabulary of", n_vocab([heads]), n_vocab(target)),
        ("layers, in number,", heads.n_target_layers, first.n_target_layers),
    ):
        if made_for != found:
            raise MtpError(f"{heads.path}: these heads were made for {what} {made_for}, {name} has "
                           f"{found}")  # fmt: skip
    norms = [read_f32(header, _NORM) for header in (heads, *target)]
    theirs = next((norm for norm in norms[1:] if norm is not None), None)
    if norms[0] is not None and theirs is not None and not np.array_equal(norms[0], theirs):
        raise MtpError(
            f"{heads.path}: these heads were made for another model of the same shape as {name}: "
            f"{_NORM} differs"
        )
