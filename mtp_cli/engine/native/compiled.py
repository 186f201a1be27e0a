"""Our compiled code, where it could be built: where it is, how it is built, every signature in it.

Owns telling it from one of other sources, and choosing among a wheel's builds for the processor at
hand. `our_kernels.py`, `compiled_head.py` and `truncation.py` use it, and do without. It is looked
for on the path of this package, so that another build in a folder at the head of
`mtp_cli.engine.native.__path__` is loaded instead.
Imports nothing of the package: setup.py runs this file.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
OPTIONS = (
    "-O3",
    "-ffp-contract=off",  # what a row is added up by must not depend on what is compiled beside it
    "-fno-wrapv",  # Python asks for it: every index is then computed anew in a loop
    *("-std=c++17", "-fno-exceptions", "-fno-rtti", "-w"),
)
# Of a wheel: by the level of the x86-64 psABI, and what is faster or ggml rounds otherwise with.
BUILDS = {
    "v3": ("-march=x86-64-v3",),
    "v3_vnni": ("-march=x86-64-v3", "-mavxvnni"),
    "v4": ("-march=x86-64-v4",),
    "v4_vnni": ("-march=x86-64-v4", "-mavx512vnni"),
    "v4_bf16": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
}


class Truncation(ctypes.Structure):
    """`Truncation` of logits.cpp"""

    _fields_ = (
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int32),
    )


class HeadShape(ctypes.Structure):
    """`head::Shape` of head.cpp"""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n_embd", "n_head", "n_head_kv", "head_dim")),
        *((name, ctypes.c_int32) for name in ("n_ff", "n_vocab", "n_ctx", "n_batch", "n_threads")),
        ("rms_eps", ctypes.c_float),
        ("rope_base", ctypes.c_float),
    )


class FusionShape(ctypes.Structure):
    """`fusion::Shape` of fusion.cpp"""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n_embd", "n_layers", "n_batch", "n_threads")),
        ("rms_eps", ctypes.c_float),
    )


_INT, _INT32, _DOUBLE, _BOOL = ctypes.c_int, ctypes.c_int32, ctypes.c_double, ctypes.c_bool
_ADDRESS, _TEXT = ctypes.c_void_p, ctypes.c_char_p
_INT32S, _ADDRESSES = ctypes.POINTER(_INT32), ctypes.POINTER(_ADDRESS)
_ROW, _BY = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(Truncation)
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    # few_rows.cpp
    "mtp_install": ([_ADDRESS], None),
    "mtp_enable": ([_BOOL, _BOOL], None),
    "mtp_lay_out": ([_BOOL], None),
    "mtp_vectors": ([], _TEXT),
    "mtp_formats": ([], _TEXT),
    "mtp_tensor_bytes": ([], ctypes.c_size_t),
    "mtp_sources": ([], _TEXT),
    # head.cpp
    "mtp_head_open": ([ctypes.POINTER(HeadShape), _ADDRESS, _ADDRESS], _ADDRESS),
    "mtp_head_close": ([_ADDRESS], None),
    "mtp_head_decode": ([_ADDRESS, _ADDRESS, _ADDRESS, _INT, _INT, _BOOL], _INT),
    "mtp_head_use_threads": ([_ADDRESS, _INT], None),
    "mtp_head_adopt": ([_ADDRESS, _ADDRESS, _ADDRESS, _INT, _INT], None),
    "mtp_head_drop_from": ([_ADDRESS, _INT], None),
    "mtp_head_drop_before": ([_ADDRESS, _INT], None),
    "mtp_head_cells": ([_ADDRESS, _ADDRESS], None),
    "mtp_head_hold": ([_ADDRESS, _INT, _INT], None),
    "mtp_head_logits": ([_ADDRESS], _ADDRESS),
    "mtp_head_hidden": ([_ADDRESS], _ADDRESS),
    # fusion.cpp
    "mtp_fusion_open": ([ctypes.POINTER(FusionShape), *(_ADDRESS,) * 4], _ADDRESS),
    "mtp_fusion_close": ([_ADDRESS], None),
    "mtp_fusion_rows": ([_ADDRESS, _ADDRESS, _INT, _ADDRESS], None),
    "mtp_fusion_use_threads": ([_ADDRESS, _INT], None),
    # spare.cpp
    "mtp_spare_begin": ([_INT], None),
    "mtp_spare_end": ([], None),
    "mtp_spare_offer": ([_BOOL], None),
    "mtp_spare_settle": ([], None),
    "mtp_spare_taken": ([], ctypes.c_int64),
    # layer_rows.cpp
    "mtp_layer_rows": ([_ADDRESS, _BOOL, _ADDRESS], _BOOL),
    # logits.cpp
    "mtp_best": ([_ROW, _INT32, ctypes.POINTER(_DOUBLE)], _INT32),
    "mtp_truncate": ([_ROW, _INT32, _BY, _ADDRESS, _ADDRESS], _INT32),
    "mtp_token_at": ([_ROW, _INT32, _BY, _DOUBLE], _INT32),
    "mtp_restrict": ([_ADDRESS, _INT32, _ADDRESS, _ADDRESS], None),
    "mtp_verify_block": (
        [
            *(_ADDRESSES, _INT32, _BY, _INT32S, _INT32, _INT32S),
            *(_ADDRESS, _ADDRESS, _ADDRESS, _INT32S),
        ],
        _INT32,
    ),
}


def sources(suffix: str) -> list[Path]:
    """The sources of a kind, ".cpp" or ".h"; none where they were not installed."""
    return sorted(FOLDER.rglob(f"*{suffix}"))


def sources_digest() -> str:
    """What tells the sources from others; empty where they were not installed."""
    paths = sorted([*sources(".cpp"), *sources(".h")])
    if not paths:
        return ""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@functools.cache
def load() -> Any:
    """What the package was built with; None where it could not be built, or is out of date."""
    path = _path("_compiled") or _path_for_any_machine()
    if path is None:
        return None
    library = ctypes.CDLL(path)
    expected = sources_digest()
    if expected and _built_from(library) != expected:
        warnings.warn(
            "the compiled part of mtp-cli was built from other sources and is not used: "
            "`make install` builds it anew",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def _path(name: str) -> str | None:
    found = importlib.util.find_spec(f"mtp_cli.engine.native.{name}")
    return None if found is None else found.origin


def _path_for_any_machine() -> str | None:
    """The best of a wheel's builds that this processor can run."""
    chooser = _path("_processor")
    if chooser is None:
        return None
    ask = ctypes.CDLL(chooser).mtp_processor
    ask.restype = _TEXT
    paths = [_path(f"_compiled_{name}") for name in ask().decode().split()]
    return next((path for path in paths if path is not None), None)


def digest() -> str:
    """What tells the compiled code in use from any other; empty where there is none."""
    library = load()
    return "" if library is None else _built_from(library)


def _built_from(library: Any) -> str:
    if not hasattr(library, "mtp_sources"):
        return ""
    library.mtp_sources.restype = _TEXT
    return str(library.mtp_sources().decode())
