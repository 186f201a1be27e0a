"""Formats and the writer: exact bytes, all or nothing, and no more memory than promised."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFReader, quants

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.metadata import pairs
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.gguf.write import write
from mtp_convert.tensors import formats
from mtp_convert.tensors.formats import encode
from mtp_convert.tensors.kinds import Kind
from mtp_convert.tensors.sources import Constant
from tests.convert.conftest import Convert
from tests.convert.sparse import write_sparse_checkpoint

METADATA = pairs({"general.architecture": "llama"})


def random_rows(n_rows: int, n_cols: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((n_rows, n_cols), np.float32)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0])
def test_encodes_as_gguf_py_does(kind: Kind) -> None:
    values = random_rows(8, 256)
    values[0, :4] = [0.0, -0.0, 1e-30, 65504.0]
    wanted = quants.quantize(values, kind)
    assert bytes(encode(values, "F32", kind)) == wanted.tobytes()


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16])
def test_any_float_is_narrowed_as_gguf_py_does(kind: Kind) -> None:
    bits = np.random.default_rng(3).integers(0, 1 << 32, (256, 1024), np.uint32)
    values = bits.view(np.float32)  # the smallest, infinities and NaNs among them
    values[np.abs(values) > 65000] = np.inf  # or f16 would refuse
    with np.errstate(over="ignore"):
        wanted = quants.quantize(values, kind).view(np.uint16)
    found = np.frombuffer(encode(values, "F32", kind), np.uint16).reshape(wanted.shape)
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(found[~is_nan], wanted[~is_nan])
    assert np.isnan(formats.decode(found.tobytes(), kind, values.shape)[is_nan]).all()


def test_blocks_of_a_large_tensor_come_in_order() -> None:
    values = random_rows(3000, 1024)
    assert b"".join(map(bytes, encoded("a", Constant(values), Kind.F32).blocks())) == (
        values.tobytes()
    )


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K])
def test_k_quants_decode_to_about_the_same_values(kind: Kind) -> None:
    values = random_rows(4, 512)
    raw = bytes(encode(values, "F32", kind))
    error = np.abs(formats.decode(raw, kind, values.shape) - values).mean()
    bits = int(kind.name[1])
    assert error < 2.0 * 2.0**-bits


def test_stored_formats_pass_through_unchanged() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 256)  # every BF16, NaNs included
    assert bytes(encode(bits, "BF16", Kind.BF16)) == bits.tobytes()
    halves = bits.view(np.float16)
    assert bytes(encode(halves, "F16", Kind.F16)) == bits.tobytes()


def test_values_that_a_format_cannot_hold_are_refused() -> None:
    with pytest.raises(MtpError, match="beyond 65504 do not fit f16"):
        encode(np.full((1, 32), 1e6, np.float32), "F32", Kind.F16)
    with pytest.raises(MtpError, match="not finite; Q8_0"):
        encode(np.full((1, 32), np.nan, np.float32), "F32", Kind.Q8_0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0])
def test_a_weight_that_is_not_finite_is_refused_in_every_format(
    kind: Kind, stored: str, bad: float
) -> None:
    values = random_rows(4, 64)
    values[2, 7] = bad
    with pytest.raises(MtpError, match=r"^blk\.0\.x: holds NaN or infinity; get the checkpoint"):
        list(encoded("blk.0.x", Stored(values, stored), kind).blocks())
    values[2, 7] = 65504.0  # the largest that all of them hold
    list(encoded("blk.0.x", Stored(values, stored), kind).blocks())


class Stored:
    """Values as a shard has them."""

    def __init__(self, values: npt.NDArray[np.float32], dtype: str) -> None:
        self.shape, self.dtype = values.shape, dtype
        if dtype == "BF16":
            self._rows: npt.NDArray[Any] = (values.view(np.uint32) >> 16).astype("<u2")
        else:
            self._rows = values.astype({"F16": "<f2", "F32": "<f4"}[dtype])

    def rows(self, begin: int, end: int) -> npt.NDArray[Any]:
        return self._rows[begin:end]


@pytest.mark.parametrize(
    ("kind", "n_cols", "wanted"),
    [
        (Kind.Q4_K, 512, Kind.Q4_K),
        (Kind.Q4_K, 576, Kind.Q5_0),
        (Kind.Q6_K, 576, Kind.Q8_0),
        (Kind.Q4_0, 33, Kind.F16),
    ],
)
def test_rows_that_do_not_fit_take_the_nearest_format(
    kind: Kind, n_cols: int, wanted: Kind
) -> None:
    assert formats.fitting(kind, n_cols) == wanted


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q4_0", "q4_k", "q6_k"])
def test_every_outtype_loads_and_keeps_heads_at_eight_bits(
    outtype: str, converted: Convert
) -> None:
    from tests.convert.test_families import generate

    path = converted("glm4moe", Options(outtype=outtype))
    kinds = {t.name: t.tensor_type for t in GGUFReader(path).tensors}
    head = kinds["blk.3.nextn.eh_proj.weight"]
    coarse = outtype.startswith("q")
    assert head == (
        GGMLQuantizationType.Q8_0 if coarse else getattr(GGMLQuantizationType, outtype.upper())
    )
    assert len(generate(path, 2)[0]) == 40


def plan_of(*tensors: PlannedTensor) -> Plan:
    return Plan(METADATA, tensors)


def good(name: str = "a.weight") -> PlannedTensor:
    return encoded(name, Constant(random_rows(4, 64)), Kind.F32)


def failing(error: BaseException) -> PlannedTensor:
    """A tensor whose second block fails."""

    def blocks() -> Iterator[bytes | memoryview]:
        yield bytes(128)
        raise error

    return PlannedTensor("b.weight", (2, 32), Kind.F32, 256, blocks)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MtpError("x: bad"), OSError(errno.ENOSPC, "No space left")]
)
def test_an_error_leaves_the_destination_as_it_was(error: BaseException, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"the old file")
    with pytest.raises((KeyboardInterrupt, MtpError)):
        write(plan_of(good(), failing(error)), out)
    assert out.read_bytes() == b"the old file"
    assert os.listdir(tmp_path) == ["out.gguf"]


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    plan = plan_of(good(), good("b.weight"))
    write(plan, tmp_path / "out.gguf", lambda done, total: seen.append((done, total)))
    size = (tmp_path / "out.gguf").stat().st_size
    assert seen[-1] == (size, size) == (plan.n_bytes, plan.n_bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


ADVICE = "make room, or name a file on another disk with --output$"


def test_a_full_disk_is_seen_before_writing(tmp_path: Path) -> None:
    huge = PlannedTensor("a.weight", (1 << 30, 1 << 20), Kind.F32, 1 << 52, lambda: iter(()))
    wanted = rf"out\.gguf: needs 4503599628 MB, the disk has \d+ MB free; {ADVICE}"
    with pytest.raises(MtpError, match=wanted):
        write(plan_of(huge), tmp_path / "out.gguf")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_says_how_far_it_came(tmp_path: Path) -> None:
    many = PlannedTensor("a.weight", (1 << 20,), Kind.F32, 1 << 22, lambda: iter([bytes(1 << 22)]))
    full = failing(OSError(errno.ENOSPC, "No space left on device"))
    wanted = rf"out\.gguf: the disk is full; the file needs 5 MB, of which 4 were written; {ADVICE}"
    with pytest.raises(MtpError, match=wanted):
        write(plan_of(many, full), tmp_path / "out.gguf")
    assert os.listdir(tmp_path) == []


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="is a folder"):
        write(plan_of(good()), tmp_path)
    with pytest.raises(MtpError, match="cannot be written: No such file"):
        write(plan_of(good()), tmp_path / "missing" / "out.gguf")
    (tmp_path / "file").write_text("")
    with pytest.raises(MtpError, match="cannot be written: Not a directory"):
        write(plan_of(good()), tmp_path / "file" / "out.gguf")


def test_a_file_that_reads_back_otherwise_never_appears(tmp_path: Path) -> None:
    """A disk that loses bytes: they change after the last was written, before the check."""

    def damage(done: int, total: int) -> None:
        if done == total:
            (temporary,) = tmp_path.glob(".out.gguf.*")
            with temporary.open("r+b") as file:
                file.seek(-4, os.SEEK_END)
                file.write(b"\xff\xff\xff\xff")

    large = encoded("a.weight", Constant(random_rows(256, 1024)), Kind.F32)  # beyond any buffer
    with pytest.raises(MtpError, match=r"a\.weight: reads back with other bytes"):
        write(plan_of(large), tmp_path / "out.gguf", damage)
    assert os.listdir(tmp_path) == []


def test_names_twice_or_too_long_are_no_plan() -> None:
    with pytest.raises(MtpError, match=r"a\.weight: planned twice"):
        plan_of(good(), good())
    with pytest.raises(MtpError, match="longer than 63 bytes"):
        plan_of(good("x" * 64))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    folder = write_sparse_checkpoint(tmp_path / "big", n_layers=4, embd=4096, ff=16384)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "mtp_convert.cli", "convert", str(folder)]
    command += ["-o", str(out / "x.gguf"), "--outtype", "q8_0"]
    run = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # even where nohup runs the tests
    )
    deadline = time.monotonic() + 30
    while not any(file.stat().st_size > 1 << 20 for file in out.iterdir()):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=30)
    assert (run.returncode, stderr) == (130, "interrupted; no unfinished file was left\n")
    assert os.listdir(out) == []


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    """And what a running one is writing stays, as do files of other names."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from mtp_convert.gguf.write import write\n"
        "from tests.convert.test_write import good, plan_of\n"
        "def stop(done, total):\n"
        "    print('writing', flush=True)\n"
        "    signal.pause()\n"
        "write(plan_of(good()), Path(sys.argv[1]), stop)\n"
    )
    out = tmp_path / "out.gguf"
    (tmp_path / ".out.gguf.old.tmp").write_text("somebody's own")
    (tmp_path / ".other.gguf.7.tmp").write_text("another destination's")
    run = subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"writing\n"
    write(plan_of(good()), out)
    kept = {".other.gguf.7.tmp", ".out.gguf.old.tmp", "out.gguf"}
    assert {*os.listdir(tmp_path)} == {*kept, f".out.gguf.{run.pid}.tmp"}
    run.kill()
    run.communicate()
    assert f".out.gguf.{run.pid}.tmp" in os.listdir(tmp_path)
    write(plan_of(good()), out)
    assert {*os.listdir(tmp_path)} == kept


