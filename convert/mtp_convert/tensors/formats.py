"""Number formats of GGUF tensors, and rows encoded into them.

Owns the names a user may ask for, the block arithmetic and the encoding. Quantized formats are
encoded by ggml's own quantizer, which comes with llama-cpp-python (the library file is opened
with ctypes; llama_cpp itself is not imported), and by gguf-py's numpy version where that library
is missing. Knows nothing of which tensor gets which format.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType, quants

from mtp_cli.errors import MtpError
from mtp_convert.tensors.sources import Array, to_float32

Type: TypeAlias = GGMLQuantizationType

# --outtype name -> (most tensors' format, general.file_type)
OUTTYPES = {
    "f32": (Type.F32, LlamaFileType.ALL_F32),
    "f16": (Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q2_k": (Type.Q2_K, LlamaFileType.MOSTLY_Q2_K),
    "q3_k_s": (Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_S),
    "q3_k_m": (Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_M),
    "q3_k_l": (Type.Q3_K, LlamaFileType.MOSTLY_Q3_K_L),
    "q4_k_s": (Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_S),
    "q4_k_m": (Type.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q5_k_s": (Type.Q5_K, LlamaFileType.MOSTLY_Q5_K_S),
    "q5_k_m": (Type.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q6_k": (Type.Q6_K, LlamaFileType.MOSTLY_Q6_K),
}
# llama-quantize's own short names.
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}

# What a row takes instead when its length is no multiple of the format's block, as llama.cpp does.
_FALLBACK = {
    Type.Q2_K: Type.Q4_0, Type.Q3_K: Type.Q4_0, Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0, Type.Q4_0: Type.F16, Type.Q5_0: Type.F16, Type.Q5_1: Type.F16,
    Type.Q8_0: Type.F16,
}  # fmt: skip

_PLAIN = {Type.F32: "F32", Type.F16: "F16", Type.BF16: "BF16"}


def canonical(name: str) -> str:
    """An outtype as OUTTYPES spells it; MtpError when there is none of that name."""
    lower = name.lower()
    found = ALIASES.get(lower, lower)
    if found not in OUTTYPES:
        raise MtpError(f"number format {name!r}: expected one of {', '.join(OUTTYPES)}")
    return found


def outtype(name: str) -> Type:
    """The format of most tensors of a file of this outtype."""
    kind: Type = OUTTYPES[canonical(name)][0]
    return kind


def file_metadata(name: str) -> dict[str, int]:
    """The metadata keys that tell a file's outtype."""
    return {
        "general.file_type": int(OUTTYPES[canonical(name)][1]),
        "general.quantization_version": 2,
    }


def row_bytes(kind: Type, n_cols: int) -> int:
    block, n_bytes = GGML_QUANT_SIZES[kind]
    return int(n_cols // block * n_bytes)


def fitting(kind: Type, n_cols: int) -> Type:
    """`kind`, or the nearest format whose block divides rows of n_cols values."""
    while n_cols % GGML_QUANT_SIZES[kind][0]:
        kind = _FALLBACK[kind]
    return kind


def is_quantized(kind: Type) -> bool:
    return kind not in _PLAIN


def encode(rows: Array, dtype: str, kind: Type) -> bytes | memoryview:
    """Rows (n_rows, n_cols) in storage format `dtype`, as the bytes of format `kind`."""
    if _PLAIN.get(kind) == dtype:
        return _bytes(rows)
    values = np.ascontiguousarray(to_float32(rows, dtype))
    if kind == Type.F32:
        return _bytes(values)
    if kind == Type.F16:
        return _bytes(_to_float16(values))
    if kind == Type.BF16:
        return _bytes(_to_bfloat16(values))
    return _quantize(values, kind)


def _bytes(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def decode(raw: bytes, kind: Type, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The bytes of a tensor as float32; gguf-py's arithmetic."""
    if kind == Type.F32:
        return np.frombuffer(raw, "<f4").reshape(shape)
    if kind == Type.F16:
        return np.frombuffer(raw, "<f2").reshape(shape).astype(np.float32)
    if kind == Type.BF16:
        return to_float32(np.frombuffer(raw, "<u2"), "BF16").reshape(shape)
    packed = np.frombuffer(raw, np.uint8).reshape(-1, row_bytes(kind, shape[-1]))
    found: npt.NDArray[np.float32] = quants.dequantize(packed, kind)
    return found.reshape(shape)


def _to_float16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    found = _narrowed(values, "ggml_fp32_to_fp16_row")
    if found is None:
        with np.errstate(over="ignore"):
            found = values.astype("<f2").view("<u2")
    if np.isinf(found.view("<f2")).any() and not np.isinf(values).any():
        raise MtpError("values beyond 65504 do not fit f16; use bf16")
    return found


def _to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest even; NaN stays a NaN."""
    found = _narrowed(values, "ggml_fp32_to_bf16_row_ref")
    if found is not None:
        return found
    bits = values.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> 16
    quiet = (bits >> np.uint32(16)) | np.uint32(64)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, quiet, rounded).astype("<u2")


def _narrowed(values: npt.NDArray[np.float32], function: str) -> npt.NDArray[np.uint16] | None:
    """By ggml's vectorized loop: numpy's takes 30 times as long where values are tiny or huge."""
    library = _ggml()
    if library is None:
        return None
    found = np.empty(values.shape, np.uint16)
    getattr(library, function)(values.ctypes.data, found.ctypes.data, values.size)
    return found


@cache
def _ggml() -> ctypes.CDLL | None:
    """ggml's base library, or None where llama-cpp-python is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for name in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll"):
            path = Path(folder) / "lib" / name
            if path.exists():
                return _declared(ctypes.CDLL(str(path)))
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    # The second as a plain loop: the vectorized one loses the smallest numbers on some machines.
    for function in (library.ggml_fp32_to_fp16_row, library.ggml_fp32_to_bf16_row_ref):
        function.restype = None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return library


def _quantize(values: npt.NDArray[np.float32], kind: Type) -> bytes | memoryview:
    if not np.isfinite(values).all():  # ggml's quantizer asserts on these
        raise MtpError(f"holds values that are not finite; {kind.name} cannot store them")
    library = _ggml()
    if library is None:
        return _quantize_numpy(values, kind)
    n_rows, n_cols = values.shape
    found = np.empty(n_rows * row_bytes(kind, n_cols), np.uint8)
    written = library.ggml_quantize_chunk(
        int(kind), values.ctypes.data, found.ctypes.data, 0, n_rows, n_cols, None
    )
    if written != found.nbytes:
        raise RuntimeError(f"ggml_quantize_chunk wrote {written} of {found.nbytes} bytes")
    return _bytes(found)


def _quantize_numpy(values: npt.NDArray[np.float32], kind: Type) -> bytes:
    try:
        packed: npt.NDArray[np.uint8] = quants.quantize(values, kind)
    except NotImplementedError as error:
        raise MtpError(
            f"{kind.name} needs llama-cpp-python installed beside mtp-convert"
        ) from error
    return packed.tobytes()
