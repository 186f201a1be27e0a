"""A checkpoint folder: its config, the index, the shards. Lazy: headers only, data on demand.

Owns the folder's layout and its validation. Knows nothing of model families or of GGUF.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError, json_fault
from mtp_cli.paths.content import lfs_pointer
from mtp_cli.paths.gguf import check_checkpoint
from mtp_convert.checkpoint import meta
from mtp_convert.checkpoint.shard import TensorEntry, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_JSON_BYTES = 200_000_000
_COMPARED_BYTES = 1 << 24
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A validated folder: `config` as written, `tensors` by name, none of them read yet."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    config_file: str = "config.json"

    @property
    def where(self) -> str:
        """What errors about the config name."""
        return str(self.folder / self.config_file)

    @property
    def tokenizer(self) -> Path:
        """The folder that holds the tokenizer's files."""
        is_metas = self.config_file == meta.PARAMS
        return meta.tokenizer_folder(self.folder) if is_metas else self.folder

    @property
    def n_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self.tensors.values())


def read_json(file: Path) -> dict[str, Any]:
    """One JSON object from a file, or MtpError."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise MtpError(f"{file}: larger than {MAX_JSON_BYTES} bytes")
        raw = file.read_bytes()
        if (pointer := lfs_pointer(raw)) is not None:
            raise MtpError(f"{file}: {pointer}")
        found = json.loads(raw.decode("utf-8"))
    except OSError as error:
        raise MtpError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MtpError(f"{file}: {json_fault(error)}") from error
    if not isinstance(found, dict):
        raise MtpError(f"{file}: expected an object, found {type(found).__name__}")
    return found


def open_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json alone; MtpError where there is none."""
    return read_json(folder / "config.json")


def open_checkpoint(
    folder: Path,
    wanted: Callable[[str], bool] | None = None,
    in_files: Collection[str] | None = None,
) -> Checkpoint:
    """Validate a folder and return it.

    wanted:   take only tensors of these names, and open only the shards that the index names for
              one of them (what `graft` needs)
    in_files: open only these shards
    """
    check_checkpoint(folder)
    if meta.is_meta_folder(folder):
        return _meta_checkpoint(folder)
    config = read_json(folder / "config.json")
    files, weight_map = _shards(folder, wanted)
    if in_files is not None:
        files = [file for file in files if file.name in in_files]
    # os.path takes a name that no file can have for one that none has; pathlib raises.
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing:
        raise MtpError(f"{folder}: {len(missing)} shard(s) missing, the first is {missing[0][:80]}")
    tensors = _joined([*files, *_unlisted_heads(folder, files, weight_map)])
    is_whole = wanted is None and in_files is None
    absent = [name for name in weight_map if is_whole and name not in tensors]
    if absent:
        file = folder / weight_map[absent[0]]
        raise MtpError(f"{file}: {absent[0]}: named by {INDEX}, in none of the shards")
    if wanted is not None:
        tensors = {name: entry for name, entry in tensors.items() if wanted(name)}
    return Checkpoint(folder, config, tensors)


def _meta_checkpoint(folder: Path) -> Checkpoint:
    tensors, params = meta.read_weights(folder), folder / meta.PARAMS
    config = meta.config_of(read_json(params), tensors, params)
    return Checkpoint(folder, config, tensors, meta.PARAMS)


def _unlisted_heads(
    folder: Path, files: Collection[Path], weight_map: Mapping[str, str]
) -> list[Path]:
    """Files of heads that the index does not name: MiMo-V2-Flash ships such a one."""
    listed = {*files, *(folder / file for file in weight_map.values())}
    return sorted({*folder.glob("*mtp*.safetensors")} - listed)


def _shards(
    folder: Path, wanted: Callable[[str], bool] | None
) -> tuple[list[Path], dict[str, str]]:
    """The files of weights, and the index where it is of use: which file holds which tensor.

    As transformers looks: one whole file first. An index of which no file is there was left behind
    by another form of the checkpoint, and shards that are complete by their numbers need none.
    """
    present = {file.name: file for file in folder.glob("*.safetensors")}
    if SINGLE in present:
        return [present[SINGLE]], {}
    weight_map = _weight_map(folder) if (folder / INDEX).exists() else {}
    named = {*weight_map.values()}
    numbered = {name for name in present if _NUMBERED.fullmatch(name)}
    if named & present.keys() or (named and not numbered):
        if wanted is not None:
            named = {file for name, file in weight_map.items() if wanted(name)}
            numbered = set()
        return [folder / name for name in sorted(named | numbered)], weight_map
    return _without_index(folder, present, numbered), {}


def _without_index(folder: Path, present: Mapping[str, Path], numbered: set[str]) -> list[Path]:
    """Shards by their numbers, or the only file there is."""
    series: dict[tuple[str, int], set[int]] = {}
    for name in numbered:
        match = _NUMBERED.fullmatch(name)
        assert match is not None
        series.setdefault((match["stem"], int(match["count"])), set()).add(int(match["number"]))
    if len(series) > 1:
        shown = ", ".join(f"{stem}-...-of-{count:05}" for stem, count in sorted(series))
        raise MtpError(f"{folder}: several series of shards, and no {INDEX} to choose: {shown}")
    for (stem, count), numbers in series.items():
        missing = sorted({*range(1, count + 1)} - numbers)
        if missing:
            first = f"{stem}-{missing[0]:05}-of-{count:05}.safetensors"
            raise MtpError(f"{folder}: {len(missing)} shard(s) missing, the first is {first}")
        return [present[name] for name in sorted(numbered)]
    others = [name for name in present if not name.startswith("adapter_")]
    if len(others) == 1:
        return [present[others[0]]]
    raise MtpError(f"{folder}: holds neither {INDEX} nor {SINGLE}, nor numbered shards")


def _joined(files: Collection[Path]) -> dict[str, TensorEntry]:
    """The tensors of all files; one that is in two must be the same in both."""
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            other = tensors.setdefault(name, entry)
            if other is not entry and not _is_same(other, entry):
                raise MtpError(f"{file}: {name}: another tensor than in {other.file.name}")
    return tensors


def _is_same(a: TensorEntry, b: TensorEntry) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    steps = range(0, a.n_bytes, _COMPARED_BYTES)
    sizes = ((begin, min(_COMPARED_BYTES, a.n_bytes - begin)) for begin in steps)
    return all(a.read(begin, n) == b.read(begin, n) for begin, n in sizes)


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MtpError(f"{folder / INDEX}: weight_map is missing or empty")
    for name, file in weight_map.items():
        # A shard lies in the folder itself: an index must not reach outside it.
        if not isinstance(file, str) or Path(file).name != file:
            raise MtpError(f"{folder / INDEX}: {name}: {str(file)[:60]!r} is not a file name")
    return weight_map
