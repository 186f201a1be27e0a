"""Writes a GGUF in another number format, with llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mtp_cli.engine.backend.binding import lib
from mtp_cli.errors import MtpError

_FTYPES = {
    "f32": lib.LLAMA_FTYPE_ALL_F32,
    "f16": lib.LLAMA_FTYPE_MOSTLY_F16,
    "bf16": lib.LLAMA_FTYPE_MOSTLY_BF16,
    "q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_1": lib.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q5_0": lib.LLAMA_FTYPE_MOSTLY_Q5_0,
    "q5_1": lib.LLAMA_FTYPE_MOSTLY_Q5_1,
    "q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_k_m": lib.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q6_k": lib.LLAMA_FTYPE_MOSTLY_Q6_K,
    "iq4_nl": lib.LLAMA_FTYPE_MOSTLY_IQ4_NL,
}
OUTTYPES = tuple(_FTYPES)


def quantize(source: Path, destination: Path, outtype: str, n_threads: int = 0) -> None:
    """Write `source` in another format, also when it is quantized already.

    outtype: one of OUTTYPES; n_threads: 0 for all. Raises MtpError when llama.cpp cannot.
    """
    params = lib.llama_model_quantize_default_params()
    params.ftype = _FTYPES[outtype]
    params.nthread = n_threads
    params.allow_requantize = True
    code = lib.llama_model_quantize(
        os.fsencode(source), os.fsencode(destination), ctypes.byref(params)
    )
    if code != 0:
        raise MtpError(f"{destination}: llama.cpp could not write {source} as {outtype}")
