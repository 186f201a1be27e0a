"""Rows of several layers made into the one row that a head reads.

    h = W * concat_i(rms_norm(row of layer i) * w_i) [+ rms_norm(final row) * f]

as EAGLE-3 does it (arXiv:2503.01840), with a norm for each layer, whose rows differ in size. Owns
reading W, w and f from a head file; products in compiled code where that can be and in numpy
elsewhere. Knows nothing of drafting.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.one_thread import multiplied
from mtp_cli.engine.files.fused_heads import FORMATS
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.native.compiled import FusionShape
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_cli.head_file import FINAL_NORM, FUSE, FUSE_NORM

_LANES, _BLOCK = 16, 32  # what widths have to be whole numbers of in compiled code


class Fusion(Protocol):
    """width: of a row of all its layers, n_layers * n_embd, and the final row behind them, where it
    is read: as HiddenSource.LAYER and LAYER_AND_EMBD give them"""

    width: int

    def rows(self, layers: Floats) -> Floats:
        """(n, width) float32, raw -> (n, n_embd) float32. A final row of zeros adds nothing."""

    def use_threads(self, n_threads: int) -> None: ...
    def close(self) -> None: ...


def open_fusion(heads: Header, n_batch: int, n_threads: int) -> Fusion:
    """The fusion of a head file that was found sound; MtpError where it cannot be read.

    n_batch: the most rows at once
    """
    eps = float(heads.pairs.get(f"{heads.architecture}.attention.layer_norm_rms_epsilon", 0.0))
    entry = heads.tensors[FUSE]
    width, n_embd = entry.shape
    norm = _bytes(heads, FUSE_NORM).view(np.float32)
    final = _bytes(heads, FINAL_NORM).view(np.float32) if FINAL_NORM in heads.tensors else None
    is_whole = n_embd % _LANES == 0 and width % _BLOCK == 0
    if FORMATS[entry.ggml_type] == "Q8_0" and is_whole and compiled_head.usable() is not None:
        shape = FusionShape(n_embd, width // n_embd, n_batch, n_threads, eps)
        return CompiledFusion(shape, _bytes(heads, FUSE), norm, final)
    weights = _READERS[FORMATS[entry.ggml_type]](_bytes(heads, FUSE))
    return NumpyFusion(weights.reshape(n_embd, width), norm, final, eps)


def _bytes(heads: Header, name: str) -> Any:
    entry = heads.tensors[name]
    try:
        found = np.fromfile(heads.path, np.uint8, entry.n_bytes, offset=entry.offset)
    except OSError as error:
        raise MtpError(f"{heads.path}: {error.strerror or error}") from error
    if len(found) < entry.n_bytes:
        raise MtpError(f"{heads.path}: it has become shorter")
    return found


def _from_bf16(raw: Any) -> Any:
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _from_q8_0(raw: Any) -> Any:
    blocks = raw.view(np.dtype([("d", np.float16), ("qs", np.int8, _BLOCK)]))
    return (blocks["d"].astype(np.float32)[:, np.newaxis] * blocks["qs"]).ravel()


_READERS: dict[str, Any] = {
    "F32": lambda raw: raw.view(np.float32),
    "F16": lambda raw: raw.view(np.float16).astype(np.float32),
    "BF16": _from_bf16,
    "Q8_0": _from_q8_0,
}


class NumpyFusion:
    """weights: (n_embd, n_layers * n_embd) float32; norm: (n_layers * n_embd,) float32; final:
    (n_embd,) float32, the norm of final rows, None where none are read"""

    def __init__(self, weights: Floats, norm: Floats, final: Floats | None, eps: float) -> None:
        n_embd, self._n_layered = weights.shape
        self.width = self._n_layered + (0 if final is None else n_embd)
        self._weights, self._final, self._eps = weights, final, eps
        self._norm = norm.reshape(-1, n_embd)

    def rows(self, layers: Floats) -> Floats:
        each = layers[:, : self._n_layered].reshape(len(layers), *self._norm.shape)
        normed = self._normed(each, self._norm).reshape(len(layers), self._n_layered)
        fused = multiplied(normed, self._weights)
        if self._final is not None:
            fused += self._normed(layers[:, self._n_layered :], self._final)
        return fused

    def _normed(self, rows: Floats, norm: Floats) -> Floats:
        scale = 1 / np.sqrt(np.mean(rows * rows, axis=-1, keepdims=True) + self._eps)
        normed: Floats = (rows * scale * norm).astype(np.float32)
        return normed

    def use_threads(self, n_threads: int) -> None:
        """One multiplies."""

    def close(self) -> None:
        pass


class CompiledFusion:
    """`native/fusion.cpp`: weights in Q8_0."""

    def __init__(
        self, shape: FusionShape, weights: Any, norm: Floats, final: Floats | None
    ) -> None:
        self._n_embd, self._n_batch = int(shape.n_embd), int(shape.n_batch)
        self.width = self._n_embd * (int(shape.n_layers) + (final is not None))
        self._library = compiled_head.usable()
        self._handle = self._library.mtp_fusion_open(
            shape,
            weights.ctypes.data,
            norm.ctypes.data,
            None if final is None else final.ctypes.data,
            compiled_head.functions(),
        )
        if not self._handle:
            raise MtpError("no memory for the head's fusion")

    def rows(self, layers: Floats) -> Floats:
        if layers.ndim != 2 or layers.shape[1] != self.width or len(layers) > self._n_batch:
            raise ValueError(f"at most {self._n_batch} rows of {self.width} values")
        given = np.ascontiguousarray(layers, np.float32)
        out = np.empty((len(given), self._n_embd), np.float32)
        self._library.mtp_fusion_rows(self._handle, given.ctypes.data, len(given), out.ctypes.data)
        return out

    def use_threads(self, n_threads: int) -> None:
        self._library.mtp_fusion_use_threads(self._handle, n_threads)

    def close(self) -> None:
        if self._handle:
            self._library.mtp_fusion_close(self._handle)
            self._handle = None
