"""A GGUF without some of its tensors, which llama.cpp loads only when it knows every one.

Written anew into a temporary file, byte for byte but for the directory. Knows nothing of what the
tensors are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from mtp_cli.engine.backend.gguf_keys import InitParams, gguf_library
from mtp_cli.errors import MtpError

_CHUNK = 1 << 24


@contextlib.contextmanager
def without_tensors(path: Path, names: Collection[str]) -> Iterator[Path]:
    """A file with all the others, until the block ends; `path` itself if it has none of these."""
    handle, tensors = _opened(path)
    library = gguf_library()
    try:
        found = [
            library.gguf_get_tensor_name(handle, index).decode(errors="replace")
            for index in range(library.gguf_get_n_tensors(handle))
        ]
        if not set(found) & set(names):
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="mtp-", ignore_cleanup_errors=True) as folder:
            part = Path(folder) / path.name
            try:
                _write(part, path, handle, tensors, [name for name in found if name not in names])
            except OSError as error:
                raise MtpError(
                    f"{path}: no copy of it could be written to {tempfile.gettempdir()}: "
                    f"{error.strerror or error}"
                ) from error
            yield part
    finally:
        library.gguf_free(handle)
        library.ggml_free(tensors)


def _opened(path: Path) -> tuple[int, ctypes.c_void_p]:
    """The header's handle, and the tensors' descriptions."""
    tensors = ctypes.c_void_p()
    params = InitParams(True, ctypes.cast(ctypes.byref(tensors), ctypes.c_void_p))
    handle = gguf_library().gguf_init_from_file(os.fsencode(path), params)
    if not handle:
        raise MtpError(f"{path}: the GGUF header is damaged; get the file again")
    return handle, tensors


def _write(part: Path, path: Path, handle: int, tensors: ctypes.c_void_p, names: list[str]) -> None:
    library = gguf_library()
    new = library.gguf_init_empty()
    try:
        library.gguf_set_kv(new, handle)
        for name in names:
            library.gguf_add_tensor(new, library.ggml_get_tensor(tensors, name.encode()))
        header = ctypes.create_string_buffer(library.gguf_get_meta_size(new))
        library.gguf_get_meta_data(new, header)
        with path.open("rb") as old, part.open("wb") as file:
            file.write(header.raw)
            for index, name in enumerate(names):
                was = library.gguf_find_tensor(handle, name.encode())
                old.seek(
                    library.gguf_get_data_offset(handle)
                    + library.gguf_get_tensor_offset(handle, was)
                )
                file.seek(len(header) + library.gguf_get_tensor_offset(new, index))
                left = library.gguf_get_tensor_size(handle, was)
                while left:
                    left -= file.write(old.read(min(left, _CHUNK)))
            file.truncate(-(-file.tell() // 32) * 32)
    finally:
        library.gguf_free(new)
