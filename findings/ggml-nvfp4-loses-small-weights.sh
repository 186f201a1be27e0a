#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: block formats do not care how large the weights are. Each block has a scale, so
#   the relative error of Q4_0 or MXFP4 is the same for weights of a thousandth and of a thousand.
# True: not for NVFP4. Its scales are 8-bit floats of three mantissa bits (E4M3) whose smallest
#   step is 2^-9; the format relies on one more scale per *tensor* to bring the blocks' scales
#   into range, and `ggml_quantize_chunk` neither computes nor stores it. At a deviation of 0.02,
#   usual for LLM weights, the error is already above that at 1; at 0.005 it is half as large
#   again; at 0.002 nearly everything is rounded to zero, and at 0.001 everything. No call fails.
# Why it matters: in a test on unit normals the format looks better than MXFP4, and then it wipes
#   out the tensors with small weights. Multiply a tensor into range first, and keep the factor.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
venv=${FINDINGS_VENV:-}
if [ -z "$venv" ]; then
    venv=$scratch/venv
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -qq llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.6
fi
cd "$scratch"
"$venv/bin/python" - <<'PYTHON'
import ctypes
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"
library = next((Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base.*"))
ggml = ctypes.CDLL(str(library))
pointer, int64 = ctypes.c_void_p, ctypes.c_int64
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, int64, int64, int64, pointer]
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t


def error(weights, name):
    """What quantizing and dequantizing `weights` loses, as a share of their root mean square."""
    kind = gguf.GGMLQuantizationType[name]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    packed = np.zeros(weights.size // block_size * block_bytes, np.uint8)
    ggml.ggml_quantize_chunk(
        kind.value, weights.ctypes.data, packed.ctypes.data, 0, 1, weights.size, None
    )
    dequantize = getattr(ggml, f"dequantize_row_{name.lower()}")
    dequantize.argtypes, dequantize.restype = [pointer, pointer, int64], None
    restored = np.zeros_like(weights)
    dequantize(packed.ctypes.data, restored.ctypes.data, weights.size)
    return float(np.sqrt(((restored - weights) ** 2).mean() / (weights**2).mean()))


normal = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)
print("llama-cpp-python", PINS["llama-cpp-python"])
print("expected: the relative error of a format is the same at every deviation")
print("seen:")
errors = {}
for deviation in (1.0, 0.05, 0.02, 0.005, 0.002, 0.001):
    weights = normal * np.float32(deviation)
    for name in ("Q4_0", "MXFP4", "NVFP4"):
        errors[name, deviation] = error(weights, name)
    row = ", ".join(f"{name} {errors[name, deviation]:.3f}" for name in ("Q4_0", "MXFP4", "NVFP4"))
    print(f"  deviation {deviation}: {row}")
rescaled = error(normal * np.float32(0.002) * np.float32(512), "NVFP4")
print(f"  deviation 0.002 multiplied by 512 first: NVFP4 {rescaled:.3f}")

for name in ("Q4_0", "MXFP4"):
    of_format = [value for (other, _), value in errors.items() if other == name]
    assert max(of_format) < 1.1 * min(of_format), f"{name} depends on the deviation"
assert errors["NVFP4", 1.0] < 0.1 < errors["NVFP4", 0.02]
assert errors["NVFP4", 0.005] > 1.3 * errors["NVFP4", 1.0]
assert errors["NVFP4", 0.002] > 0.9 and errors["NVFP4", 0.001] == 1.0
assert rescaled < 0.1
PYTHON
