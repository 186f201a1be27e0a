"""Merges a random low-rank change into a model, as a LoRA fine-tune does that nobody trained.

    python -m benchmarks.merged_lora OUT.gguf [--model MODEL.gguf] [--strength 0.2] [--first 20]

Owns the plan of the altered file. It stands for a fine-tune whose heads are its base's: norms and
tables stay, so its fingerprint does too, and heads made for the base load and draft less well.

Every matrix of the layers from `first` on becomes W + s * |W| * B A / |B A| in its own number
format. B and A are random, and so is s, from 0 to twice the strength. From the first layer on the
model says nothing any more long before its heads are wrong; from the 20th of 30 it still talks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from mtp_cli import models
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.gguf.reuse import Decoded, Taken
from mtp_convert.gguf.write import write
from mtp_convert.tensors.sources import load_rows

_MATRIX = re.compile(r"^blk\.(\d+)\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight$")


@dataclass(frozen=True)
class Merged:
    """A matrix with its low-rank change, as a source of float32 rows."""

    source: Decoded
    left: npt.NDArray[np.float32]  # (n_rows, rank)
    right: npt.NDArray[np.float32]  # (rank, n_columns)
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def rows(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        return load_rows(self.source, begin, end) + self.left[begin:end] @ self.right


@dataclass(frozen=True)
class Change:
    """strength: its mean size, as a share of a matrix's own; first: the first layer changed."""

    strength: float
    rank: int
    first: int
    seed: int


def plan_merged(model: GgufModel, change: Change) -> Plan:
    """The model with a change of its layers' matrices, each in the format it had."""
    rng = np.random.default_rng(change.seed)
    tensors = [_planned(model, name, change, rng) for name in model.file.tensors]
    name = f"{model.file.get('general.name', 'model')} with a random LoRA merged"
    return Plan({**model.file.pairs, "general.name": pair(name)}, tuple(tensors))


def _planned(
    model: GgufModel, name: str, change: Change, rng: np.random.Generator
) -> PlannedTensor:
    matrix = _MATRIX.match(name)
    if matrix is None or int(matrix[1]) < change.first:
        return Taken(model.file, name, name).planned(None)
    source = Decoded(model.file, name)
    n_rows, n_columns = source.shape
    left = rng.standard_normal((n_rows, change.rank), np.float32)
    right = rng.standard_normal((change.rank, n_columns), np.float32)
    size = np.linalg.norm(load_rows(source, 0, n_rows)) / np.linalg.norm(left @ right)
    left *= np.float32(rng.uniform(0, 2 * change.strength) * size)
    return encoded(name, Merged(source, left, right), model.file.tensor(name).kind)


def main(
    output: Annotated[Path, typer.Argument(metavar="OUT")],
    model: Annotated[Path | None, typer.Option(metavar="PATH")] = None,
    strength: Annotated[float, typer.Option(metavar="S", min=0.0)] = 0.2,
    rank: Annotated[int, typer.Option(metavar="N", min=1)] = 16,
    first: Annotated[int, typer.Option(metavar="LAYER", min=0)] = 20,
    seed: Annotated[int, typer.Option(metavar="N")] = 1,
) -> None:
    """Merge a random LoRA into a model (the built-in one unless told)."""
    base = open_model(models.find(model).model)
    write(plan_merged(base, Change(strength, rank, first, seed)), output)


if __name__ == "__main__":
    typer.run(main)
