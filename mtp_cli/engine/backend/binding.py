"""The binding to llama.cpp: the only module that imports llama_cpp.

Owns the pinned release, the probe of its symbols, its log and the native libraries. The calls that
MTP needs are private to llama.cpp and bound under mangled C++ names by `llama_cpp.llama_cpp_ext`;
they may change with any release, which is why the version is pinned and the symbols are probed at
import. Knows nothing of what the calls are used for.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtp_cli.engine.backend.reasons import in_words
from mtp_cli.errors import MtpError

PINNED = "0.3.36"

try:
    import llama_cpp as lib
    from llama_cpp import llama_cpp_ext as ext
    from llama_cpp._ctypes_extensions import load_shared_library
    from llama_cpp.llama_cpp import _lib as llama_library
except (ImportError, AttributeError, OSError) as error:
    raise MtpError(
        f"llama-cpp-python {PINNED} with its MTP extensions did not load; install it again: "
        f"pip install --force-reinstall llama-cpp-python=={PINNED}"
    ) from error

__all__ = [
    "CPU_DEVICE",
    "PINNED",
    "backends",
    "device_name",
    "device_type",
    "errors",
    "ext",
    "failure",
    "get_embeddings_layer_inp",
    "get_sched",
    "ggml_base",
    "heard",
    "lib",
    "llama_library",
    "local_devices",
    "local_gpus",
    "open_file_at",
    "set_embeddings_layer_inp",
    "supports_gpu",
]

CPU_DEVICE, GPU_DEVICE, INTEGRATED_GPU = 0, 1, 2  # of enum ggml_backend_dev_type
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR; one more is continued lines of any level
errors: collections.deque[str] = collections.deque(maxlen=8)  # llama.cpp's last error lines


def _exported(names: tuple[str, ...], argtypes: list[Any], restype: Any) -> Any:
    """A C++ function of llama.cpp by its mangled names (Itanium's, Microsoft's); None if absent."""
    for name in names:
        function = getattr(llama_library, name, None)
        if function is not None:
            function.argtypes, function.restype = argtypes, restype
            return function
    return None


# Declared in llama.cpp's llama-ext.h, and not bound by llama_cpp_ext.
set_embeddings_layer_inp = _exported(
    (
        "_Z30llama_set_embeddings_layer_inpP13llama_contextjb",
        "?llama_set_embeddings_layer_inp@@YAXPEAUllama_context@@I_N@Z",
    ),
    [lib.llama_context_p_ctypes, ctypes.c_uint32, ctypes.c_bool],
    None,
)
get_embeddings_layer_inp = _exported(
    (
        "_Z30llama_get_embeddings_layer_inpP13llama_contextj",
        "?llama_get_embeddings_layer_inp@@YAPEAMPEAUllama_context@@I@Z",
    ),
    [lib.llama_context_p_ctypes, ctypes.c_uint32],
    ctypes.c_void_p,  # an address is an int, which takes less than a pointer to floats
)
# The scheduler that holds a context's backends; None where the library does not export it.
get_sched = _exported(
    (
        "_ZNK13llama_context9get_schedEv",
        "?get_sched@llama_context@@QEBAPEAUggml_backend_sched@@XZ",
    ),
    [lib.llama_context_p_ctypes],
    ctypes.c_void_p,
)


_heard: list[list[str]] = []


def _on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    for lines in _heard:
        lines.append(text.decode(errors="replace").rstrip("\n"))
    if level == _ERROR_LEVEL and text.strip():
        errors.append(text.decode(errors="replace").strip())


def _probe() -> None:
    """Fail at import, in a line a user can act on, when another release is installed."""
    needed = (
        (lib, "llama_model_n_layer_nextn", "llama_context_params", "llama_n_rs_seq"),
        (ext, "llama_set_embeddings_nextn", "llama_get_embeddings_nextn"),
        (ext, "llama_set_nextn_layer_offset", "llama_get_ctx_other"),
    )
    missing = [name for module, *names in needed for name in names if not hasattr(module, name)]
    fields = {name for name, *_ in lib.llama_model_params._fields_}
    missing += [f"llama_model_params.{name}" for name in {"load_mtp", "no_alloc"} - fields]
    if set_embeddings_layer_inp is None or get_embeddings_layer_inp is None:
        missing.append("llama_get_embeddings_layer_inp")
    if missing:
        raise MtpError(
            f"llama-cpp-python {lib.__version__} lacks {', '.join(missing)}; "
            f"install llama-cpp-python=={PINNED}"
        )


_probe()
_log_callback = lib.llama_log_callback(_on_log)  # kept: llama.cpp holds only a bare pointer
lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
lib.llama_backend_init()


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """What llama.cpp logs meanwhile, at every level: an item for each message."""
    lines: list[str] = []
    _heard.append(lines)
    try:
        yield lines
    finally:
        _heard[:] = [kept for kept in _heard if kept is not lines]


@functools.cache
def ggml_base() -> ctypes.CDLL:
    """ggml's own library, which reads GGUF headers, quantizes rows and describes devices."""
    base, pointer, text = _library("ggml-base"), ctypes.c_void_p, ctypes.c_char_p
    for name, result, *more in (
        ("ggml_backend_dev_name", text),
        ("ggml_backend_dev_description", text),
        ("ggml_backend_dev_type", ctypes.c_int),
        ("ggml_backend_dev_backend_reg", pointer),
        ("ggml_backend_dev_buffer_type", pointer),
        ("ggml_backend_dev_init", pointer, text),
        ("ggml_backend_buft_name", text),
        ("ggml_backend_reg_dev_count", ctypes.c_size_t),
        ("ggml_backend_reg_dev_get", pointer, ctypes.c_size_t),
        ("ggml_backend_reg_get_proc_address", pointer, text),
    ):
        function = getattr(base, name)
        function.argtypes, function.restype = [pointer, *more], result
    return base


