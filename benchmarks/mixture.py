"""Writes a mixture of experts with random weights, shaped like a Qwen3-MoE, to time its decodes.

    python -m benchmarks.mixture m.gguf                       # 64 experts, 8 used; 1.4 GB in Q4_K
    python -m benchmarks.mixture m.gguf --format q8_0 --layers 4
    python -m benchmarks.few_rows --model m.gguf

What a decode costs does not depend on values, but on which experts its rows choose. So routers are
random numbers in F32: different tokens choose different experts. All other matrices draw their rows
from a few that were quantized once. The vocabulary is the built-in model's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from mtp_cli.models import built_in_model
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pairs
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.plan import Plan, PlannedTensor
from mtp_convert.gguf.write import write
from mtp_convert.tensors import formats
from mtp_convert.tensors.kinds import Kind, row_bytes

N_POOL = 2048  # different rows of each width
WIDTH, D_HEAD = 2048, 128
N_HEAD, N_HEAD_KV = 16, 4


@dataclass(frozen=True)
class Shape:
    n_layers: int
    n_experts: int
    n_used: int
    n_ff: int  # of each expert
    n_vocab: int


class Tensors:
    """Random tensors, whose matrices are in one format."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._rng = np.random.default_rng(0)
        self._pools: dict[tuple[int, float], npt.NDArray[np.uint8]] = {}
        self.planned: list[PlannedTensor] = []

    def matrix(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """(..., n_out, n_in) of rows whose products with normalized ones are about `gain`."""
        pool = self._pool(shape[-1], gain)
        chosen = self._rng.integers(0, len(pool), shape[:-1])

        def blocks() -> Iterator[bytes]:
            for rows in chosen.reshape(-1, chosen.shape[-1]):
                yield pool[rows].tobytes()

        n_bytes = chosen.size * pool.shape[1]
        self.planned.append(PlannedTensor(f"{name}.weight", shape, self._kind, n_bytes, blocks))

    def floats(self, name: str, values: npt.NDArray[np.float32]) -> None:
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        tensor = PlannedTensor(
            f"{name}.weight", values.shape, Kind.F32, len(raw), lambda: iter([raw])
        )
        self.planned.append(tensor)

    def norm(self, name: str, n: int = WIDTH) -> None:
        self.floats(name, np.ones(n, np.float32))

    def router(self, name: str, n_experts: int) -> None:
        values = self._rng.standard_normal((n_experts, WIDTH)) / np.sqrt(WIDTH)
        self.floats(name, values.astype(np.float32))

    def _pool(self, n_in: int, gain: float) -> npt.NDArray[np.uint8]:
        if (n_in, gain) not in self._pools:
            values = self._rng.standard_normal((N_POOL, n_in)) * (gain / np.sqrt(n_in))
            raw = formats.encode(values.astype(np.float32), "F32", self._kind)
            packed = np.frombuffer(raw, np.uint8).reshape(N_POOL, row_bytes(self._kind, n_in))
            self._pools[n_in, gain] = packed
        return self._pools[n_in, gain]


def tensors(shape: Shape, kind: Kind) -> tuple[PlannedTensor, ...]:
    made = Tensors(kind)
    made.matrix("token_embd", shape.n_vocab, WIDTH, gain=math.sqrt(WIDTH))
    made.matrix("output", shape.n_vocab, WIDTH)
    made.norm("output_norm")
    for index in range(shape.n_layers):
        block = f"blk.{index}"
        for norm in ("attn_norm", "ffn_norm"):
            made.norm(f"{block}.{norm}")
        for norm in ("attn_q_norm", "attn_k_norm"):
            made.norm(f"{block}.{norm}", D_HEAD)
        made.matrix(f"{block}.attn_q", N_HEAD * D_HEAD, WIDTH)
        made.matrix(f"{block}.attn_k", N_HEAD_KV * D_HEAD, WIDTH)
        made.matrix(f"{block}.attn_v", N_HEAD_KV * D_HEAD, WIDTH)
        made.matrix(f"{block}.attn_output", WIDTH, N_HEAD * D_HEAD)
        made.router(f"{block}.ffn_gate_inp", shape.n_experts)
        for name in ("gate", "up"):
            made.matrix(f"{block}.ffn_{name}_exps", shape.n_experts, shape.n_ff, WIDTH)
        made.matrix(f"{block}.ffn_down_exps", shape.n_experts, WIDTH, shape.n_ff)
    return tuple(made.planned)


def metadata(shape: Shape, vocabulary: dict[str, Pair]) -> dict[str, Pair]:
    own = {
        "block_count": shape.n_layers,
        "context_length": 4096,
        "embedding_length": WIDTH,
        "feed_forward_length": shape.n_ff,
        "expert_feed_forward_length": shape.n_ff,
        "expert_count": shape.n_experts,
        "expert_used_count": shape.n_used,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD_KV,
        "attention.key_length": D_HEAD,
        "attention.value_length": D_HEAD,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    keys = {
        "general.architecture": "qwen3moe",
        "general.name": f"random mixture of {shape.n_experts} experts",
        **{f"qwen3moe.{name}": value for name, value in own.items()},
    }
    return {**pairs(keys), **vocabulary}


def plan(shape: Shape, kind: Kind) -> Plan:
    """The built-in model's vocabulary decides n_vocab."""
    model = open_model(built_in_model())
    kept = {key: value for key, value in model.file.pairs.items() if key.startswith("tokenizer.")}
    n_vocab = model.file.tensors["token_embd.weight"].shape[0]
    shape = dataclasses.replace(shape, n_vocab=n_vocab)
    return Plan(metadata(shape, kept), tensors(shape, kind))


def main(
    out: Path,
    kind: Annotated[str, typer.Option("--format", help="ggml's name of it.")] = "q4_k",
    layers: Annotated[int, typer.Option(min=1)] = 8,
    experts: Annotated[int, typer.Option(min=1)] = 64,
    used: Annotated[int, typer.Option(min=1)] = 8,
    width: Annotated[int, typer.Option(min=256, help="Of an expert.")] = 768,
) -> None:
    write(plan(Shape(layers, experts, used, width, 0), Kind[kind.upper()]), out)


if __name__ == "__main__":
    typer.run(main)
