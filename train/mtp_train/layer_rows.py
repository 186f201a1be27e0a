"""The rows that layers of the target read, beside the shards whose text they belong to.

Owns their files: `SHARD.layer-L.npy` is (n, n_embd) float16, for every position of the shard the
residual stream that enters layer L, divided by its root mean square (a head norms it anyway, and
float16 does not hold some models' first token). A shard's layers are chosen, added and deleted one
by one; what is read is mapped, not loaded. Knows nothing of llama.cpp or of PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError
from mtp_train.files import written_whole
from mtp_train.target import Target

Rows = npt.NDArray[np.float16]


def chosen_layers(target: Target, names: str | None) -> tuple[int, ...]:
    """The layers whose input rows a head of this target fuses, lowest first; none where it reads
    the final row.

    names: "I,J,K" or "none"; None: a low, a middle and a high one (EAGLE-3, arXiv:2503.01840)
    """
    n_layer = target.sizes.n_layer
    if names is None:
        usual = {min(2, n_layer - 1), n_layer // 2, n_layer - 3}
        return tuple(sorted(usual - {*range(-3, 1)}))
    if names == "none":
        return ()
    try:
        layers = tuple(int(name) for name in names.split(","))
    except ValueError:
        layers = ()
    if not layers or list(layers) != sorted({*layers} & {*range(1, n_layer)}):
        raise MtpError(
            f"--layers {names}: expected rising numbers from 1 to {n_layer - 1} with commas between"
        )
    return layers


def unit_rows(rows: npt.NDArray[np.float32], eps: float) -> Rows:
    """Each row divided by its root mean square, eps under the root as in the target's norms."""
    mean_square = np.mean(np.square(rows), -1, keepdims=True)
    unit: Rows = (rows / np.sqrt(mean_square + eps)).astype(np.float16)
    return unit


def rows_path(shard: Path, layer: int) -> Path:
    return shard.with_name(f"{shard.stem}.layer-{layer}.npy")


def missing_layers(shard: Path, layers: Iterable[int]) -> list[int]:
    """The layers whose rows the shard lacks."""
    return [layer for layer in layers if not rows_path(shard, layer).exists()]


def write_rows(shard: Path, layer: int, rows: Rows) -> None:
    """Write the rows of one layer; they appear under their name only when complete."""
    with written_whole(rows_path(shard, layer)) as partial, partial.open("wb") as file:
        np.save(file, rows)


def open_rows(shard: Path, layer: int, n_rows: int, n_embd: int) -> Rows:
    """(n_rows, n_embd) of one layer, mapped; MtpError where they are not the shard's."""
    path = rows_path(shard, layer)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MtpError(f"{path}: cannot be read; delete it, and it is made again") from error
    if found.shape != (n_rows, n_embd) or found.dtype != np.float16:
        raise MtpError(f"{path}: does not belong to its shard; delete it, and it is made again")
    rows: Rows = found
    return rows
