"""A GGUF's keys through ggml's own parser, in milliseconds where Python's takes seconds.

llama.cpp hands out the scalar keys of a loaded model and none of its arrays. Knows nothing of what
the keys mean, and checks nothing.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.backend.binding import ggml_base

_STRING, _ARRAY = 8, 9
# enum gguf_type -> the numpy type of a scalar or of an array's elements
_SCALARS = {
    0: np.uint8, 1: np.int8, 2: np.uint16, 3: np.int16, 4: np.uint32, 5: np.int32,
    6: np.float32, 7: np.bool_, 10: np.uint64, 11: np.int64, 12: np.float64,
}  # fmt: skip


class InitParams(ctypes.Structure):
    """`struct gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@functools.cache
def gguf_library() -> ctypes.CDLL:
    """ggml's functions that read and write a header, with their signatures."""
    library = ggml_base()
    handle, index, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    signatures: dict[str, tuple[list[Any], Any]] = {
        "gguf_init_from_file": ([ctypes.c_char_p, InitParams], handle),
        "gguf_init_from_buffer": ([ctypes.c_char_p, size, InitParams], handle),
        "gguf_free": ([handle], None),
        "gguf_get_n_kv": ([handle], index),
        "gguf_get_key": ([handle, index], ctypes.c_char_p),
        "gguf_get_kv_type": ([handle, index], ctypes.c_int),
        "gguf_get_arr_type": ([handle, index], ctypes.c_int),
        "gguf_get_arr_n": ([handle, index], size),
        "gguf_get_arr_data": ([handle, index], handle),
        "gguf_get_val_data": ([handle, index], handle),
        "gguf_get_val_str": ([handle, index], ctypes.c_char_p),
        "gguf_get_n_tensors": ([handle], index),
        "gguf_get_tensor_name": ([handle, index], ctypes.c_char_p),
        "gguf_get_tensor_type": ([handle, index], ctypes.c_int),
        "gguf_get_tensor_ne": ([handle, index], ctypes.POINTER(ctypes.c_int64 * 4)),
        "gguf_get_tensor_size": ([handle, index], size),
        "gguf_get_tensor_offset": ([handle, index], size),
        "gguf_get_data_offset": ([handle], size),
        "gguf_find_tensor": ([handle, ctypes.c_char_p], index),
        "gguf_init_empty": ([], handle),
        "gguf_set_kv": ([handle, handle], None),
        "gguf_add_tensor": ([handle, handle], None),
        "gguf_get_meta_size": ([handle], size),
        "gguf_get_meta_data": ([handle, handle], None),
        "ggml_get_tensor": ([handle, ctypes.c_char_p], handle),
        "ggml_free": ([handle], None),
    }
    for name, (argtypes, restype) in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = argtypes, restype
    return library


def read_pairs(path: Path) -> dict[str, Any]:
    """The keys of the GGUF at `path`; none where it has no readable header."""
    handle = gguf_library().gguf_init_from_file(os.fsencode(path), InitParams(True, None))
    if not handle:
        return {}
    try:
        return pairs(handle)
    finally:
        gguf_library().gguf_free(handle)


def pairs(handle: int) -> dict[str, Any]:
    """The keys of an open header: strings, numbers and numeric arrays (numpy).

    Arrays of strings are left out: the vocabulary's are large, and only llama.cpp needs them.
    """
    gguf, found = gguf_library(), dict[str, Any]()
    for index in range(gguf.gguf_get_n_kv(handle)):
        key = gguf.gguf_get_key(handle, index).decode(errors="replace")
        value_type = gguf.gguf_get_kv_type(handle, index)
        if value_type == _STRING:
            found[key] = gguf.gguf_get_val_str(handle, index).decode(errors="replace")
        elif value_type in _SCALARS:
            found[key] = _numbers(gguf.gguf_get_val_data(handle, index), value_type, 1)[0].item()
        elif value_type == _ARRAY and gguf.gguf_get_arr_type(handle, index) in _SCALARS:
            found[key] = _numbers(
                gguf.gguf_get_arr_data(handle, index),
                gguf.gguf_get_arr_type(handle, index),
                gguf.gguf_get_arr_n(handle, index),
            )
    return found


def _numbers(address: int, value_type: int, n: int) -> npt.NDArray[Any]:
    dtype = np.dtype(_SCALARS[value_type])
    return np.frombuffer(ctypes.string_at(address, n * dtype.itemsize), dtype)
