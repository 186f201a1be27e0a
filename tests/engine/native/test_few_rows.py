"""Our products in whole models: a row's bits are the same, whatever stands beside it.

ggml's kernels are the reference, on the built-in model in every format that ours take and llama.cpp
writes models in (test_products.py has them all), where weights lie as llama.cpp has them. Laid out
for our kernels, a row alone is. A control shows that ours were at work at all. Attention, which has
bits of its own, is left to ggml here (see test_few_rows_attention.py).
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.native.compiled import FOLDER, sources
from mtp_cli.engine.types import MAX_COPIED, N_OUTPUTS, Floats, HiddenSource
from mtp_cli.models import built_in_model
from tests.engine import tiny
from tests.engine.native.building import BUILDS, COMPILER, build

FORMATS = [name for name in our_kernels.formats() if name in OUTTYPES]
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, MAX_COPIED + 1)
PROMPT = [7 * n % 61 + 1 for n in range(12)]

needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
Load = Callable[..., Model]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """The built-in model in another format, its weights laid out for our kernels or not."""
    folder = tmp_path_factory.mktemp("formats")
    models: dict[tuple[str, bool], Model] = {}

    def model(outtype: str, lays_out: bool = False) -> Model:
        path = folder / f"{outtype}.gguf"
        if not path.exists():
            quantize(built_in_model(), path, outtype)
        if (outtype, lays_out) not in models:
            models[outtype, lays_out] = Model(path, lays_out=lays_out)
        return models[outtype, lays_out]

    yield model
    for opened in models.values():
        opened.close()


@pytest.fixture
def ggml_only() -> Iterator[Callable[[bool], None]]:
    """Leave everything to ggml, or not."""
    yield lambda wanted: our_kernels.enable(products=not wanted, attention=False)
    our_kernels.enable()


def decode(model: Model, ids: list[int], n_rows: int, n_threads: int = 1) -> tuple[Floats, Floats]:
    """Logits and hidden rows of `ids` after a prompt, decoded n_rows at a time."""
    target = Target(model, n_ctx=256, n_threads=n_threads, hidden=HiddenSource.EMBD)
    try:
        # The prompt's keys and values are the same for all.
        our_kernels.enable(products=False, attention=False)
        target.prefill(PROMPT, 0, lambda: False)
        return _decoded(target, ids, n_rows)
    finally:
        our_kernels.enable()
        target.close()


def _decoded(target: Target, ids: list[int], n_rows: int) -> tuple[Floats, Floats]:
    our_kernels.enable(attention=False)
    logits, hidden = [], []
    for first in range(0, len(ids), n_rows):
        rows = target.decode(ids[first : first + n_rows])
        assert rows.hidden is not None
        logits.append(rows.logits.copy())
        hidden.append(rows.hidden.copy())
    return np.concatenate(logits), np.concatenate(hidden)


def alone(model: Model, ids: list[int]) -> tuple[Floats, Floats]:
    """The same, one row at a time, by ggml's kernels."""
    target = Target(model, n_ctx=256, n_threads=1, hidden=HiddenSource.EMBD)
    try:
        our_kernels.enable(products=False, attention=False)
        target.prefill(PROMPT, 0, lambda: False)
        rows = []
        for token in ids:
            row = target.decode([token])
            assert row.hidden is not None
            rows.append((row.logits[0].copy(), row.hidden[0].copy()))
        return np.stack([logits for logits, _ in rows]), np.stack([hidden for _, hidden in rows])
    finally:
        our_kernels.enable()
        target.close()


@needs_kernels
@pytest.mark.parametrize("outtype", FORMATS)
def test_every_row_has_the_bits_that_ggml_gives_it_alone(load: Load, outtype: str) -> None:
    ids = tiny.random_ids(N_OUTPUTS, seed=5)
    logits, hidden = alone(load(outtype), ids)
    for n_rows in COUNTS:
        ours_logits, ours_hidden = decode(load(outtype), ids, n_rows)
        assert np.array_equal(ours_hidden, hidden), f"{n_rows} rows"
        assert np.array_equal(ours_logits, logits), f"{n_rows} rows"


@needs_kernels
@pytest.mark.parametrize("outtype", ["q4_0", "q4_1", "q8_0", "q4_k_m"])
def test_laid_out_they_have_bits_of_their_own_in_any_company(load: Load, outtype: str) -> None:
    """q4_k_m: most of it is Q5_0 here, and what is not lies as llama.cpp has it."""
    ids, model = tiny.random_ids(N_OUTPUTS, seed=5), load(outtype, lays_out=True)
    one = decode(model, ids, n_rows=1)
    assert not np.array_equal(one[0], decode(load(outtype), ids, n_rows=1)[0])
    for n_rows in COUNTS[1:]:
        several = decode(model, ids, n_rows)
        assert np.array_equal(several[0], one[0]), f"{n_rows} rows"
        assert np.array_equal(several[1], one[1]), f"{n_rows} rows"


