"""LoRA adapters on a model: loaded with it, set on the contexts that run its text.

Heads keep to the weights that they were trained for: they draft, and what they draft is verified by
the model with its adapters.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_cli.engine.backend.binding import errors, failure, lib


class Lora(NamedTuple):
    """scale: times the adapter's own"""

    path: Path
    scale: float = 1.0


class Adapters:
    """Those of one model, which frees them. Raises MtpError where one does not fit it."""

    def __init__(self, model: Any, loras: Sequence[Lora]) -> None:
        self._scales = [lora.scale for lora in loras]
        self._handles = [_loaded(model, lora.path) for lora in loras]

    def set_on(self, context: Any) -> None:
        n = len(self._handles)
        if n == 0:
            return
        handles = (lib.llama_adapter_lora_p_ctypes * n)(*self._handles)
        errors.clear()
        if lib.llama_set_adapters_lora(context, handles, n, (ctypes.c_float * n)(*self._scales)):
            raise failure("llama.cpp could not set the LoRA adapters")


def _loaded(model: Any, path: Path) -> Any:
    errors.clear()
    handle = lib.llama_adapter_lora_init(model, os.fsencode(path))
    if not handle:
        raise failure(f"{path}: no LoRA adapter for this model")
    return handle
