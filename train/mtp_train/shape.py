"""The sizes of a head, and which rows of the target it reads. Knows nothing of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeadShape:
    """n_embd is the target's, the rest is free.

    fused_layers: layers of the target whose input rows the head fuses into one (EAGLE-3,
                  arXiv:2503.01840); none: it reads the final row
    prompt_rows:  how many rows of a prompt's end it reads before it drafts
    with_final:   where the target answers, its final row, which costs nothing there, is added to
                  the fused ones
    n_blocks:     1 for a block that every draft step reuses, else one for each step, chained
    value_dim:    width of a value, and n_rot: of a key's rotated part; 0 for head_dim
    window:       how many rows a query sees, its own with them; 0 for all
    has_sinks:    whether each attention head has a sink, a logit without a value
    value_scale:  what attention's result is multiplied with
    row_is_final: it reads the row after the target's output norm, instead of the one before
    """

    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_draft: int
    rms_eps: float
    rope_base: float
    fused_layers: tuple[int, ...] = ()
    prompt_rows: int = 1
    n_blocks: int = 1
    value_dim: int = 0
    n_rot: int = 0
    window: int = 0
    has_sinks: bool = False
    value_scale: float = 1.0
    row_is_final: bool = False
    with_final: bool = False

    @classmethod
    def from_saved(cls, fields: Mapping[str, Any]) -> HeadShape:
        """From the fields as a checkpoint has them."""
        return cls(**{**fields, "fused_layers": tuple(fields.get("fused_layers", ()))})

    @property
    def n_q(self) -> int:
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        return self.n_head_kv * self.head_dim

    @property
    def n_value(self) -> int:
        return self.value_dim or self.head_dim

    @property
    def n_rotated(self) -> int:
        return self.n_rot or self.head_dim

    @property
    def n_qkv(self) -> int:
        return self.n_q + self.n_kv + self.n_head_kv * self.n_value

    @property
    def n_fused(self) -> int:
        """Values of the rows that the head fuses, 0 where it reads the final row."""
        return len(self.fused_layers) * self.n_embd

    @property
    def is_plain(self) -> bool:
        """Whether `mtp-train` makes such heads itself: one block of equal keys and values."""
        own = HeadShape(
            *(self.n_embd, self.n_head, self.n_head_kv, self.head_dim, self.n_ff, self.n_draft),
            *(self.rms_eps, self.rope_base, self.fused_layers, self.prompt_rows),
            with_final=self.with_final,
        )
        return self == own

    def block_matrices(self) -> dict[str, tuple[int, int]]:
        """The shapes of one block's matrices, by name."""
        d = self.n_embd
        return {
            "eh_proj": (d, 2 * d),
            "qkv": (self.n_qkv, d),
            "attn_output": (d, self.n_head * self.n_value),
            "ffn_gate": (self.n_ff, d),
            "ffn_up": (self.n_ff, d),
            "ffn_down": (d, self.n_ff),
        }

    def block_vectors(self) -> dict[str, tuple[int]]:
        """The shapes of one block's norms and sinks, by name."""
        names = ("enorm", "hnorm", "attn_norm", "ffn_norm", "head_norm")
        found = dict.fromkeys(names, (self.n_embd,))
        return {**found, "sinks": (self.n_head,)} if self.has_sinks else found

    def matrices(self) -> dict[str, tuple[int, int]]:
        """The shapes of a head's two-dimensional weights but `output`, by name."""
        own, blocks = self.block_matrices(), range(self.n_blocks)
        found = {in_block(k, name): size for k in blocks for name, size in own.items()}
        return {**found, "fuse": (self.n_embd, self.n_fused)} if self.fused_layers else found

    def norms(self) -> dict[str, tuple[int]]:
        """The shapes of a head's vectors, by name."""
        own, blocks = self.block_vectors(), range(self.n_blocks)
        found = {in_block(k, name): size for k in blocks for name, size in own.items()}
        if self.fused_layers:
            found["fuse_norm"] = (self.n_fused,)
        if self.with_final:
            found["final_norm"] = (self.n_embd,)
        return found


def in_block(block: int, name: str) -> str:
    """A head's name for a weight of one block; the first one's have no prefix."""
    return f"more.{block - 1}.{name}" if block else name
