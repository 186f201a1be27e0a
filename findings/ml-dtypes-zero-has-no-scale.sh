#!/usr/bin/env bash
# Seen 2026-11-28 with ml_dtypes 0.6.0, numpy 2.4.6.
#
# One would guess: the types of the microscaling formats (MXFP4: elements float4_e2m1fn, a scale
#   float8_e8m0fnu for each 32) share one rule for what does not fit, and a block of zeros is the
#   easiest block of all.
# True: each type has its own. Too large becomes NaN in float8_e4m3fn, infinity in float8_e5m2 and
#   the greatest number in float4_e2m1fn. float4_e2m1fn has no NaN and turns one into -0.
#   float8_e8m0fnu has no zero and turns it into NaN, whereas `np.zeros` of that type is a valid
#   2^-127, so that `zeros(n, t)` and `zeros(n).astype(t)` disagree.
#   The textbook encoder (scale = greatest / 6, elements = values / scale) therefore makes an
#   all-zero block, as padding and pruned experts have, a block of NaNs: in the scale only, since
#   the elements show -0. And the scale is rounded to nearest: where it goes down, the largest
#   weight saturates.
# Why it matters: padded and pruned tensors are ordinary, one such block makes every product with
#   its row NaN, and a check of the elements alone does not see it.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq ml_dtypes==0.6.0 numpy==2.4.6
"$scratch/venv/bin/python" - <<'PYTHON'
import ml_dtypes
import numpy as np
from ml_dtypes import float4_e2m1fn, float8_e4m3fn, float8_e5m2, float8_e8m0fnu

np.seterr(invalid="ignore")
FULL_SCALE = np.float32(6)  # the greatest float4_e2m1fn


def encoded(block):
    """The textbook MXFP4 of 32 float32 values: (elements, scale)."""
    scale = (np.abs(block).max() / FULL_SCALE).astype(float8_e8m0fnu)
    return (block / np.float32(scale)).astype(float4_e2m1fn), scale


def decoded(elements, scale):
    return elements.astype(np.float32) * np.float32(scale)


print("ml_dtypes", ml_dtypes.__version__)
print("expected: one rule for too large; zero stays zero; 32 zeros stay 32 zeros")
print("seen:")
large = np.float32(1e6)
too_large = [float(large.astype(kind)) for kind in (float8_e4m3fn, float8_e5m2, float4_e2m1fn)]
print("  a million as float8_e4m3fn, float8_e5m2, float4_e2m1fn:", *too_large)
converted = float(np.zeros(1, np.float32).astype(float8_e8m0fnu)[0])
made = float(np.zeros(1, float8_e8m0fnu)[0])
print(f"  zero as float8_e8m0fnu: converted {converted}, by np.zeros {made}")
elements, scale = encoded(np.zeros(32, np.float32))
restored = decoded(elements, scale)
print(f"  32 zeros: elements {elements[0]}, scale {scale}, decoded {restored[0]}")
outlier = np.zeros(32, np.float32)
outlier[0] = 8.5
largest = decoded(*encoded(outlier))[0]
print(f"  the largest weight of a block, 8.5, decoded: {largest}")

assert np.isnan(too_large[0]) and too_large[1:] == [float("inf"), 6.0]
assert np.isnan(converted) and made == 2.0**-127
elements_f32 = elements.astype(np.float32)
assert (elements_f32 == 0).all() and np.signbit(elements_f32).all()
assert np.isnan(restored).all()
assert largest == 6.0
PYTHON
