"""What the name of a GGUF says: its quantization, which part of a model it is, what goes beside it.

Works on names alone, as they stand in folders and repositories. Files are chosen as llama.cpp
chooses them from a repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

_PART = re.compile(r"^(?P<prefix>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-._/])(?P<quant>(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4\w*|NVFP4\w*))(?=[-./]|$)",
    re.IGNORECASE,
)
# What drafts beside a model, as its name begins; llama.cpp takes the first kind that there is.
SIDECARS = ("mtp", "dspark", "dflash", "eagle3")
# In names of files that go beside a model: encoders of pictures, statistics, drafters.
_BESIDE = ("mmproj", "imatrix", *(f"{kind}-" for kind in SIDECARS))
_LAST = tuple(f"-{kind}.gguf" for kind in SIDECARS)  # ours, of drafters
PREFERRED = ("Q4_K_M", "Q8_0")  # where nobody says which, these before the first


def quant(name: str) -> str:
    """The quantization that a file's name, or its folder's, tells; empty where none does."""
    found = [match["quant"].upper() for match in _QUANT.finditer(name.removesuffix(".gguf"))]
    return found[-1] if found else ""


def is_later_part(name: str) -> bool:
    """Whether this is a part of a model, and not its first one."""
    part = _PART.match(name)
    return part is not None and int(part["index"]) != 1


def stem(name: str) -> str:
    """A file's name without its ending and its number among parts."""
    last = PurePosixPath(name).name
    part = _PART.match(last)
    return part["prefix"] if part else last.removesuffix(".gguf")


def parts(name: str) -> list[str]:
    """All files of the model whose first one is `name`."""
    part = _PART.match(name)
    if part is None:
        return [name]
    count = int(part["count"])
    return [f"{part['prefix']}-{i:05}-of-{part['count']}.gguf" for i in range(1, count + 1)]


def is_model(name: str) -> bool:
    """Whether a file's name is that of a model, or of the first part of one."""
    last = PurePosixPath(name).name
    is_beside = any(mark in last for mark in _BESIDE) or last.lower().endswith(_LAST)
    return last.lower().endswith(".gguf") and not is_beside and not is_later_part(last)


def choose(names: Iterable[str], wanted: str) -> str | None:
    """The model to take of a repository's files; None where there is none.

    wanted: a quantization, or a file's name; of all the best known if empty
    """
    models = [name for name in names if is_model(name)]
    if wanted.lower().endswith(".gguf"):
        return next((name for name in models if name.lower() == wanted.lower()), None)
    for tag in [wanted] if wanted else PREFERRED:
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(tag)}[.\-/]", re.IGNORECASE)
        chosen = next((name for name in models if pattern.search(name)), None)
        if chosen is not None:
            return chosen
    return models[0] if models and not wanted else None


def sidecar_for(names: Iterable[str], model: str) -> str | None:
    """The file that drafts (mtp-*.gguf, ...) in the model's folder or above it; None where there is
    none.

    Of several the first kind, then in the nearest folder, then of the nearest number of bits.
    """
    folders = PurePosixPath(model).parts[:-1]
    found = []
    for name in names:
        path = PurePosixPath(name)
        is_above = folders[: len(path.parts) - 1] == path.parts[:-1]
        kind = next((i for i, kind in enumerate(SIDECARS) if f"{kind}-" in path.name), None)
        if name.lower().endswith(".gguf") and kind is not None and is_above:
            far = abs(_bits(name) - _bits(model))
            found.append((kind, -len(path.parts), quant(name) != quant(model), far, name))
    return min(found)[-1] if found else None


def _bits(name: str) -> int:
    digits = re.search(r"\d+", quant(name))
    return int(digits[0]) if digits else 0


def quants(names: Sequence[str]) -> list[str]:
    """Of a repository's models, to tell a user what there is."""
    found = (quant(name) or PurePosixPath(name).name for name in names if is_model(name))
    return list(dict.fromkeys(found))
