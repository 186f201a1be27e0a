"""Which layouts of weights models may be loaded in."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import buffer_types, our_kernels
from mtp_cli.engine.backend.binding import CPU_DEVICE, heard
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.files.memory import Machine
from mtp_cli.models import built_in_model
from tests.engine import tiny


@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        (["AMX", "CPU_REPACK"], ["CPU_REPACK"]),
        (["CPU_KLEIDIAI", "AMX", "CPU_REPACK"], ["CPU_KLEIDIAI", "CPU_REPACK"]),
        (["CPU_REPACK", "AMX"], ["CPU_REPACK"]),
        (["AMX"], []),
        (["CPU_REPACK"], ["CPU_REPACK"]),
        ([], []),
    ],
)
def test_amx_is_taken_off_the_list(
    listed: list[str], kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {8 * (index + 1): name.encode() for index, name in enumerate(listed)}
    addresses = (ctypes.c_void_p * (len(listed) + 1))(*names, None)
    offered = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
        lambda _device: ctypes.addressof(addresses)
    )
    base = SimpleNamespace(
        ggml_backend_dev_backend_reg=lambda _device: 1,
        ggml_backend_reg_get_proc_address=lambda _registry, _name: (
            ctypes.cast(offered, ctypes.c_void_p).value
        ),
        ggml_backend_buft_name=names.__getitem__,
    )
    monkeypatch.setattr(buffer_types, "ggml_base", lambda: base)
    buffer_types.leave_out_amx.__wrapped__()
    found = [names[address].decode() for address in addresses if address]
    assert found == kept
    assert addresses[len(kept)] is None


@pytest.mark.parametrize("devices", [[], [1]])
def test_a_llama_cpp_without_such_a_list_stays_as_it_is(
    devices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = SimpleNamespace(
        ggml_backend_dev_backend_reg=lambda _device: 1,
        ggml_backend_reg_get_proc_address=lambda _registry, _name: None,
    )
    monkeypatch.setattr(buffer_types, "ggml_base", lambda: base)
    monkeypatch.setattr(buffer_types, "local_devices", lambda: devices)
    monkeypatch.setattr(buffer_types, "device_type", lambda _device: CPU_DEVICE)
    buffer_types.leave_out_amx.__wrapped__()


needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")


def types_of_buffers(lines: Sequence[str]) -> set[str]:
    """What llama.cpp says of the buffers that it loads a model's weights into."""
    return {line.split()[1] for line in lines if "model buffer size" in line}


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    return tiny.llama().quantized(gguf.GGMLQuantizationType.Q8_0).write(tmp_path / "q8_0.gguf")


@needs_kernels
def test_weights_are_laid_out_for_our_kernels_unless_that_is_not_wanted(quantized: Path) -> None:
    for lays_out in (True, False, True):
        with heard() as lines:
            Model(quantized, lays_out=lays_out).close()
        assert ("CPU_MTP" in types_of_buffers(lines)) == lays_out


def in_huge_pages() -> int:
    """Bytes of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


def given_huge_pages(n_bytes: int) -> int:
    """How much of so much memory the system puts into them for who asks, now."""
    if not Path("/proc/self/smaps_rollup").exists() or not hasattr(mmap, "MADV_HUGEPAGE"):
        return 0
    before = in_huge_pages()
    with mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory[::4096] = bytes(len(range(0, n_bytes, 4096)))
        return in_huge_pages() - before


@needs_kernels
def test_they_lie_in_huge_pages_where_the_system_gives_them() -> None:
    path = built_in_model()
    n_bytes = path.stat().st_size
    given = given_huge_pages(n_bytes)
    if given < n_bytes / 2:
        pytest.skip("this system gives no huge pages")
    before = in_huge_pages()
    model = Model(path)
    found = in_huge_pages() - before
    model.close()
    assert found > given / 2


@needs_kernels
def test_where_memory_is_short_they_stay_mapped(
    quantized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free in (1 << 30, quantized.stat().st_size):
        machine = Machine(total=1 << 30, free=free)
        monkeypatch.setattr(Machine, "here", lambda machine=machine: machine)
        with heard() as lines, Engine.open(quantized, n_ctx=64, n_threads=1) as engine:
            answer = engine.generate([5, 6, 7], Sampling(temperature=0), max_tokens=8, depth=2)
            assert sum(map(len, answer)) == 8
        assert ("CPU_MTP" in types_of_buffers(lines)) == (free == 1 << 30)


@needs_kernels
def test_a_draft_models_stay_mapped_likewise(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny.llama().write(tmp_path / "f32.gguf")
    for free in (1 << 30, quantized.stat().st_size):
        machine = Machine(total=1 << 30, free=free)
        monkeypatch.setattr(Machine, "here", lambda machine=machine: machine)
        with heard() as lines:
            Engine.open(target, draft_model=quantized, n_ctx=64, n_threads=1).close()
        assert ("CPU_MTP" in types_of_buffers(lines)) == (free == 1 << 30)


def test_no_model_is_loaded_into_it(tmp_path: Path) -> None:
    """On a processor with AMX llama.cpp would lay these weights out for it."""
    path = tiny.llama().quantized(gguf.GGMLQuantizationType.Q4_0).write(tmp_path / "m.gguf")
    with heard() as lines:
        Model(path).close()
    assert any("buffer size" in line for line in lines)
    assert not any("AMX" in line for line in lines if "buffer size" in line)
