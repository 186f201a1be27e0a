"""Puts our kernels for few rows in front of ggml's own (`native/`).

Owns comparing what the compiled library was written for with the llama.cpp that is loaded, and
handing it the functions it calls. Knows nothing of the arithmetic.

Verifying a draft multiplies every weight by a handful of rows, for which ggml's CPU kernels pay
nearly once for each, or round otherwise than for one. Ours read a weight once for all rows (one of
a mixture's experts for those that chose it) and give each row the very bits that ggml gives it
alone. Attention reads keys and values once likewise, for a prompt's rows too; its bits are its own,
the same in any company. Where they cannot be had (no C++ compiler at installation, another
processor than x86-64 with AVX2, another llama.cpp) everything runs on ggml's.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

from mtp_cli.engine.backend.binding import llama_library
from mtp_cli.engine.backend.buffer_types import leave_out_amx
from mtp_cli.engine.native import compiled
from mtp_cli.errors import MtpError

_VARIABLE, _OURS, _GGML = "MTP_KERNELS", "ours", "ggml"  # in the environment: whose kernels run
_OPS = {29: b"MUL_MAT", 30: b"MUL_MAT_ID", 74: b"FLASH_ATTN_EXT"}
_OBJECT_BYTES = 32  # GGML_OBJECT_SIZE
_CALLED = (  # in the order of `struct Ggml`
    "ggml_get_type_traits_cpu",
    "ggml_barrier",
    "ggml_threadpool_chunk_set",
    "ggml_threadpool_chunk_add",
    "ggml_backend_buffer_name",
    "_Z39ggml_backend_cpu_get_extra_buffer_typesv",
)


@functools.cache
def install() -> str | None:
    """Take the products of decodes from now on; the vectors they use, or None where they cannot.

    Raises MtpError when MTP_KERNELS is neither "ours", as without it, nor "ggml".
    """
    is_wanted = wanted() == _OURS
    leave_out_amx()  # and have ggml's list of buffer types made before ours is among them
    library = compiled.load() if is_wanted else None
    if library is None or not _fits(library):
        return None
    addresses = [ctypes.cast(getattr(llama_library, name), ctypes.c_void_p) for name in _CALLED]
    library.mtp_install((ctypes.c_void_p * len(_CALLED))(*addresses))
    return str(library.mtp_vectors().decode())


def wanted() -> str:
    """Whose kernels are asked for: "ours" or "ggml"; MtpError for anything else."""
    value = os.environ.get(_VARIABLE) or _OURS
    if value not in (_OURS, _GGML):
        raise MtpError(f"{_VARIABLE}: expected {_OURS} or {_GGML}, found {value!r}")
    return value


def formats() -> tuple[str, ...]:
    """The number formats whose products they take, by llama.cpp's names; none without them."""
    library = compiled.load()
    if library is None or install() is None:
        return ()
    return tuple(library.mtp_formats().decode().split(","))


def enable(*, products: bool = True, attention: bool = True) -> None:
    """What to take, and what to leave to ggml: for measurements. No decode may be running.

    Raises RuntimeError where they were not installed.
    """
    library = compiled.load()
    if library is None or install() is None:
        raise RuntimeError("the kernels for few rows are not installed here")
    library.mtp_enable(products, attention)


def _fits(library: Any) -> bool:
    """Whether it has kernels for this processor, and llama.cpp is as it was written for."""
    if library.mtp_vectors() is None or any(not hasattr(llama_library, name) for name in _CALLED):
        return False
    name_of, overhead = llama_library.ggml_op_name, llama_library.ggml_tensor_overhead
    name_of.argtypes, name_of.restype = [ctypes.c_int], ctypes.c_char_p
    overhead.argtypes, overhead.restype = [], ctypes.c_size_t
    is_same_tensor = overhead() == library.mtp_tensor_bytes() + _OBJECT_BYTES
    return is_same_tensor and all(name_of(number) == name for number, name in _OPS.items())
