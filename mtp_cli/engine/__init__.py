"""The engine: token ids in, token ids out. Knows nothing of text or terminals.

types.py       types, limits and protocols that all rooms share
engine.py      one loaded model with what drafts for it, and the one timeline they share
timeline.py    that timeline: how it is opened, emptied, put back
keeping.py     when prompts that were read are kept, and taken up (kept_prompts.py)
generate.py    the loop: draft, verify, accept, emit
stats.py       what an answer cost
depth/         how far to draft
drafters/      what is proposed
grammar/       what may be said
sampling/      what the target chooses, and so what stands of a draft
files/         may it be loaded, and which heads belong to which target
backend/       llama.cpp behind Python, and which of the CPU's kernels run
native/        our compiled code

The names below are looked up when they are used: llama.cpp loads with `Engine`, and what needs no
llama.cpp is imported without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtp_cli.engine.backend.cache import CacheTypes
    from mtp_cli.engine.backend.ways import Ways
    from mtp_cli.engine.engine import Engine
    from mtp_cli.engine.generate import Generation
    from mtp_cli.engine.sampling.settings import Sampling
    from mtp_cli.engine.stats import Stats
    from mtp_cli.engine.types import Depth, FinishReason, Saved

__all__ = [
    "CacheTypes",
    "Depth",
    "Engine",
    "FinishReason",
    "Generation",
    "Sampling",
    "Saved",
    "Stats",
    "Ways",
]

_MODULES = {
    "CacheTypes": "backend.cache",
    "Depth": "types",
    "Engine": "engine",
    "FinishReason": "types",
    "Generation": "generate",
    "Sampling": "sampling.settings",
    "Saved": "types",
    "Stats": "stats",
    "Ways": "backend.ways",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
