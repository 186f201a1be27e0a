"""Matrix products of numpy on the thread that asks for them.

OpenBLAS, which numpy brings, keeps a pool whose threads wait for the next product in a loop that
computes nothing: small as a head's products are, that takes cores from the target's decode.
"""

from __future__ import annotations

import functools
from typing import Any

from threadpoolctl import ThreadpoolController

from mtp_cli.engine.types import Floats


def multiplied(rows: Floats, weights: Floats) -> Floats:
    """rows (..., K) times weights (N, K): (..., N) float32."""
    with _blas().limit(limits=1):
        found: Floats = rows @ weights.T
    return found


@functools.cache
def _blas() -> Any:
    """The libraries that numpy multiplies by, which are loaded by now."""
    return ThreadpoolController().select(user_api="blas")
