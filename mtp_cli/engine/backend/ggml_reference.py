"""Which of ggml's CPU kernels a context runs.

Owns the switch between a backend's usual kernels and those ggml calls its reference, which are the
same ones without the ways that depend on the number of rows: a single row's keys are not split
among threads, and many rows are not taken in tiles. Knows nothing of decodes.
"""

from __future__ import annotations

import ctypes
from typing import Any

from mtp_cli.engine.backend.binding import get_sched, ggml_base


class CpuKernels:
    """The CPU backends of one context; it must not be used after the context is freed."""

    def __init__(self, context: Any) -> None:
        self._setters = [] if get_sched is None else _setters(get_sched(context))
        self._is_reference = False

    @staticmethod
    def can_switch() -> bool:
        """Whether llama.cpp's library lets anybody at a context's backends."""
        return get_sched is not None

    def use_reference(self, wanted: bool) -> None:
        """Choose the kernels of the decodes from now on."""
        if wanted != self._is_reference:
            for set_use_ref, backend in self._setters:
                set_use_ref(backend, wanted)
            self._is_reference = wanted


def _setters(sched: int) -> list[tuple[Any, ctypes.c_void_p]]:
    """`ggml_backend_cpu_set_use_ref` and its first argument, for every backend that has it."""
    base = ggml_base()
    pointer, found = ctypes.c_void_p, []
    for name, arguments in (
        ("ggml_backend_sched_get_backend", [pointer, ctypes.c_int]),
        ("ggml_backend_get_device", [pointer]),
        ("ggml_backend_dev_backend_reg", [pointer]),
        ("ggml_backend_reg_get_proc_address", [pointer, ctypes.c_char_p]),
    ):
        function = getattr(base, name)
        function.argtypes, function.restype = arguments, pointer
    base.ggml_backend_sched_get_n_backends.argtypes = [pointer]
    prototype = ctypes.CFUNCTYPE(None, pointer, ctypes.c_bool)
    for index in range(base.ggml_backend_sched_get_n_backends(sched)):
        backend = pointer(base.ggml_backend_sched_get_backend(sched, index))
        registry = base.ggml_backend_dev_backend_reg(base.ggml_backend_get_device(backend))
        address = base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_cpu_set_use_ref")
        if address:
            found.append((prototype(address), backend))
    return found
