"""Runs single operators of ggml, with whichever kernels take them: ours, where they are installed.

Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from mtp_cli.engine.backend.binding import ggml_base, llama_library
from mtp_cli.engine.types import Floats

POINTER, FLOAT, INT, INT64, SIZE, TEXT = (
    *(ctypes.c_void_p, ctypes.c_float, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t),
    ctypes.c_char_p,
)
F32, F16, I32 = 0, 1, 26  # enum ggml_type
_CONTEXT_BYTES = 64 << 20
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_BUFFER_AT, _NE_AT = 8, 16  # bytes of a ggml_tensor before these


class _InitParams(ctypes.Structure):
    """ggml_init_params"""

    _fields_ = [("mem_size", SIZE), ("mem_buffer", POINTER), ("no_alloc", ctypes.c_bool)]


class _Plan(ctypes.Structure):
    """ggml_cplan"""

    _fields_ = [
        *(("work_size", SIZE), ("work_data", POINTER), ("n_threads", INT), ("threadpool", POINTER)),
        *(("abort", POINTER), ("abort_data", POINTER), ("use_ref", ctypes.c_bool)),
    ]


def ggml(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(llama_library, name)
    function.restype, function.argtypes = result, [*arguments]
    return function


@contextlib.contextmanager
def context(*, no_alloc: bool = False) -> Iterator[int]:
    """Memory for tensors and for a graph."""
    made = ggml("ggml_init", POINTER, _InitParams)(_InitParams(_CONTEXT_BYTES, None, no_alloc))
    try:
        yield made
    finally:
        ggml("ggml_free", None, POINTER)(made)


def tensor(within: int, array: npt.NDArray[Any]) -> int:
    """A tensor of up to three dimensions that holds the array; float16, float32 or int32."""
    shaped = np.ascontiguousarray(array.reshape((1,) * (3 - array.ndim) + array.shape))
    new = ggml("ggml_new_tensor_3d", POINTER, POINTER, INT, INT64, INT64, INT64)
    kind = {"float16": F16, "float32": F32, "int32": I32}[array.dtype.name]
    made = new(within, kind, *shaped.shape[::-1])
    ctypes.memmove(data_of(made), shaped.ctypes.data, shaped.nbytes)
    return int(made)


def stored(within: int, kind: str, data: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> int:
    """A tensor of three dimensions that holds what `quantized` made of an array of this shape."""
    new = ggml("ggml_new_tensor_3d", POINTER, POINTER, INT, INT64, INT64, INT64)
    made = int(new(within, type_of(kind), *shape[::-1]))
    ctypes.memmove(data_of(made), data.ctypes.data, data.nbytes)
    return made


def data_of(made: int) -> int:
    return int(ggml("ggml_get_data", POINTER, POINTER)(made))


def _graph(within: int, out: int) -> int:
    graph = ggml("ggml_new_graph", POINTER, POINTER)(within)
    ggml("ggml_build_forward_expand", None, POINTER, POINTER)(graph, out)
    return int(graph)


def computed(within: int, out: int, size: tuple[int, ...], n_threads: int) -> Floats:
    """What an operator gives, as float32 of this size."""
    compute = ggml("ggml_graph_compute_with_ctx", INT, POINTER, POINTER, INT)
    assert compute(within, _graph(within, out), n_threads) == 0
    found = (FLOAT * math.prod(size)).from_address(data_of(out))
    return np.array(found, np.float32).reshape(size)


def work_bytes(within: int, out: int) -> int:
    """The memory that whoever computes an operator asks for: it shows who that is."""
    plan = ggml("ggml_graph_plan", _Plan, POINTER, INT, POINTER)
    return int(plan(_graph(within, out), 1, None).work_size)


def type_of(name: str) -> gguf.GGMLQuantizationType:
    """A number format by ggml's name for it in small letters."""
    return gguf.GGMLQuantizationType[name.upper()]


def block_length(name: str) -> int:
    """How many weights of a row a format's block has."""
    return int(gguf.GGML_QUANT_SIZES[type_of(name)][0])


