"""Runs a head as mtp-train makes them, in compiled code of our own (`native/head.cpp`).

Owns which head files it can run and the memory their weights lie in. To a drafter it is what a
llama.cpp context for the same file is, with less between the products; its rows round differently.
Knows nothing of drafting.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.batch import floats_at
from mtp_cli.engine.backend.binding import llama_library
from mtp_cli.engine.files.gguf_header import Header, TensorEntry
from mtp_cli.engine.files.trimmed import D2T, is_trimmed
from mtp_cli.engine.native import compiled
from mtp_cli.engine.native.compiled import HeadShape
from mtp_cli.engine.types import Bytes, Floats
from mtp_cli.errors import MtpError
from mtp_cli.head_file import FUSION

_F32, _Q8_0 = 0, 8  # enum ggml_type
_BLOCK, _LANES = 32, 16  # what widths have to be whole numbers of
_CALLED = (  # in the order of `head::Functions`; all but the first are there if ggml uses OpenMP
    "ggml_get_type_traits_cpu",
    *("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads"),
)
_BLOCK_PREFIX = "blk.0."
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_ROPE_BASE = 10_000.0  # llama.cpp's, of files that say nothing
_FULL = 1  # `mtp_head_decode`'s word for it


def _tensors(shape: HeadShape, n_embedded: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, in ggml's order; the first eight are the matrices, and all but the
    last stand in the order of `head::Weights`. n_embedded: rows of the embedding"""
    d, n_q = shape.n_embd, shape.n_head * shape.head_dim
    n_kv = shape.n_head_kv * shape.head_dim
    block = {
        "nextn.eh_proj": (2 * d, d),
        "attn_qkv": (d, n_q + 2 * n_kv),
        "attn_output": (n_q, d),
        "ffn_gate": (d, shape.n_ff),
        "ffn_up": (d, shape.n_ff),
        "ffn_down": (shape.n_ff, d),
        **dict.fromkeys(
            ("nextn.enorm", "nextn.hnorm", "attn_norm", "ffn_norm", "nextn.shared_head_norm"), (d,)
        ),
    }
    return {
        _EMBEDDING: (d, n_embedded),
        _OUTPUT: (d, shape.n_vocab),
        **{f"{_BLOCK_PREFIX}{name}.weight": size for name, size in block.items()},
        "output_norm.weight": (d,),  # the target's; no head reads it
    }


@dataclass(frozen=True)
class Runnable:
    """A head that is computed here: its file, its shape, where its weights lie in it.

    n_embedded: ids that it reads; it drafts in `shape.n_vocab`
    """

    path: Path
    shape: HeadShape
    weights: tuple[TensorEntry, ...]
    n_embedded: int


def runnable(header: Header, n_ctx: int) -> Runnable | None:
    """This file's head, if it is computed here to the last tensor, and the code was built.

    n_ctx: rows it has to remember; a head that sees fewer of them is llama.cpp's
    """
    return None if usable() is None else described(header, n_ctx)


def described(header: Header, n_ctx: int) -> Runnable | None:
    """The same wherever the code was built, of a file that need not be there."""
    shape = _shape(header)
    window = header.number("attention.sliding_window")
    if shape is None or 0 < window < n_ctx:
        return None
    n_embedded = header.tensors[_EMBEDDING].shape[-1]
    expected = _tensors(shape, n_embedded if is_trimmed(header) else shape.n_vocab)
    # The fusion's are not the head's: `fusion.py` reads them.
    is_known = header.tensors.keys() - {*FUSION, D2T} == expected.keys() and all(
        (entry.shape, entry.ggml_type) == (size, _Q8_0 if len(size) > 1 else _F32)
        for entry, size in ((header.tensors[name], size) for name, size in expected.items())
    )
    weights = tuple(header.tensors[name] for name in list(expected)[:-1]) if is_known else ()
    return Runnable(header.path, shape, weights, n_embedded) if is_known else None


def head_norm(header: Header) -> tuple[Floats, float] | None:
    """Of a head as mtp-train makes them, the norm before its output, (n_embd,), and its epsilon;
    None of others. OSError where the file cannot be read."""
    entry = header.tensors.get(f"{_BLOCK_PREFIX}nextn.shared_head_norm.weight")
    is_own = header.architecture == "mimo2" and header.number("nextn_predict_layers") == 1
    if entry is None or entry.ggml_type != _F32 or not is_own:
        return None
    norm = np.fromfile(header.path, np.float32, entry.shape[0], offset=entry.offset)
    eps = header.pairs.get(f"{header.architecture}.attention.layer_norm_rms_epsilon", 0.0)
    return (norm, float(eps)) if len(norm) == entry.shape[0] else None


