"""Where a model's layers and buffers went, by what llama.cpp says while it loads.

Reads lines. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_LAYERS = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s+=\s+([\d.]+) MiB")
_SPLITS = re.compile(r"graph splits = (\d+)")


def placed(lines: Iterable[str]) -> dict[str, Any]:
    """layers: (on the card, of how many) of each model, the target first
    mib: of buffers, by what they hold, then by device
    graph_splits: of each context: two where only the tokens' embeddings are looked up by the CPU
    """
    layers, splits = [], []
    mib: dict[str, dict[str, float]] = {}
    for line in lines:
        if found := _LAYERS.search(line):
            layers.append([int(found[1]), int(found[2])])
        if found := _SPLITS.search(line):
            splits.append(int(found[1]))
        if found := _BUFFER.search(line):
            of_kind = mib.setdefault(found[2], {})
            of_kind[found[1]] = of_kind.get(found[1], 0.0) + float(found[3])
    return {"layers": layers, "mib": mib, "graph_splits": splits}


def is_all_on_card(found: dict[str, Any]) -> bool:
    """Whether every layer of every model is there; not where llama.cpp has no card."""
    return bool(found["layers"]) and all(there == n for there, n in found["layers"])
