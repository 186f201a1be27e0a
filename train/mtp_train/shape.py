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
    def n_qkv(self) -> int:
        return self.n_q + 2 * self.n_kv

    @property
    def n_fused(self) -> int:
        """Values of the rows that the head fuses, 0 where it reads the final row."""
        return len(self.fused_layers) * self.n_embd

    def matrices(self) -> dict[str, tuple[int, int]]:
        """The shapes of a head's two-dimensional weights but `output`, by name."""
        d = self.n_embd
        found = {
            "eh_proj": (d, 2 * d),
            "qkv": (self.n_qkv, d),
            "attn_output": (d, self.n_q),
            "ffn_gate": (self.n_ff, d),
            "ffn_up": (self.n_ff, d),
            "ffn_down": (d, self.n_ff),
        }
        return {**found, "fuse": (d, self.n_fused)} if self.fused_layers else found

    def norms(self) -> dict[str, tuple[int]]:
        """The shapes of a head's norms, by name."""
        names = ("enorm", "hnorm", "attn_norm", "ffn_norm", "head_norm")
        found = dict.fromkeys(names, (self.n_embd,))
        return {**found, "fuse_norm": (self.n_fused,)} if self.fused_layers else found