def _shape(header: Header) -> HeadShape | None:
    """What the file's keys say; None where they say more than is computed here."""
    if header.architecture != "mimo2" or not {_EMBEDDING, _OUTPUT} <= header.tensors.keys():
        return None
    keys = _own(header.pairs, "mimo2.")
    bases = {keys.get(f"rope.{name}", _ROPE_BASE) for name in ("freq_base", "freq_base_swa")}
    heads_kv = np.atleast_1d(keys.get("attention.head_count_kv", 0))
    head_dim = header.number("attention.key_length")
    is_plain = (
        header.number("block_count") == header.number("nextn_predict_layers") == 1
        and head_dim == header.number("attention.value_length")
        and head_dim == header.number("rope.dimension_count")
        and len(bases) == len(heads_kv) == 1
        and "attention.value_scale" not in keys
        and not any(name.startswith("rope.scaling") for name in keys)
    )
    shape = HeadShape(
        n_embd=header.number("embedding_length"),
        n_head=header.number("attention.head_count"),
        n_head_kv=int(heads_kv[0]),
        head_dim=head_dim,
        n_ff=header.number("feed_forward_length"),
        n_vocab=header.tensors[_OUTPUT].shape[-1],
        rms_eps=float(keys.get("attention.layer_norm_rms_epsilon", 0)),
        rope_base=float(bases.pop()),
    )
    return shape if is_plain and _divides(shape) else None


def _own(pairs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): v for key, v in pairs.items() if key.startswith(prefix)}


def _divides(shape: HeadShape) -> bool:
    """Whether its widths are whole numbers of what is taken at a time."""
    n_q = shape.n_head * shape.head_dim
    widths = (
        *((shape.n_embd, _BLOCK), (shape.n_ff, _BLOCK), (n_q, _BLOCK)),
        *((shape.head_dim, _LANES), (shape.n_head, shape.n_head_kv)),
    )
    is_whole = all(width > 0 and unit > 0 and width % unit == 0 for width, unit in widths)
    return is_whole and shape.n_vocab > 0


class _Cells(ctypes.Structure):
    """`head::Cells`"""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("first_position", "n", "n_bytes")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


