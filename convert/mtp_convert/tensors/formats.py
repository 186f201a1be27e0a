"""Number formats of GGUF tensors, and rows encoded into them.

Owns the block arithmetic and the encoding. Quantized formats are
encoded by ggml's own quantizer, which comes with llama-cpp-python (the library file is opened
with ctypes; llama_cpp itself is not imported), and by gguf-py's numpy version where that library
is missing. Knows nothing of which tensor gets which format.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType, quants

from mtp_cli.errors import MtpError
from mtp_convert.tensors.kinds import Kind, fits, row_bytes
from mtp_convert.tensors.outtypes import canonical
from mtp_convert.tensors.sources import Array, to_float32

# outtypes.NAMES -> (most tensors' format, general.file_type)
OUTTYPES = {
    "f32": (Kind.F32, LlamaFileType.ALL_F32),
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q2_k": (Kind.Q2_K, LlamaFileType.MOSTLY_Q2_K),
    "q3_k_s": (Kind.Q3_K, LlamaFileType.MOSTLY_Q3_K_S),
    "q3_k_m": (Kind.Q3_K, LlamaFileType.MOSTLY_Q3_K_M),
    "q3_k_l": (Kind.Q3_K, LlamaFileType.MOSTLY_Q3_K_L),
    "q4_k_s": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_S),
    "q4_k_m": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q5_k_s": (Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_S),
    "q5_k_m": (Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q6_k": (Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
}
# What a row takes instead when its length is no multiple of the format's block, as llama.cpp does.
_FALLBACK = {
    Kind.Q2_K: Kind.Q4_0, Kind.Q3_K: Kind.Q4_0, Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0, Kind.Q4_0: Kind.F16, Kind.Q5_0: Kind.F16, Kind.Q5_1: Kind.F16,
    Kind.Q8_0: Kind.F16,
}  # fmt: skip

_EXPONENT = {"F16": 0x7C00, "BF16": 0x7F80}  # its bits, all set in NaN and infinity
_PLAIN = {Kind.F32: "F32", Kind.F16: "F16", Kind.BF16: "BF16", Kind.I32: "I32"}


def outtype(name: str) -> Kind:
    """The format of most tensors of a file of this outtype."""
    return OUTTYPES[canonical(name)][0]


def file_metadata(name: str) -> dict[str, int]:
    """The metadata keys that tell a file's outtype."""
    return {
        "general.file_type": int(OUTTYPES[canonical(name)][1]),
        "general.quantization_version": 2,
    }


def fitting(kind: Kind, n_cols: int) -> Kind:
    """`kind`, or the nearest format whose block divides rows of n_cols values."""
    while not fits(kind, n_cols):
        kind = _FALLBACK[kind]
    return kind


def is_quantized(kind: Kind) -> bool:
    return kind not in _PLAIN


def is_finite(rows: Array, dtype: str) -> bool:
    """Whether rows in storage format `dtype` hold neither NaN nor infinity."""
    if dtype in _EXPONENT:
        bits = rows.view("<u2") & np.uint16(_EXPONENT[dtype])
        return not bool((bits == _EXPONENT[dtype]).any())
    return bool(np.isfinite(to_float32(rows, dtype)).all())


def encode(rows: Array, dtype: str, kind: Kind) -> bytes | memoryview:
    """Rows (n_rows, n_cols) in storage format `dtype`, as the bytes of format `kind`."""
    if _PLAIN.get(kind) == dtype:
        return _bytes(rows)
    values = np.ascontiguousarray(to_float32(rows, dtype))
    if kind == Kind.F32:
        return _bytes(values)
    if kind == Kind.F16:
        return _bytes(_to_float16(values))
    if kind == Kind.BF16:
        return _bytes(_to_bfloat16(values))
    return _quantize(values, kind)


def _bytes(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def decode(raw: bytes, kind: Kind, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The bytes of a tensor as float32, by gguf-py; NotImplementedError where it cannot."""
    if kind == Kind.F32:
        return np.frombuffer(raw, "<f4").reshape(shape)
    if kind == Kind.F16:
        return np.frombuffer(raw, "<f2").reshape(shape).astype(np.float32)
    if kind == Kind.BF16:
        return to_float32(np.frombuffer(raw, "<u2"), "BF16").reshape(shape)
    packed = np.frombuffer(raw, np.uint8).reshape(-1, row_bytes(kind, shape[-1]))
    if kind not in [*GGMLQuantizationType]:
        raise NotImplementedError(f"gguf-py does not know {kind.name}")
    found: npt.NDArray[np.float32] = quants.dequantize(packed, GGMLQuantizationType(kind))
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


def _quantize(values: npt.NDArray[np.float32], kind: Kind) -> bytes | memoryview:
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


def _quantize_numpy(values: npt.NDArray[np.float32], kind: Kind) -> bytes:
    try:
        packed: npt.NDArray[np.uint8] = quants.quantize(values, GGMLQuantizationType(kind))
    except NotImplementedError as error:
        raise MtpError(
            f"{kind.name} needs llama-cpp-python installed beside mtp-convert"
        ) from error
    return packed.tobytes()
