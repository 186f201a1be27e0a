#!/usr/bin/env bash
# Seen 2026-11-28 with safetensors 0.8.0, ml_dtypes 0.6.0, numpy 2.4.6.
#
# One would guess: `safetensors.numpy` reads what it writes, and `load` of a file's bytes gives
#   what `load_file` of the file does.
# True: there are three answers for one array. `save` takes every type that ml_dtypes adds to
#   numpy and the format has a name for. `load_file` goes through the Rust reader, which knows
#   BF16 and asks numpy itself for the FP8 types, where they are not (AttributeError). `load` goes
#   through a table in Python without BF16 and FP8 (KeyError), for the very same bytes.
# Why it matters: a tool that reads FP8 checkpoints and their E8M0 scales without torch starts
#   here. A test that saves, loads by file and passes for BF16 says nothing of bytes from a
#   network or an archive, nor of FP8. What does work for all: `deserialize` gives the raw bytes
#   with the type's name, and numpy can view them.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq safetensors==0.8.0 ml_dtypes==0.6.0 numpy==2.4.6
cd "$scratch"
"$scratch/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save_file

FILE = Path("tensors.safetensors")
NAMES = ("float16", "bfloat16", "float8_e4m3fn", "float8_e8m0fnu")


def outcome(read):
    """The type of the tensor that `read` returns, or the error's."""
    try:
        return read()["t"].dtype.name
    except (KeyError, AttributeError) as error:
        return type(error).__name__


print("safetensors", safetensors.__version__)
print("expected: each type is read back as itself, from the file and from its bytes")
print("seen:")
seen = {}
for name in NAMES:
    kind = np.dtype(getattr(ml_dtypes, name, name))
    values = np.array([0.5, 1, 2, 4]).astype(kind)
    save_file({"t": values}, FILE)
    raw = dict(safetensors.deserialize(FILE.read_bytes()))["t"]["data"]
    assert (np.frombuffer(raw, kind) == values).all(), "the bytes themselves are wrong"
    seen[name] = outcome(lambda: load_file(FILE)), outcome(lambda: load(FILE.read_bytes()))
    print(f"  {name}: load_file {seen[name][0]}, load {seen[name][1]}")

assert seen["float16"] == ("float16", "float16")
assert seen["bfloat16"] == ("bfloat16", "KeyError")
assert seen["float8_e4m3fn"] == seen["float8_e8m0fnu"] == ("AttributeError", "KeyError")
PYTHON
