"""Which device computes which part of a model: devices, shares, tensors that are kept elsewhere.

Owns llama.cpp's names for them. Knows nothing of what is in a model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mtp_cli.engine.backend import rpc
from mtp_cli.engine.backend.binding import (
    CPU_DEVICE,
    device_name,
    device_type,
    ggml_base,
    lib,
    local_devices,
    local_gpus,
    supports_gpu,
)
from mtp_cli.errors import MtpError

CPU = "CPU"  # llama.cpp's name of the processor's own memory
NO_DEVICE = "none"
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # a mixture's weights, as --cpu-moe means them


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
    servers:   "HOST:PORT" of RPC servers, whose devices come before this machine's own
    """

    overrides: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] | None = None
    split: tuple[float, ...] = ()
    servers: tuple[str, ...] = ()

    @property
    def offloads(self) -> bool:
        """Whether there are devices beside the CPU that layers can go to."""
        return bool(self.servers) or supports_gpu()

    def alone(self) -> Placement:
        """The same devices, for a model that has other tensors."""
        return Placement(devices=self.devices, servers=self.servers)

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
        if self.devices is not None or self.servers:
            chosen = self._chosen()
            devices = (ctypes.c_void_p * (len(chosen) + 1))(*chosen)
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

    def _chosen(self) -> list[int]:
        """Devices in the order in which layers go to them."""
        remote = rpc.devices(self.servers)
        if self.devices is None:
            return [*remote, *local_gpus()]
        local = [device for device in local_devices() if device_type(device) != CPU_DEVICE]
        named = {device_name(device): device for device in (*remote, *local)}
        for name in self.devices:
            if name not in named:
                there = ", ".join(named) or "none beside the CPU in this build of llama.cpp"
                raise MtpError(f"--device: no device {name} here; there is {there}")
        return [named[name] for name in self.devices]

    def _overrides(self) -> Iterator[_Override]:
        buffers = _buffer_types([*local_devices(), *rpc.devices(self.servers)])
        for pattern, name in self.overrides:
            if name not in buffers:
                known = ", ".join(buffers)
                raise MtpError(f"--override-tensor: no buffer type {name} here; there are {known}")
            # Without another device all is there; said once more, llama.cpp would not repack it.
            if name != CPU or self.offloads:
                yield _Override(pattern.encode(), buffers[name])


ANYWHERE = Placement()  # as llama.cpp has it


def _buffer_types(devices: Iterable[int]) -> dict[str, int]:
    base = ggml_base()
    types = map(base.ggml_backend_dev_buffer_type, devices)
    return {base.ggml_backend_buft_name(kind).decode(errors="replace"): kind for kind in types}
