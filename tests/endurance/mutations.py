"""Damages valid files, by a seed: their bytes, or the values that they hold.

Knows nothing of readers.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pair

Mutate = Callable[[Random, bytes], bytes]

_NUMBERS = (0, 1, 7, 8, 31, 32, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
_LONG, _DEEP = 10_000, 3_000


def of_bytes(random: Random, raw: bytes) -> bytes:
    """A few bytes, numbers or stretches changed, cut out, doubled or put in."""
    found = bytearray(raw)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(found) + 1)
        n = random.choice((1, 4, 8, random.randrange(1, 64)))
        kind = random.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            width = random.choice((4, 8))
            value = random.choice(_NUMBERS) % (1 << 8 * width)
            found[at : at + width] = value.to_bytes(width, "little")
        elif kind == 2:
            del found[at : at + n]
        elif kind == 3:
            found[at:at] = found[at : at + n]
        elif kind == 4:
            found[at : at + n] = random.randbytes(n)
        else:
            del found[at:]
    return bytes(found)


def in_front(n_bytes: int) -> Mutate:
    """Of bytes, all of them among the first ones: a header before data that nothing reads."""

    def mutate(random: Random, raw: bytes) -> bytes:
        return of_bytes(random, raw[:n_bytes]) + raw[n_bytes:]

    return mutate


def odd(random: Random) -> Any:
    """A value that is rarely expected."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: random.random() < 0.5, lambda: random.choice(_NUMBERS),
        lambda: -random.choice(_NUMBERS), lambda: 10**400, lambda: random.uniform(-2, 2),
        lambda: 1e308, lambda: float("nan"), lambda: float("inf"), lambda: "", lambda: "x" * _LONG,
        lambda: "\ud800", lambda: "\0\n\x1b[31m", lambda: "<|im_end|>", list, dict,
        lambda: [None] * 3, lambda: {"": None}, lambda: [[[[0]]]], lambda: {"a": {"b": [1, "c"]}},
        lambda: list(range(300)),
    )  # fmt: skip
    return random.choice(makers)()


def of_values(random: Random, raw: bytes) -> Any:
    """A JSON text's value with some of what is in it replaced, dropped, doubled or renamed."""
    root = {"": json.loads(raw)}
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holder, key = _place(random, root)
        kind = random.randrange(4)
        if kind == 0 and holder is not root:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict) and holder is not root:
            name = random.choice((str(key) + "x", str(key)[:-1], "", "__metadata__"))
            holder[name] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(random.choice(holder)))
        else:
            holder[key] = odd(random)
    return root[""]


def _place(random: Random, root: dict[str, Any]) -> tuple[Any, Any]:
    """Somewhere in a value: what holds it, and under which key."""
    holder: Any = root
    key: Any = ""
    while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.8:
        holder = holder[key]
        key = (
            random.choice([*holder]) if isinstance(holder, dict) else random.randrange(len(holder))
        )
    return holder, key


def of_values_of_json(random: Random, raw: bytes) -> bytes:
    """Always JSON."""
    return json.dumps(of_values(random, raw)).encode()


def _text(random: Random, raw: bytes) -> bytes:
    if random.random() < 0.02:
        return b"[" * random.choice((100, _DEEP, 200_000))
    return of_values_of_json(random, raw)


def of_json(random: Random, raw: bytes) -> bytes:
    return of_bytes(random, raw) if random.random() < 0.3 else _text(random, raw)


def of_safetensors(random: Random, raw: bytes) -> bytes:
    n_header = 8 + int.from_bytes(raw[:8], "little")
    if random.random() < 0.4:
        return in_front(n_header)(random, raw)
    text = _text(random, raw[8:n_header])
    return len(text).to_bytes(8, "little") + text + raw[n_header:]


def of_pth(random: Random, raw: bytes) -> bytes:
    """The archive's own bytes, or those of the pickle in it with sound sums around them."""
    if random.random() < 0.4:
        return of_bytes(random, raw)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            inside = old.read(name)
            if name.endswith(".pkl"):
                inside = of_bytes(random, inside)
            elif random.random() < 0.02:
                continue
            new.writestr(name, inside)
    return made.getvalue()


def of_gguf(path: Path) -> Mutate:
    """A GGUF's header: its bytes, or some of its values and tensors."""
    file, whole = read_gguf(path), path.read_bytes()
    start = min(t.offset for t in file.tensors.values())
    tensors = [(t.name, t.shape, t.kind, t.offset - start) for t in file.tensors.values()]
    keys, data = [*file.pairs], whole[start:]

    def mutate(random: Random, raw: bytes) -> bytes:
        if random.random() < 0.5:
            return in_front(start)(random, raw)
        changed = dict(file.pairs)
        kept = [t for t in tensors if random.random() > 0.02]
        try:
            for _ in range(random.choice((1, 1, 2))):
                changed[random.choice(keys)] = pair(odd(random))
            return encode_header(changed, kept, 32) + data
        except Exception:  # what cannot be written cannot be read
            return in_front(start)(random, raw)

    return mutate
