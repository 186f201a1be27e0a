"""How positions are rotated where it is not as the model's file has it: longer contexts.

Owns llama.cpp's parameters for it (`--rope-*` and `--yarn-*` of its own tools).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Scaling = Literal["none", "linear", "yarn"]

_TYPES: dict[Scaling, int] = {"none": 0, "linear": 1, "yarn": 2}  # llama_rope_scaling_type


@dataclass(frozen=True)
class Rope:
    """None is what the file has, everywhere.

    scaling:    none, linear or yarn
    freq_base:  of the angles
    freq_scale: times each position: 0.5 doubles the context
    yarn_*:     see llama.cpp; yarn_orig_ctx: tokens that the model was trained with
    """

    scaling: Scaling | None = None
    freq_base: float | None = None
    freq_scale: float | None = None
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    yarn_orig_ctx: int | None = None

    def apply(self, params: Any) -> None:
        """Write it into llama_context_params."""
        if self.scaling is not None:
            params.rope_scaling_type = _TYPES[self.scaling]
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "scaling":
                is_freq = field.name.startswith("freq")
                setattr(params, f"rope_{field.name}" if is_freq else field.name, value)


AS_TRAINED = Rope()
