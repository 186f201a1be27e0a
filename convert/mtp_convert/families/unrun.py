"""Classes of checkpoints with heads that nothing runs: which, and what llama.cpp does with them.

None of them is a family here. Knows nothing of tensors.
"""

from __future__ import annotations

_DROPPED = "llama.cpp's converter drops its heads"
_KEPT = "llama.cpp keeps its heads and has no graph for them"

# class -> (name, what becomes of its heads), as of the llama.cpp that is pinned
UNRUN: dict[str, tuple[str, str]] = {
    "HYV4ForCausalLM": ("Hy4", _DROPPED),
    "Qwen4ExpForCausalLM": ("Qwen3.8-Flash-Next", _DROPPED),
    "Qwen4ExpForConditionalGeneration": ("Qwen3.8-Flash-Next", _DROPPED),
    "Ernie4_5_MoeForCausalLM": ("ERNIE-4.5", _DROPPED),
    "NemotronHPuzzleForCausalLM": ("Nemotron-H Puzzle", _DROPPED),
    "ExaoneMoEForCausalLM": ("K-EXAONE", _KEPT),
    "ExaoneMoeForCausalLM": ("K-EXAONE", _KEPT),
}


def why_unrun(name: str) -> str | None:
    """One clause for a class in the table."""
    if name not in UNRUN:
        return None
    family, fate = UNRUN[name]
    return f"{family}: no family of mtp-convert: {fate}, so that nothing runs them yet"