@needs_kernels
@pytest.mark.parametrize("lays_out", [False, True])
@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_change_no_bit(load: Load, n_threads: int, lays_out: bool) -> None:
    ids = tiny.random_ids(9, seed=6)
    for outtype in FORMATS:
        model = load(outtype, lays_out)
        one = decode(model, ids, n_rows=9)
        several = decode(model, ids, n_rows=9, n_threads=n_threads)
        assert np.array_equal(one[0], several[0]), outtype


@needs_kernels
@pytest.mark.parametrize("outtype", [name for name in FORMATS if "f16" in name])
def test_ggml_rounds_several_rows_otherwise_so_that_ours_were_at_work(
    load: Load, outtype: str, ggml_only: Callable[[bool], None]
) -> None:
    ids = tiny.random_ids(4, seed=7)
    single, _ = alone(load(outtype), ids)
    target = Target(load(outtype), n_ctx=256, n_threads=1, hidden=HiddenSource.NONE)
    try:
        ggml_only(True)
        target.prefill(PROMPT, 0, lambda: False)
        assert not np.array_equal(target.decode(ids).logits, single)
    finally:
        target.close()


@needs_kernels
def test_the_binary_interface_is_that_of_ggmls_headers(tmp_path: Path) -> None:
    headers = [
        Path(path, "include") for path in sys.path if Path(path, "include", "ggml.h").exists()
    ]
    if COMPILER is None or not headers:
        pytest.skip("no compiler, or llama.cpp was installed without its headers")
    source = tmp_path / "abi.cpp"
    fields = {
        ("Tensor", "ggml_tensor"): (
            *("type", "buffer", "ne", "nb", "op", "src", "view_src", "data", "extra"),
        ),
        ("TypeTraits", "ggml_type_traits_cpu"): ("from_float", "vec_dot", "vec_dot_type", "nrows"),
    }
    facts = ["sizeof(abi::Tensor) == sizeof(ggml_tensor)"]
    facts += [
        f"abi::{name} == GGML_{name}"
        for name in (
            *("OP_NONE", "OP_MUL_MAT", "OP_MUL_MAT_ID", "OP_FLASH_ATTN_EXT"),
            "TENSOR_FLAG_INPUT",
        )
    ]
    facts += [
        f"offsetof(abi::{ours}, {field}) == offsetof({theirs}, {field})"
        for (ours, theirs), names in fields.items()
        for field in names
    ]
    (listed,) = re.findall(r"enum Type : int \{([^}]*)\}", (FOLDER / "ggml_abi.h").read_text())
    types = re.findall(r"(\w+) =", listed)
    assert {name.upper() for name in our_kernels.formats()} <= {*types}
    facts += [f"(int) abi::{name} == (int) GGML_TYPE_{name}" for name in types]
    includes = "".join(f'#include "{name}"\n' for name in ("ggml.h", "ggml-cpu.h", "ggml_abi.h"))
    source.write_text(includes + "".join(f"static_assert({fact});\n" for fact in facts))
    included = [f"-I{folder}" for folder in (headers[0], FOLDER)]
    command = [COMPILER, "-std=c++17", "-fsyntax-only", *included, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not BUILDS, reason="another processor than x86-64, or no compiler")
def test_a_processor_without_avx2_gets_a_library_without_kernels(tmp_path: Path) -> None:
    library = tmp_path / "native.so"
    build(library, sources(".cpp"), "-march=x86-64")
    built = ctypes.CDLL(str(library))
    built.mtp_vectors.restype = ctypes.c_char_p
    assert built.mtp_vectors() is None


def test_they_can_be_left_out(tmp_path: Path) -> None:
    """The environment's word is taken before a model is loaded; everything runs without them."""
    code = (
        "from mtp_cli.engine import Engine, Sampling\n"
        "from mtp_cli.engine.backend import our_kernels\n"
        "import sys; from pathlib import Path\n"
        "assert our_kernels.install() is None\n"
        "with Engine.open(Path(sys.argv[1]), n_ctx=64, n_threads=1) as engine:\n"
        "    answer = engine.generate([5, 6, 7], Sampling(temperature=0), max_tokens=4, depth=0)\n"
        "    print(sum(len(tokens) for tokens in answer))\n"
    )
    path = tiny.llama().quantized(gguf.GGMLQuantizationType.Q8_0).write(tmp_path / "m.gguf")
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, "MTP_KERNELS": "ggml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in range(1, 5)


@pytest.mark.parametrize("value", ["0", "1", "off", "Ours"])
def test_any_other_word_is_refused(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mtp_cli.chat", "Hi"],
        env={**os.environ, "MTP_KERNELS": value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: MTP_KERNELS: expected ours or ggml, found '{value}'\n"