@pytest.mark.parametrize(
    ("stored", "outtype"),
    [("BF16", "f16"), ("BF16", "q4_k"), ("F8_E4M3", "bf16"), ("F8_E4M3", "q4_k"), ("F32", "q4_0")],
)
def test_no_tensor_is_ever_held_whole(stored: str, outtype: str, tmp_path: Path) -> None:
    """Whatever it is read from and written as: less than one tensor as float32, all in all."""
    embd, ff = 4096, 32768
    folder = write_sparse_checkpoint(tmp_path / "x", 1, embd, ff, stored)
    assert peak_of(folder, tmp_path / "out.gguf", outtype, "blk.0.ffn_down") < 4 * embd * ff


def peak_of(folder: Path, out: Path, outtype: str, *names: str) -> int:
    """Bytes of memory that a process needs at most to write these tensors of a checkpoint."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mtp_convert.commands.build import Options, plan_checkpoint\n"
        "from mtp_convert.checkpoint.folder import open_checkpoint\n"
        "from mtp_convert.gguf.plan import Plan\n"
        "from mtp_convert.gguf.write import write\n"
        "folder, out, outtype, *names = sys.argv[1:]\n"
        "plan = plan_checkpoint(open_checkpoint(Path(folder)), Options(outtype=outtype))\n"
        "few = [t for t in plan.tensors if t.name.startswith(tuple(names))]\n"
        "assert len(plan.tensors) > len(few) > 0\n"
        "write(Plan(plan.metadata, tuple(few)), Path(out))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(out), outtype, *names]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(run.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_memory_stays_bounded_for_a_checkpoint_of_20_gb(tmp_path: Path) -> None:
    """The plan of a 20 GB checkpoint, and a converted slice of it, in one small process.

    Every tensor is streamed in blocks, so what matters is the largest tensor, not their sum: the
    run converts one layer of that checkpoint and the embedding, and plans all of it.
    """
    folder = write_sparse_checkpoint(tmp_path / "huge", n_layers=44, embd=4096, ff=16384)
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert total > 20_000_000_000
    largest = 32000 * 4096 * 2
    assert len(plan_checkpoint(open_checkpoint(folder), Options()).tensors) == 44 * 9 + 3
    peak = peak_of(folder, tmp_path / "out.gguf", "q8_0", "blk.0.", "token_embd")
    assert peak < 2 * largest + 300_000_000