def quantized(name: str, values: Floats) -> npt.NDArray[np.uint8]:
    """(..., n_out, n_in) as ggml writes it in a format, one row after another."""
    rows = np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1])
    n_out, n_in = rows.shape
    n_bytes = n_out * ggml("ggml_row_size", SIZE, INT, INT64)(type_of(name), n_in)
    out = np.empty(n_bytes, np.uint8)
    quantize = ggml_base().ggml_quantize_chunk
    quantize.restype = SIZE
    quantize.argtypes = [INT, POINTER, POINTER, INT64, INT64, INT64, POINTER]
    arguments = rows.ctypes.data, out.ctypes.data, 0, n_out, n_in, None
    assert quantize(type_of(name), *arguments) == n_bytes
    return out


class Layout(Enum):
    """How weights lie in memory."""

    IN_FILE = "in file"
    REPACKED = "CPU_REPACK"  # by ggml, in a buffer type of this name
    OURS = "CPU_MTP"


@dataclass(frozen=True)
class Weights:
    """A matrix in a number format, where ggml holds it, or one for each expert."""

    pointer: int
    n_out: int
    n_in: int
    layout: Layout


@contextlib.contextmanager
def held(name: str, values: Floats, layout: Layout = Layout.IN_FILE) -> Iterator[Weights | None]:
    """(n_out, n_in) or (n_expert, n_out, n_in) in memory.

    None where llama.cpp would not load such weights so.
    """
    is_in_file = layout is Layout.IN_FILE
    kind = ggml("ggml_backend_cpu_buffer_type", POINTER)() if is_in_file else _buffer_type(layout)
    with context(no_alloc=True) as within:
        new = ggml("ggml_new_tensor", POINTER, POINTER, INT, INT, ctypes.POINTER(INT64))
        size = (INT64 * values.ndim)(*values.shape[::-1])
        made = int(new(within, type_of(name), values.ndim, size))
        if not is_in_file and not _can_lie(within, kind, made, values.ndim):
            yield None
            return
        allocate = ggml("ggml_backend_alloc_ctx_tensors_from_buft", POINTER, POINTER, POINTER)
        buffer = allocate(within, kind)
        try:
            data = quantized(name, values)
            put = ggml("ggml_backend_tensor_set", None, POINTER, POINTER, SIZE, SIZE)
            put(made, data.ctypes.data, 0, data.nbytes)
            yield Weights(made, values.shape[-2], values.shape[-1], layout)
        finally:
            ggml("ggml_backend_buffer_free", None, POINTER)(buffer)


def _can_lie(within: int, kind: int, made: int, n_dims: int) -> bool:
    """What llama.cpp's loader asks, of a tensor in an empty buffer of that type."""
    allocate = ggml("ggml_backend_buft_alloc_buffer", POINTER, POINTER, SIZE)
    held_in = POINTER.from_address(made + _BUFFER_AT)
    new = ggml("ggml_new_tensor_3d", POINTER, POINTER, INT, INT64, INT64, INT64)
    n_in = _ne(made)[0]
    if n_dims == 2:
        multiply = ggml("ggml_mul_mat", POINTER, POINTER, POINTER, POINTER)
        op = multiply(within, made, new(within, F32, n_in, 512, 1))
    else:
        multiply = ggml("ggml_mul_mat_id", POINTER, POINTER, POINTER, POINTER, POINTER)
        op = multiply(within, made, new(within, F32, n_in, 1, 512), new(within, I32, 1, 512, 1))
    buffer = held_in.value = allocate(kind, 0)
    device = ggml("ggml_backend_dev_by_type", POINTER, INT)(_CPU)
    try:
        supports = ggml("ggml_backend_dev_supports_op", ctypes.c_bool, POINTER, POINTER)
        return bool(supports(device, op))
    finally:
        held_in.value = None
        ggml("ggml_backend_buffer_free", None, POINTER)(buffer)


def _ne(made: int) -> list[int]:
    return list((INT64 * 4).from_address(made + _NE_AT))


