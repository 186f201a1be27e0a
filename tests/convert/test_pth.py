"""PyTorch's files: read without PyTorch, and nothing in them is ever run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.pth import read_pth
from mtp_convert.tensors.sources import Read, load
from tests.convert.checkpoints import Tiny
from tests.convert.checkpoints_meta import called, integer, sizes, state_dict, tensor, text
from tests.convert.checkpoints_meta import write_pth as write

FUZZED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def tiny() -> Tiny:
    found = Tiny({})
    found.matrix("a.weight", 4, 6)
    found.put("b.weight", np.arange(5, dtype=np.float32), "F32")
    found.put("c", np.array([[1, -2], [0.5, 4]], np.float32), "F16")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tiny()
    write(tmp_path / "x.pth", made.tensors, made.formats)
    return tmp_path / "x.pth"


def rewritten(file: Path, **changes: bytes | None) -> Path:
    """The file with entries changed or (None) left out; `data_0` stands for data/0."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name, content in changes.items():
        full = "consolidated/" + {"pkl": "data.pkl"}.get(name, name.replace("_", "/"))
        if content is None:
            del parts[full]
        else:
            parts[full] = content
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file


def refused(file: Path, what: str) -> None:
    with pytest.raises(MtpError, match=what) as caught:
        read_pth(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_shapes_formats_and_values(file: Path) -> None:
    found, wanted = read_pth(file), tiny()
    assert {name: entry.dtype for name, entry in found.items()} == wanted.formats
    for name, entry in found.items():
        np.testing.assert_array_equal(load(Read(entry)), wanted.tensors[name])


def test_tensors_that_share_a_storage(file: Path) -> None:
    """A view into a storage begins where it says, in items."""
    items = text("tail") + tensor((2, 6), "BFloat16Storage", "0", offset=12)
    # 24 items are stored; the view's own count of them would be 12.
    items = items.replace(integer(12) + b"tQ", integer(24) + b"tQ")
    rewritten(file, pkl=pickled(items))
    entry = read_pth(file)["tail"]
    np.testing.assert_array_equal(load(Read(entry)), tiny().tensors["a.weight"][2:])


def pickled(items: bytes) -> bytes:
    return b"\x80\x02}(" + items + b"u."


def test_a_state_dict_within_a_dict_is_found(file: Path) -> None:
    made = tiny()
    inner = state_dict(made.tensors, made.formats)[2:-1]
    rewritten(file, pkl=pickled(text("model") + inner))
    assert read_pth(file).keys() == made.tensors.keys()


@pytest.mark.parametrize(
    ("items", "what"),
    [
        (text("x") + called("os", "system", b"(" + text("touch PWNED") + b"t"), "'os system'"),
        (text("x") + called("builtins", "eval", b"(" + text("1") + b"t"), "'builtins eval'"),
        (text("x") + called("collections", "OrderedDict", b"(" + integer(1) + b"t"), "a call"),
        (text("x") + b"cos\nsystem\n(t\x81", "'os system'"),
        (text("x") + b"(i__main__\nx\n", "instruction INST"),
        (text("x") + b"\x82\x01", "instruction EXT1"),
        (text("x") + b"Pabc\n", "instruction PERSID"),
        (text("x") + b"ctorch\nHalfStorage\n", "found no tensor"),
        (text("x") + b"(" + text("storage") + b"NNNNtQ", "no storage"),
        (b"N" + tensor((2, 2), "HalfStorage", "2"), "damaged"),
        (text("x") + tensor((2, 2), "HalfStorage", "nowhere"), "'nowhere' is missing"),
        (text("x") + tensor((2, 2), "HalfStorage", "0"), "4 items of F16 announced"),
        (text("x") + tensor((2, 2), "HalfStorage", "2", offset=1), "outside its storage"),
        (text("x") + tensor((2,) * 9, "HalfStorage", "2"), "damaged"),
        (text("x") + tensor((2, -2), "HalfStorage", "2"), "not a size"),
        (
            text("x") + tensor((2, 2), "HalfStorage", "2").replace(sizes((2, 1)), sizes((1, 2))),
            "not stored row by row",
        ),
        (text("x"), "damaged"),
        (b"u", "damaged"),
        (b"", "damaged|no tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(items: bytes, what: str, file: Path) -> None:
    refused(rewritten(file, pkl=pickled(items)), what)
    assert not Path("PWNED").exists()


class Hostile:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pythons_own_pickles_of_a_hostile_object(protocol: int, file: Path) -> None:
    refused(rewritten(file, pkl=pickle.dumps({"x": Hostile()}, protocol)), "data.pkl")


def test_a_deep_pickle_is_an_error_and_no_crash(file: Path) -> None:
    refused(rewritten(file, pkl=b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."), "damaged")


def test_files_that_are_something_else(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.pth"
    for content in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)):
        other.write_bytes(content)
        refused(other, "not a file of torch.save's")
    refused(tmp_path / "absent.pth", "No such file")
    refused(rewritten(file, pkl=None), "expected one data.pkl")


def test_a_big_endian_file(file: Path) -> None:
    refused(rewritten(file, byteorder=b"big"), "big-endian")


def test_a_storage_shorter_than_announced(file: Path) -> None:
    refused(rewritten(file, data_1=bytes(16)), "5 items of F32 announced, 16 bytes stored")


def test_compressed_entries(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content * 50)
    refused(file, "compressed")


def test_a_truncated_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])
    refused(file, "not a file of torch.save's")


def read_or_refused(file: Path) -> None:
    try:
        found = read_pth(file)
    except MtpError as error:
        line = str(error)
    else:
        line = ""
        assert all(entry.end <= file.stat().st_size for entry in found.values())
    assert "\n" not in line


@FUZZED
@given(data=st.data())
def test_a_damaged_file_is_one_line_or_is_read(data: st.DataObject, tmp_path: Path) -> None:
    made, file = tiny(), tmp_path / "fuzzed.pth"
    write(file, made.tensors, made.formats)
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(raw)
    read_or_refused(file)


@FUZZED
@given(data=st.data())
def test_damaged_instructions_are_one_line_or_are_read(data: st.DataObject, tmp_path: Path) -> None:
    made, file = tiny(), tmp_path / "fuzzed.pth"
    write(file, made.tensors, made.formats)
    raw = bytearray(state_dict(made.tensors, made.formats))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    rewritten(file, pkl=bytes(raw))
    read_or_refused(file)


def test_an_escape_that_means_nothing_is_damage(file: Path) -> None:  # the fuzz test found it
    rewritten(file, pkl=b"\x80\x02ca\\o\nb\n.")
    refused(file, "damaged data.pkl")
