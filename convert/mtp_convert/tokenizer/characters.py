"""A BPE over characters, with bytes as a last resort, as the SentencePiece model it came from.

transformers saves Llama 2's and Mistral's tokenizers as tokenizer.json alone: merges in the order
of SentencePiece's scores. llama.cpp's SentencePiece joins the two neighbours whose union has the
best score, whatever the merges were, so that both agree where every way to make a piece is listed.
Owns that check and the scores. Knows nothing of special tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError

_SPACE = "\u2581"
_ADVICE = "put the model's tokenizer.model beside it"


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges in order; both of the forms that tokenizer.json writes."""
    found = []
    for merge in model.get("merges") or []:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        found.append((str(left), str(right)))
    return found


def scores_of(file: Path, model: Mapping[str, Any], pieces: Collection[str]) -> dict[str, float]:
    """A score for each piece that merges make; MtpError where scores cannot say what they do.

    pieces: the ordinary ones, without special tokens and bytes
    """
    merges = merges_of(model)
    order: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        if left + right in order and "".join(merges[rank - 1]) != left + right:
            raise MtpError(f"{file}: merges of {left + right!r} lie apart; {_ADVICE}")
        order.setdefault(left + right, -float(rank))
    listed, known = set(merges), set(pieces)
    for piece in pieces:
        unlisted = next((cut for cut in _cuts(piece, known) if cut not in listed), None)
        if unlisted is not None:
            raise MtpError(
                f"{file}: {piece!r} is never merged from {unlisted[0]!r} and {unlisted[1]!r}, as "
                f"SentencePiece would; {_ADVICE}"
            )
    return order


def _cuts(piece: str, known: Collection[str]) -> Iterator[tuple[str, str]]:
    for i in range(1, len(piece)):
        if piece[:i] in known and piece[i:] in known:
            yield piece[:i], piece[i:]


def space_scheme(data: Mapping[str, Any]) -> str | None:
    """tokenizers' name of where a space goes in front: "always", "first" or "never".

    Where a text begins with a space none is added. None for the older way, which adds always.
    """
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace":
            usual = "always" if step.get("add_prefix_space") else "never"
            return str(step.get("prepend_scheme", usual))
    normalizers = _steps(data.get("normalizer"), "normalizers")
    is_prepended = any(step.get("type") == "Prepend" for step in normalizers)
    return None if is_prepended else "never"


def adds_space_prefix(file: Path, data: Mapping[str, Any]) -> bool:
    """Whether texts get a space in front; MtpError where they are changed in other ways too."""
    adds = False
    for step in _steps(data.get("normalizer"), "normalizers"):
        kind = step.get("type")
        if kind == "Prepend" and step.get("prepend") == _SPACE:
            adds = True
        elif kind != "Replace" or step.get("content") != _SPACE:
            raise MtpError(f"{file}: a normalizer of the kind {kind}, which llama.cpp lacks")
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") != "Metaspace" or step.get("split", True):
            raise MtpError(f"{file}: a pre-tokenizer of the kind {step.get('type')}: neither "
                           "byte-level BPE nor beside a tokenizer.model")  # fmt: skip
    return adds or space_scheme(data) in ("always", "first")


def _steps(node: Any, children: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict) and node.get("type") == "Sequence":
        for child in node.get(children) or []:
            yield from _steps(child, children)
    elif isinstance(node, dict):
        yield node
