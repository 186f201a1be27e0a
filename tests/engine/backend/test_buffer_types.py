"""Which layouts of weights models may be loaded in."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest

from mtp_cli.engine.backend import buffer_types
from mtp_cli.engine.backend.binding import CPU_DEVICE, heard
from mtp_cli.engine.backend.model import Model
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


def test_no_model_is_loaded_into_it(tmp_path: Path) -> None:
    """On a processor with AMX llama.cpp would lay these weights out for it."""
    path = tiny.llama().quantized(gguf.GGMLQuantizationType.Q4_0).write(tmp_path / "m.gguf")
    with heard() as lines:
        Model(path).close()
    assert any("buffer size" in line for line in lines)
    assert not any("AMX" in line for line in lines if "buffer size" in line)