@functools.cache
def _buffer_type(layout: Layout) -> int:
    device = ggml("ggml_backend_dev_by_type", POINTER, INT)(_CPU)
    registry = ggml("ggml_backend_dev_backend_reg", POINTER, POINTER)(device)
    find = ggml("ggml_backend_reg_get_proc_address", POINTER, POINTER, TEXT)
    address = find(registry, b"ggml_backend_dev_get_extra_bufts")
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(POINTER), POINTER)(address)(device)
    name_of = ggml("ggml_backend_buft_name", TEXT, POINTER)
    for kind in kinds:  # ends with a null
        if kind is None:
            break
        if name_of(kind) == layout.value.encode():
            return int(kind)
    raise LookupError(f"there is no {layout.value} here")


def product(weights: Weights, rows: Floats, *, n_threads: int = 1) -> Floats:
    """(..., n_out): rows (..., n_in), of up to three dimensions, times weights."""
    with context() as within:
        out = _product(within, weights, rows)
        return computed(within, out, (*rows.shape[:-1], weights.n_out), n_threads)


def product_work_bytes(weights: Weights, n_rows: int) -> int:
    with context() as within:
        rows = np.zeros((n_rows, weights.n_in), np.float32)
        return work_bytes(within, _product(within, weights, rows))


def _product(within: int, weights: Weights, rows: Floats) -> int:
    multiply = ggml("ggml_mul_mat", POINTER, POINTER, POINTER, POINTER)
    return int(multiply(within, weights.pointer, tensor(within, rows)))


def rounded(kind: str, rows: Floats) -> npt.NDArray[np.uint8]:
    """(n_rows, n_bytes): rows as ggml rounds them before it multiplies them."""
    traits = ggml("ggml_get_type_traits_cpu", ctypes.POINTER(POINTER), INT)(type_of(kind))
    round_row = ctypes.CFUNCTYPE(None, POINTER, POINTER, INT64)(traits[0])
    n_bytes = ggml("ggml_row_size", SIZE, INT, INT64)(type_of(kind), rows.shape[1])
    out = np.empty((len(rows), n_bytes), np.uint8)
    for row, into in zip(np.ascontiguousarray(rows), out, strict=True):
        round_row(row.ctypes.data, into.ctypes.data, len(row))
    return out


@dataclass(frozen=True)
class Routed:
    """Rows and the experts that they chose.

    rows: (n_tokens, 1 or n_used, n_in), one for all experts of a token or one for each
    ids:  (n_tokens, n_used)
    """

    rows: Floats
    ids: npt.NDArray[np.int32]

    def token(self, index: int) -> Routed:
        return Routed(self.rows[index : index + 1], self.ids[index : index + 1])

    def first(self, n_tokens: int) -> Routed:
        return Routed(self.rows[:n_tokens], self.ids[:n_tokens])


def expert_product(weights: Weights, routed: Routed, *, n_threads: int = 1) -> Floats:
    """(n_tokens, n_used, n_out): rows times the weights of those experts."""
    with context() as within:
        out = _expert_product(within, weights, routed)
        return computed(within, out, (*routed.ids.shape, weights.n_out), n_threads)


def expert_product_work_bytes(weights: Weights, routed: Routed) -> int:
    with context() as within:
        return work_bytes(within, _expert_product(within, weights, routed))


def _expert_product(within: int, weights: Weights, routed: Routed) -> int:
    """The ids are part of a wider matrix, as the best of a sorted one are in a model."""
    n_tokens, n_used = routed.ids.shape
    wide = tensor(within, np.concatenate([routed.ids, routed.ids + 10**6], axis=1))
    view = ggml("ggml_view_2d", POINTER, POINTER, POINTER, INT64, INT64, SIZE, SIZE)
    ids = view(within, wide, n_used, n_tokens, 2 * n_used * routed.ids.itemsize, 0)
    multiply = ggml("ggml_mul_mat_id", POINTER, POINTER, POINTER, POINTER, POINTER)
    return int(multiply(within, weights.pointer, tensor(within, routed.rows), ids))