@functools.cache
def ggml_registry() -> ctypes.CDLL:
    """The library that lists devices."""
    registry = _library("ggml")
    registry.ggml_backend_dev_count.argtypes = []
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_reg_by_name.argtypes = [ctypes.c_char_p]
    registry.ggml_backend_reg_by_name.restype = ctypes.c_void_p
    return registry


def local_devices() -> list[int]:
    """All that compute on this machine, the CPU among them."""
    registry = ggml_registry()
    return [
        registry.ggml_backend_dev_get(index) for index in range(registry.ggml_backend_dev_count())
    ]


def device_type(device: int) -> int:
    """CPU_DEVICE, GPU_DEVICE, INTEGRATED_GPU or another of enum ggml_backend_dev_type."""
    return int(ggml_base().ggml_backend_dev_type(device))


def device_name(device: int) -> str:
    return str(ggml_base().ggml_backend_dev_name(device).decode(errors="replace"))


def local_gpus() -> list[int]:
    """As llama.cpp chooses among this machine's: integrated ones where there are no others."""
    for kind in (GPU_DEVICE, INTEGRATED_GPU):
        found = [device for device in local_devices() if device_type(device) == kind]
        if found:
            return found
    return []


def _library(name: str) -> ctypes.CDLL:
    library: ctypes.CDLL = load_shared_library(name, Path(lib.__file__).parent / "lib")
    return library


def backends() -> tuple[str, ...]:
    """What computes here: how the backends were built, then every device's name and description.

    Another build of the same release (-DGGML_CUDA=on), another card or another CPU differs in it.
    """
    base = ggml_base()
    words = [lib.llama_print_system_info()]
    for device in local_devices():
        describe = (base.ggml_backend_dev_name, base.ggml_backend_dev_description)
        words += [word(device) for word in describe]
    return tuple(word.decode(errors="replace").strip() for word in words)


@contextlib.contextmanager
def open_file_at(path: Path, offset: int) -> Iterator[ctypes.c_void_p]:
    """A C `FILE *` that stands at byte `offset`, for llama.cpp to read a GGUF from."""
    is_windows = sys.platform == "win32"
    c = ctypes.CDLL("ucrtbase" if is_windows else None)
    seek = c._fseeki64 if is_windows else c.fseeko
    seek.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    c.fclose.argtypes = [ctypes.c_void_p]
    fopen = ggml_base().ggml_fopen
    fopen.argtypes, fopen.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_void_p
    file = fopen(os.fsencode(path), b"rb")
    if not file:
        raise MtpError(f"{path}: cannot be opened")
    try:
        if seek(file, offset, os.SEEK_SET) != 0:
            raise MtpError(f"{path}: cannot be read from byte {offset:,} on")
        yield ctypes.c_void_p(file)
    finally:
        c.fclose(file)


def supports_gpu() -> bool:
    """Whether this machine has a GPU that llama.cpp was built for.

    llama.cpp's own word for it says yes wherever it was built with RPC, too.
    """
    return bool(local_gpus())


def failure(what: str) -> MtpError:
    """The error for a native failure, with llama.cpp's first word on it (later ones pass it on)."""
    reason = in_words(errors[0]) if errors else "llama.cpp gave no reason"
    return MtpError(f"{what}: {reason}")
