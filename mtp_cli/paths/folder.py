"""Says of a folder what could be meant: a GGUF in it, or the checkpoint that it is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mtp_cli.paths import parts

_N_LISTED = 4
_CONFIGS = ("config.json", "params.json")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "consolidated.*.pth")


def ggufs(path: Path) -> list[Path]:
    """GGUF files in a folder, of those in several parts the first."""
    return sorted(found for found in path.glob("*.gguf") if not parts.is_later_part(found.name))


def listed(names: Sequence[str]) -> str:
    more = len(names) - _N_LISTED
    return ", ".join(names[:_N_LISTED]) + (f" and {more} more" if more > 0 else "")


def instead_of_gguf(path: Path) -> str:
    """What to give instead of the folder `path`."""
    # Hugging Face's cache has the files of each version in a folder of its own, others by format.
    for inside in (path, *sorted(path.glob("snapshots/*")), *sorted(path.glob("*/"))):
        found = ggufs(inside)
        if len(found) == 1:
            return f"Is a directory; give the GGUF in it: {found[0]}"
        if found:
            names = listed([str(gguf.relative_to(path)) for gguf in found])
            return f"Is a directory; give one of the GGUFs in it: {names}"
        if _is_checkpoint(inside):
            return f"Is a directory with a checkpoint; {convert(inside)}"
    if (path / "adapter_config.json").exists():
        return "Is a directory with an adapter; merge it into its model, then convert that"
    return "Is a directory without a GGUF or a checkpoint; give a file that ends in .gguf"


def convert(path: Path) -> str:
    """How a checkpoint in the folder `path` becomes a GGUF."""
    if not _is_checkpoint(path):
        return "mtp-convert convert makes a GGUF of a whole checkpoint folder, config.json included"
    source = path.resolve()
    output = f"{source.name}.gguf"
    return (
        f"mtp-convert convert {shlex.quote(str(path))} -o {shlex.quote(output)} makes a GGUF of it"
    )


def _is_checkpoint(path: Path) -> bool:
    has_config = any((path / name).is_file() for name in _CONFIGS)
    return has_config and any(next(path.glob(weights), None) for weights in _WEIGHTS)
