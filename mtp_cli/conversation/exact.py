"""What lets a conversation go on exactly in another run: token ids beside its texts, as bytes.

Owns the bytes. Knows nothing of files, and not what prompts are made of.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Known:
    """The newest prompt and its answer.

    cuts: where answers end, in characters and in ids
    """

    text: str = ""
    ids: Sequence[int] = ()
    cuts: Sequence[tuple[int, int]] = ((0, 0),)


@dataclass(frozen=True)
class Newest:
    """The newest answer, for `/more`.

    prompt:  its, as it was rendered; ids: its, and those of all that was said since
    said:    all that was heard of it, marks too
    cut_off: what came besides and was not shown, as a text that it stopped at
    pending: bytes of a character that is not whole yet, in hex
    """

    prompt: str
    ids: Sequence[int]
    said: str
    cut_off: str
    pending: str
    is_whole: bool


@dataclass(frozen=True)
class Exact:
    """newest: None where its answer was no model's; n_left_out: messages left out of the prompt"""

    known: Known
    newest: Newest | None
    n_left_out: int

    def to_bytes(self) -> bytes:
        return zlib.compress(json.dumps(asdict(self)).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Exact:
        """ValueError where `to_bytes` did not make them."""
        try:
            fields = json.loads(zlib.decompress(data))
            known, newest = fields["known"], fields["newest"]
            return cls(
                Known(
                    _typed(known["text"], str),
                    _ids(known["ids"]),
                    [(_typed(a, int), _typed(b, int)) for a, b in known["cuts"]],
                ),
                None if newest is None else _newest(newest),
                _typed(fields["n_left_out"], int),
            )
        except (zlib.error, RecursionError, LookupError, TypeError, ValueError) as error:
            raise ValueError("not what lets a conversation go on") from error


def _newest(fields: Any) -> Newest:
    newest = Newest(
        prompt=_typed(fields["prompt"], str),
        ids=_ids(fields["ids"]),
        said=_typed(fields["said"], str),
        cut_off=_typed(fields["cut_off"], str),
        pending=_typed(fields["pending"], str),
        is_whole=_typed(fields["is_whole"], bool),
    )
    bytes.fromhex(newest.pending)
    return newest


def _ids(found: Any) -> list[int]:
    return [_typed(item, int) for item in found]


def _typed(found: Any, kind: type[Value]) -> Value:
    if type(found) is not kind:
        raise TypeError
    return found
