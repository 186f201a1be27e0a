"""The compiled part of the package (`native/`), where it could be built.

Owns finding it. `our_kernels.py`, `compiled_head.py` and `truncation.py` say what is in it, and
do without.
Imports nothing of the package: setup.py runs this file for `sources_digest`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

_SOURCES = Path(__file__).parent


def sources_digest() -> str:
    """What tells the sources from others; empty where they were not installed."""
    paths = sorted(path for path in _SOURCES.rglob("*") if path.suffix in (".cpp", ".h"))
    if not paths:
        return ""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@functools.cache
def load() -> Any:
    """What the package was built with; None where it could not be built, or is out of date."""
    found = importlib.util.find_spec("mtp_cli.engine.native._compiled")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    expected = sources_digest()
    if expected and _built_from(library) != expected:
        warnings.warn(
            "the compiled part of mtp-cli was built from other sources and is not used: "
            "`make install` builds it anew",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library


def _built_from(library: Any) -> str:
    if not hasattr(library, "mtp_sources"):
        return ""
    library.mtp_sources.restype = ctypes.c_char_p
    return str(library.mtp_sources().decode())
