"""A checkpoint folder: its config, the index, the shards. Lazy: headers only, data on demand.

Owns the folder's layout and its validation. Knows nothing of model families or of GGUF.
"""

from __future__ import annotations

import json
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
    if (folder / INDEX).exists():
        tensors = _sharded(folder, wanted, in_files)
    elif (folder / SINGLE).exists():
        tensors = read_header(folder / SINGLE)
    else:
        raise MtpError(f"{folder}: holds neither {INDEX} nor {SINGLE}")
    for file in sorted(_unlisted_heads(folder, tensors)):
        tensors |= read_header(file)
    if wanted is not None:
        tensors = {name: entry for name, entry in tensors.items() if wanted(name)}
    return Checkpoint(folder, config, tensors)


def _meta_checkpoint(folder: Path) -> Checkpoint:
    tensors, params = meta.read_weights(folder), folder / meta.PARAMS
    config = meta.config_of(read_json(params), tensors, params)
    return Checkpoint(folder, config, tensors, meta.PARAMS)


def _unlisted_heads(folder: Path, tensors: Mapping[str, TensorEntry]) -> set[Path]:
    """Files of heads that the index does not name: MiMo-V2-Flash ships such a one."""
    listed = {entry.file for entry in tensors.values()}
    if (folder / INDEX).exists():
        listed |= {folder / file for file in _weight_map(folder).values()}
    return {*folder.glob("*mtp*.safetensors")} - listed


def _sharded(
    folder: Path, wanted: Callable[[str], bool] | None, in_files: Collection[str] | None
) -> dict[str, TensorEntry]:
    weight_map = _weight_map(folder)
    chosen = (name for name in weight_map if wanted is None or wanted(name))
    files = sorted({weight_map[name] for name in chosen})
    if in_files is not None:
        files = [file for file in files if file in in_files]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise MtpError(f"{folder}: {len(missing)} shard(s) missing, the first is {missing[0]}")
    if wanted is None and in_files is None:
        extra = {path.name for path in folder.glob("model-*.safetensors")} - {*files}
        if extra:
            raise MtpError(f"{folder / min(extra)}: a shard that {INDEX} does not name")
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        tensors.update(_one_shard(folder, file, weight_map))
    absent = [n for n, file in weight_map.items() if file in files and n not in tensors]
    if absent:
        raise MtpError(
            f"{folder / weight_map[absent[0]]}: {absent[0]}: named by {INDEX}, not in the shard"
        )
    return tensors


def _one_shard(folder: Path, file: str, weight_map: Mapping[str, str]) -> dict[str, TensorEntry]:
    entries = read_header(folder / file)
    for name in entries:
        if weight_map.get(name) != file:
            place = weight_map.get(name, "nowhere")
            raise MtpError(f"{folder / file}: {name}: {INDEX} puts it in {place}")
    return entries


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MtpError(f"{folder / INDEX}: weight_map is missing or empty")
    for name, file in weight_map.items():
        # A shard lies in the folder itself: an index must not reach outside it.
        if not isinstance(file, str) or Path(file).name != file:
            raise MtpError(f"{folder / INDEX}: {name}: {str(file)[:60]!r} is not a file name")
    return weight_map
