"""In which number formats a target's memory keeps keys and values.

Knows nothing of contexts. Smaller formats leave room for more tokens and are read faster; answers
are then those of the model with that memory, drafted or not.
"""

from __future__ import annotations

from typing import NamedTuple

_F32, _F16, _BF16 = 0, 1, 30
# What llama.cpp's own tools offer: its name for each, and its number in enum ggml_type
TYPES = {
    **{"f32": _F32, "f16": _F16, "bf16": _BF16, "q8_0": 8},
    **{"q4_0": 2, "q4_1": 3, "iq4_nl": 20, "q5_0": 6, "q5_1": 7},
}


class CacheTypes(NamedTuple):
    """Names of TYPES."""

    k: str = "f16"
    v: str = "f16"

    @property
    def splits(self) -> bool:
        """Whether ggml attends to it in ways that depend on how many rows there are."""
        return {self.k, self.v} <= {"f16", "f32"}  # llama.cpp turns F32 to F16 before

    def refusal(self, reason: str) -> str | None:
        """What to say of it, where llama.cpp's reason for refusing a context is its types."""
        if "cache type" not in reason and "V cache" not in reason:
            return None
        return (
            f"llama.cpp cannot keep keys in {self.k} and values in {self.v} here (choose another "
            "--cache-type-k or --cache-type-v)"
        )


F16 = CacheTypes()
