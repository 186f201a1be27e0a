"""Which device computes which part of a model: devices, shares, tensors that are kept elsewhere.

Owns llama.cpp's names for them. Knows nothing of what is in a model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtp_cli.engine.backend.binding import ggml_base, ggml_registry, lib, supports_gpu
from mtp_cli.errors import MtpError

CPU = "CPU"  # llama.cpp's name of the processor's own memory
NO_DEVICE = "none"
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # a mixture's weights, as --cpu-moe means them
_CPU_DEVICE = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override"""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def experts_of(n_layers: int) -> Iterator[str]:
    """Patterns for the experts of the first layers."""
    for layer in range(n_layers):
        yield rf"blk\.{layer}{EXPERTS}"


@dataclass(frozen=True)
class Placement:
    """overrides: (pattern, buffer type): where tensors go whose names a pattern is found in
    devices:   that layers are offloaded to, () for none; None for all there are
    split:     shares of each device; () for what their free memory makes of it
    """

    overrides: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] | None = None
    split: tuple[float, ...] = ()

    def apply(self, params: Any) -> list[Any]:
        """Write it into llama_model_params; what is returned must live until the model is loaded.

        Raises MtpError for devices and buffers that are not there.
        """
        kept: list[Any] = []
        overrides = [*self._overrides()]
        if overrides:
            array = (_Override * (len(overrides) + 1))(*overrides)  # the last one stays null
            params.tensor_buft_overrides = ctypes.cast(array, ctypes.c_void_p)
            kept.append(array)
        if self.devices is not None:
            devices = (ctypes.c_void_p * (len(self.devices) + 1))(*map(_device, self.devices))
            params.devices = ctypes.cast(devices, ctypes.c_void_p)
            kept.append(devices)
        if self.split:
            n_most = int(lib.llama_max_devices())
            if len(self.split) > n_most:
                raise MtpError(f"--tensor-split: {len(self.split)} shares, and at most {n_most}")
            split = (ctypes.c_float * n_most)(*self.split)
            params.tensor_split = split
            kept.append(split)
        return kept

    def _overrides(self) -> Iterator[_Override]:
        buffers = _buffer_types()
        for pattern, name in self.overrides:
            if name not in buffers:
                known = ", ".join(buffers)
                raise MtpError(f"--override-tensor: no buffer type {name} here; there are {known}")
            # Without another device all is there; said once more, llama.cpp would not repack it.
            if name != CPU or supports_gpu():
                yield _Override(pattern.encode(), buffers[name])


ANYWHERE = Placement()  # as llama.cpp has it


def _devices() -> list[int]:
    registry = ggml_registry()
    return [
        registry.ggml_backend_dev_get(index) for index in range(registry.ggml_backend_dev_count())
    ]


def _name(device: int) -> str:
    return str(ggml_base().ggml_backend_dev_name(device).decode(errors="replace"))


def _device(name: str) -> int:
    """One that layers can be offloaded to."""
    found = [d for d in _devices() if ggml_base().ggml_backend_dev_type(d) != _CPU_DEVICE]
    named = {_name(device): device for device in found}
    if name not in named:
        there = ", ".join(named) or "none beside the CPU in this build of llama.cpp"
        raise MtpError(f"--device: no device {name} here; there is {there}")
    return named[name]


def _buffer_types() -> dict[str, int]:
    base = ggml_base()
    types = [base.ggml_backend_dev_buffer_type(device) for device in _devices()]
    return {base.ggml_backend_buft_name(kind).decode(errors="replace"): kind for kind in types}
