"""Puts our kernels for few rows in front of ggml's own (`native/`).

Owns comparing what the compiled library was written for with the llama.cpp that is loaded, and
handing it the functions it calls. Knows nothing of the arithmetic.

Verifying a draft multiplies every weight by a handful of rows, for which ggml's CPU kernels pay
nearly once for each, or round otherwise than for one. Ours read a weight once for all rows (one of
a mixture's experts for those that chose it) and give each row the same bits in any company. These
are ggml's of the row alone where weights lie as in their file or as ggml repacks them; where they
are laid out for our kernels, and in attention, they are ours. Where they cannot be had (no C++
compiler at installation, another processor than x86-64 with AVX2, another llama.cpp) everything
runs on ggml's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Any

from mtp_cli.engine.backend.binding import (
    CPU_DEVICE,
    device_type,
    ggml_base,
    llama_library,
    local_devices,
)
from mtp_cli.engine.backend.buffer_types import leave_out_amx
from mtp_cli.engine.native import compiled
from mtp_cli.errors import MtpError

_VARIABLE, _OURS, _GGML = "MTP_KERNELS", "ours", "ggml"  # in the environment: whose kernels run
_OPS = {29: b"MUL_MAT", 30: b"MUL_MAT_ID", 74: b"FLASH_ATTN_EXT"}
_OBJECT_BYTES = 32  # GGML_OBJECT_SIZE
_TYPE_AT, _SIZE_AT = 11, 13  # words of a `Buffer` of ggml_abi.h before these
_BUFFER_BYTES = 4160  # of a buffer to look at: no pointer, flag or default is that
_CALLED = (  # in the order of `struct Ggml`
    "ggml_get_type_traits_cpu",
    "ggml_barrier",
    "ggml_threadpool_chunk_set",
    "ggml_threadpool_chunk_add",
    "ggml_backend_buffer_name",
    "_Z39ggml_backend_cpu_get_extra_buffer_typesv",
    "ggml_backend_cpu_buffer_type",
    "ggml_backend_buft_alloc_buffer",
)


@functools.cache
def install() -> str | None:
    """Take the products of decodes from now on; the vectors they use, or None where they cannot.

    Raises MtpError when MTP_KERNELS is neither "ours", as without it, nor "ggml".
    """
    library = compiled.load() if wanted() == _OURS else None
    if library is None or not _fits(library):
        leave_out_amx()
        return None
    called = [ctypes.cast(getattr(llama_library, name), ctypes.c_void_p) for name in _CALLED]
    device = next((each for each in local_devices() if device_type(each) == CPU_DEVICE), None)
    library.mtp_install((ctypes.c_void_p * (len(called) + 1))(*called, device))
    leave_out_amx()  # and have ggml's list of buffer types made with ours among them
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

    Weights that are laid out stay ours: ggml cannot read them. Raises RuntimeError where they were
    not installed.
    """
    library = compiled.load()
    if library is None or install() is None:
        raise RuntimeError("the kernels for few rows are not installed here")
    library.mtp_enable(products, attention)


@contextlib.contextmanager
def laying_out(is_wanted: bool) -> Iterator[None]:
    """Whether models that this thread loads inside may have their weights laid out for these
    kernels, as they may outside. Without, all lie as llama.cpp has them."""
    library = compiled.load()
    if library is None:
        yield
        return
    library.mtp_lay_out(is_wanted)
    try:
        yield
    finally:
        library.mtp_lay_out(True)


def _fits(library: Any) -> bool:
    """Whether it has kernels for this processor, and llama.cpp is as it was written for."""
    if library.mtp_vectors() is None or any(not hasattr(llama_library, name) for name in _CALLED):
        return False
    name_of, overhead = llama_library.ggml_op_name, llama_library.ggml_tensor_overhead
    name_of.argtypes, name_of.restype = [ctypes.c_int], ctypes.c_char_p
    overhead.argtypes, overhead.restype = [], ctypes.c_size_t
    is_same_tensor = overhead() == library.mtp_tensor_bytes() + _OBJECT_BYTES
    is_same_operator = all(name_of(number) == name for number, name in _OPS.items())
    return is_same_tensor and is_same_operator and _has_our_buffers()


def _has_our_buffers() -> bool:
    """Whether type and size stand in a buffer of ggml's where `ggml_abi.h` has them."""
    base, pointer = ggml_base(), ctypes.c_void_p
    for name in ("ggml_backend_cpu_buffer_type", "ggml_backend_buft_alloc_buffer"):
        getattr(base, name).restype = pointer
    base.ggml_backend_buft_alloc_buffer.argtypes = [pointer, ctypes.c_size_t]
    base.ggml_backend_buffer_free.argtypes = [pointer]
    kind = base.ggml_backend_cpu_buffer_type()
    buffer = base.ggml_backend_buft_alloc_buffer(kind, _BUFFER_BYTES)
    words = (pointer * (_SIZE_AT + 1)).from_address(buffer)
    is_there = words[_TYPE_AT] == kind and words[_SIZE_AT] == _BUFFER_BYTES
    base.ggml_backend_buffer_free(buffer)
    return is_there