class NativeHead:
    """One head's cells and weights. Rows stand at consecutive positions, wherever they begin.

    Raises MtpError where the file cannot be read.

    n_ctx: cells
    """

    def __init__(self, head: Runnable, *, n_ctx: int, n_batch: int, n_threads: int) -> None:
        shape = HeadShape.from_buffer_copy(head.shape)
        shape.n_ctx, shape.n_batch, shape.n_threads = n_ctx, n_batch, n_threads
        self.n_ctx, self.n_embd = n_ctx, int(shape.n_embd)
        try:
            # A copy: a file that shrinks under its mapping would end the process.
            held = np.fromfile(head.path, np.uint8)
        except OSError as error:
            raise MtpError(f"{head.path}: {error.strerror or error}") from error
        except MemoryError:
            raise MtpError(f"{head.path}: no memory for the head") from None
        if len(held) < max(entry.offset + entry.n_bytes for entry in head.weights):
            raise MtpError(f"{head.path}: it has become shorter")
        library = usable()
        weights = [held.ctypes.data + entry.offset for entry in head.weights]
        embedding = head.weights[0]  # alone read in place; all else is laid out in the library
        rows = held[embedding.offset :][: embedding.n_bytes].reshape(head.n_embedded, -1)
        self._embedding: Bytes | None = None
        self._shown: Bytes = rows.copy()
        if head.n_embedded > shape.n_vocab:
            # The compiled code embeds as many ids as it scores: it is shown the rows of a decode.
            self._embedding, self._shown = self._shown, rows[:n_batch].copy()
        weights[0] = self._shown.ctypes.data
        self._handle = library.mtp_head_open(
            shape,
            (ctypes.c_void_p * len(weights))(*weights),
            functions(),
        )
        if not self._handle:
            raise MtpError(f"{head.path}: no memory for the head")
        self._library = library
        self._tokens = (ctypes.c_int32 * n_batch)()
        self._n_vocab = int(shape.n_vocab)
        self._logits = floats_at(library.mtp_head_logits(self._handle), 1, shape.n_vocab)
        self._hidden = floats_at(library.mtp_head_hidden(self._handle), 1, shape.n_embd)

    def decode(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        first_output: int = 0,
        hidden: Floats | None = None,
    ) -> None:
        """Run rows at `position`, `position + 1`, ..., right after those it holds.

        tokens:       ids of the head's own vocabulary, or of all that it embeds
        first_output: the last row's: only that one gives outputs
        hidden:       (n_rows, n_embd) float32; every row has one
        """
        if first_output != len(tokens) - 1 or hidden is None:
            raise ValueError(
                "the head reads a hidden row with each token, and gives the last one's"
            )
        self._run(tokens, position, hidden, keys_alone=False)

    def read(self, tokens: Sequence[int], position: int, hidden: Floats) -> None:
        """The same, with no outputs: of these rows only keys and values are computed."""
        self._run(tokens, position, hidden, keys_alone=True)

    def _run(
        self, tokens: Sequence[int], position: int, hidden: Floats, *, keys_alone: bool
    ) -> None:
        n_rows = len(tokens)
        if hidden.shape != (n_rows, self.n_embd):
            raise ValueError(f"a hidden row of {self.n_embd} values for each token")
        self._tokens[:n_rows] = [*self._embedded(tokens)]
        rows = np.ascontiguousarray(hidden, np.float32)
        code = self._library.mtp_head_decode(
            self._handle, self._tokens, rows.ctypes.data, n_rows, position, keys_alone
        )
        if code == _FULL:
            raise MtpError(f"the head's context of {self.n_ctx} tokens is full")
        if code != 0:
            raise ValueError(
                f"position {position} does not follow the rows it holds, or there is no such token"
            )

    def _embedded(self, tokens: Sequence[int]) -> list[int]:
        """Which rows of the embedding that the compiled code is shown are these ids'."""
        if self._embedding is None:
            return list(tokens)
        if not 0 <= min(tokens) <= max(tokens) < len(self._embedding):
            raise ValueError(f"there is no such token among {len(self._embedding)}")
        self._shown[: len(tokens)] = self._embedding[list(tokens)]
        return [*range(len(tokens))]

    def use_threads(self, n_threads: int) -> None:
        """From the next decode on; no more than it was opened with."""
        self._library.mtp_head_use_threads(self._handle, n_threads)

    def adopt(self, embedding: Bytes | None, output: Bytes, first: int, n: int) -> None:
        """See `adopted_ids.Adopts`."""
        self._adopted = embedding  # read in place
        address = None if embedding is None else embedding.ctypes.data
        new = output[first:].ctypes.data
        self._library.mtp_head_adopt(self._handle, address, new, first, n)
        logits = self._library.mtp_head_logits(self._handle)
        self._logits = floats_at(logits, 1, self._n_vocab + n)

    def logits(self) -> Floats:
        """(1, n_draft + n_adopted) float32, a view that the next decode overwrites."""
        return self._logits

    def hidden(self) -> Floats:
        """(1, n_embd) float32, a view that the next decode overwrites."""
        return self._hidden

    def remove_from(self, position: int) -> bool:
        """Drop every cell at `position` and after."""
        self._library.mtp_head_drop_from(self._handle, position)
        return True

    def remove_before(self, position: int) -> bool:
        """Drop every cell before `position`."""
        self._library.mtp_head_drop_before(self._handle, position)
        return True

    def clear(self) -> None:
        self.remove_from(0)

    def save(self) -> Bytes:
        """Its cells: the first one's position, how many there are, their keys, their values."""
        cells = self._cells()
        places = np.array([cells.first_position, cells.n], np.int32)
        held = (self._held(address, cells.n) for address in (cells.keys, cells.values))
        return np.concatenate([places.view(np.uint8), *held])

    def restore(self, state: Bytes) -> bool:
        """Hold what was saved, and nothing else."""
        first_position, n = state[:8].view(np.int32).tolist()
        cells, saved = self._cells(), state[8:].reshape(2, -1)
        if n > self.n_ctx:
            self.clear()
            return False
        for address, array in zip((cells.keys, cells.values), saved, strict=True):
            self._held(address, n)[:] = array
        self._library.mtp_head_hold(self._handle, first_position, n)
        return True

    def _cells(self) -> _Cells:
        cells = _Cells()
        self._library.mtp_head_cells(self._handle, ctypes.byref(cells))
        return cells

    def _held(self, address: int, n: int) -> Bytes:
        """The keys or values of the first n cells: a view of the head's own memory."""
        n_bytes = n * self._cells().n_bytes
        return np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(address))

    def use_head(self, index: int) -> None:
        """The first is the only one."""
        if index != 0:
            raise ValueError(f"there is no head {index}")

    def close(self) -> None:
        if self._handle:
            self._library.mtp_head_close(self._handle)
            self._handle = None


@functools.cache
def usable() -> Any:
    """The compiled code, where it can run heads; None elsewhere."""
    library = compiled.load()
    if library is None or our_kernels.install() is None:
        return None
    if any(not hasattr(llama_library, name) for name in _CALLED):
        return None
    return library


def functions() -> Any:
    """What of llama.cpp's libraries it calls: `head::Functions`."""
    found = [ctypes.cast(getattr(llama_library, name), ctypes.c_void_p) for name in _CALLED]
    return (ctypes.c_void_p * len(found))(*found)
