"""The compiled part of the package (`native/`), where it could be built.

Owns finding it. `few_rows.py`, `native_head.py` and `logits.py` say what is in it; all do without.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any

_FUNCTIONS = (
    *("mtp_install", "mtp_enable", "mtp_vectors", "mtp_formats", "mtp_tensor_bytes"),
    *("mtp_best", "mtp_truncate", "mtp_token_at", "mtp_verify_block"),
    *("mtp_head_open", "mtp_head_close", "mtp_head_decode", "mtp_head_logits", "mtp_head_hidden"),
    *("mtp_head_drop_from", "mtp_head_drop_before"),
)


@functools.cache
def load() -> Any:
    """What the package was built with; None where it could not be built, or is out of date."""
    found = importlib.util.find_spec("mtp_cli.engine._native")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    if any(not hasattr(library, name) for name in _FUNCTIONS):
        return None  # built from an earlier source; `make install` builds it anew
    return library
