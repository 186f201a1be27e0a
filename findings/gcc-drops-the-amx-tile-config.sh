#!/usr/bin/env bash
# Seen 2026-11-29 with llama-cpp-python 0.3.36 (ggml 0.25.3), g++ 12.2.0, x86-64.
#
# One would guess: llama.cpp compiled with -march=native runs on the processor it was compiled on.
# True: on a Xeon with AMX (Sapphire Rapids on) models in Q4_1 and Q4_K_M, the ones tried, die of
#   SIGILL at their first decode. GCC 12's `_tile_loadconfig` is an asm statement whose operand names 8 of the 64 bytes
#   that `ldtilecfg` reads. ggml's configuration is a local variable, so that the compiler keeps
#   the palette's byte and drops the stores of all rows and column sizes as dead; the first
#   instruction on a tile that has no rows is then illegal. cpuid, the kernel's permission and
#   llama.cpp's own line "AMX_INT8 = 1" all say that AMX works, and it does.
# Why it matters: a tool that has llama.cpp compiled at installation is broken on such servers, by
#   the compiler that Debian 12 has, and no test on another machine shows it. llama.cpp#26954 is
#   about it. Without the buffer type "AMX" all is well.
#
# Only compiles, for Sapphire Rapids, and reads the instructions; runs on any x86-64.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/python -m pip install -qq scikit-build-core==0.12.2
venv/bin/python -m pip download -qq --no-deps --no-build-isolation --no-binary :all: \
    llama-cpp-python==0.3.36
tar xf llama_cpp_python-0.3.36.tar.gz
ggml=llama_cpp_python-0.3.36/vendor/llama.cpp/ggml
echo "llama-cpp-python 0.3.36, $(g++ --version | head -n 1)"

# How many bytes of the configuration are written between the last label and ldtilecfg, but for the
# one store that clears all 64
written() {
    g++ -std=gnu++17 -O3 -march=sapphirerapids -DNDEBUG -D_GNU_SOURCE -w -S -o amx.s \
        -I "$ggml/include" -I "$ggml/src" -I "$ggml/src/ggml-cpu" "$ggml/src/ggml-cpu/amx/mmq.cpp"
    python3 - <<'PYTHON'
import re

lines = open("amx.s").read().splitlines()
at = next(index for index, line in enumerate(lines) if "ldtilecfg" in line)
address = r"(-?\d*)\((%r[sb]p)\)"
offset, base = re.search(address, lines[at]).groups()
SIZES = {"movb": 1, "movw": 2, "movl": 4, "movq": 8, "%xmm": 16, "%ymm": 32, "%zmm": 64}
n_bytes = 0
for line in reversed(lines[:at]):
    if re.match(r"\.?\w+:", line):
        break
    store = re.match(rf"\t(v?mov\w+)\t(\S+), {address}$", line)
    if store and store[4] == base and int(offset or 0) <= int(store[3] or 0) < int(offset or 0) + 64:
        size = SIZES.get(store[1]) or SIZES[store[2][:4]]
        n_bytes += size if size < 64 else 0
print(n_bytes)
PYTHON
}

as_it_is=$(written)
sed -i 's/^    _tile_loadconfig(&tc);/    asm volatile("" : : "r"(\&tc) : "memory");\n&/' \
    "$ggml/src/ggml-cpu/amx/mmq.cpp"
all_read=$(written)
echo "expected: 25 bytes and more are set either way: a palette, 8 times columns (2) and rows (1)"
echo "seen: $as_it_is before ldtilecfg, $all_read where the compiler is told that all is read"
[ "$as_it_is" -eq 1 ] && [ "$all_read" -ge 25 ]
