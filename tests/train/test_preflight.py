"""All that a run needs is missed in its first second, in one line, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine
from mtp_cli.engine.backend.model import Model
from mtp_cli.errors import MtpError
from mtp_train.framing import Framing
from mtp_train.preflight import check_folder, check_output, check_room, check_writing
from mtp_train.pytorch import NO_TORCH
from mtp_train.record import check_record
from mtp_train.target import Target
from tests.engine import tiny

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def target(tmp_path: Path, template: str | None = TEMPLATE) -> Path:
    spec = tiny.llama()
    if template is not None:
        spec.keys["tokenizer.chat_template"] = template
    return spec.write(tmp_path / "target.gguf")


def stub_of_torch(tmp_path: Path, text: str) -> Path:
    """A folder for PYTHONPATH whose torch is this text."""
    (tmp_path / "stub" / "torch").mkdir(parents=True)
    (tmp_path / "stub" / "torch" / "__init__.py").write_text(text)
    return tmp_path / "stub"


MISSING = 'raise ModuleNotFoundError("No module named \'torch\'", name="torch")'
BROKEN = 'raise OSError("libtorch.so: cannot open shared object file")'
THERE = (
    "def empty(n, device):\n    if device != 'cpu':\n        raise RuntimeError('no such device')"
)


def run(tmp_path: Path, torch: str, model: Path, *arguments: object) -> str:
    """The one line of `mtp-train run`, which must fail and leave nothing."""
    stub, folder = stub_of_torch(tmp_path, torch), tmp_path / "run"
    paths = [str(stub), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", "mtp_train.cli", "run", "-f", str(folder), "-m", str(model),
         "-o", str(tmp_path / "head.gguf"), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert not folder.exists()
    assert not (tmp_path / "head.gguf").exists()
    return done.stderr


def test_pytorch_is_missing(tmp_path: Path) -> None:
    line = run(tmp_path, MISSING, target(tmp_path))
    assert line == f"error: {NO_TORCH}\n"
    assert "-e '.[train]'" in line


def test_pytorch_does_not_load(tmp_path: Path) -> None:
    assert "PyTorch does not load: libtorch.so" in run(tmp_path, BROKEN, target(tmp_path))


def test_a_device_that_pytorch_has_not(tmp_path: Path) -> None:
    line = run(tmp_path, THERE, target(tmp_path), "--device", "cuda:9")
    assert "--device cuda:9: PyTorch cannot use it: no such device" in line


@pytest.mark.parametrize("template", [None, "", " \n"])
def test_a_model_without_a_chat_template(template: str | None, tmp_path: Path) -> None:
    assert "holds no chat template" in run(tmp_path, THERE, target(tmp_path, template))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% if %}", "malformed"),
        ("{{ raise_exception('never') }}", "refuses: never"),
        ("<assistant>", "leaves a message out or repeats it"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "leaves a message out or repeats"),
    ],
)
def test_a_template_that_frames_nothing(template: str, why: str, tmp_path: Path) -> None:
    assert why in run(tmp_path, THERE, target(tmp_path, template))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing of the kind")
    assert "not a GGUF file" in run(tmp_path, THERE, tmp_path / "x.gguf")


def test_a_model_that_llama_cpp_does_not_load(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = TEMPLATE
    del spec.tensors["output_norm.weight"]
    assert "output_norm" in run(tmp_path, THERE, spec.write(tmp_path / "x.gguf"))


def test_a_model_whose_final_rows_llama_cpp_keeps_to_itself(tmp_path: Path) -> None:
    spec = tiny.lfm2()
    spec.keys["tokenizer.chat_template"] = TEMPLATE
    line = run(tmp_path, THERE, spec.write(tmp_path / "x.gguf"))
    assert "x.gguf: llama.cpp gives heads no rows of a lfm2 model" in line


def test_more_tokens_than_the_disk_has_room_for(tmp_path: Path) -> None:
    line = run(tmp_path, THERE, target(tmp_path), "--tokens", 10**15)
    assert "GB, the disk has " in line
    assert "name a folder on another with --folder, or fewer --tokens" in line


def test_a_head_file_that_cannot_be_written(tmp_path: Path) -> None:
    model = target(tmp_path)
    notes = tmp_path / "notes.txt"
    notes.write_text("years of work")
    for out, why in (
        (tmp_path / "nowhere" / "x.gguf", "nowhere: no such folder"),
        (tmp_path, "is a folder"),
        (notes, "exists, and is no head file"),
        (model, "exists, and is no head file"),
    ):
        with pytest.raises(MtpError, match=why):
            check_output(out, model, tmp_path)
    check_output(tmp_path / "new.gguf", model, tmp_path)
    assert notes.read_text() == "years of work"


def test_a_head_file_is_written_over(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "head.gguf", "mimo2")
    writer.add_type("mtp-head")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_output(tmp_path / "head.gguf", target(tmp_path), tmp_path)


def test_a_whole_model_has_room_or_is_not_begun(tmp_path: Path) -> None:
    """It is written once, and again with its record; larger than any disk by a hole at its end."""
    path, out = tiny.mimo2().write(tmp_path / "m.gguf"), tmp_path / "out.gguf"
    check_room(out, Target(path))
    check_record(path)
    os.truncate(path, 1 << 43)
    for check, n_gb in ((lambda: check_room(out, Target(path)), "17592.2"),
                        (lambda: check_record(path), "8796.1")):  # fmt: skip
        with pytest.raises(MtpError, match=rf"needs about {n_gb} GB, the disk has \S+ free; make"):
            check()
    head_file = tiny.llama().write(tmp_path / "plain.gguf")
    os.truncate(head_file, 1 << 43)
    check_room(out, Target(head_file))  # a new head is small


def test_a_folder_that_is_none_or_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MtpError, match="file: not a folder; name another with --folder"):
        check_folder(tmp_path / "file" / "run", 0)
    check_folder(tmp_path / "new" / "run", 1)
    assert not (tmp_path / "new").exists()


def test_what_is_enough_is_enough(tmp_path: Path) -> None:
    check_writing(target(tmp_path), tmp_path / "run", n_tokens=1000, bf16=True, trains=True)
    assert not (tmp_path / "run").exists()


def test_a_template_that_refuses_system_messages_is_used_without(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
    for template, takes in ((TEMPLATE, True), (refusing + TEMPLATE, False)):
        model = Model(target(tmp_path, template), n_gpu_layers=0, no_alloc=True)
        assert Framing(model).takes_system is takes
        model.close()


def test_a_request_is_read_whole_as_the_chat_reads_it(tmp_path: Path) -> None:
    """A tokeniser joins letters across the border of template and request: "t", "h" is "th"."""
    template = "{% for m in messages %}t{{ m.content }}{% endfor %}"
    path = target(tmp_path, template)
    model = Model(path, n_gpu_layers=0, no_alloc=True)
    framing = Framing(model)
    first, next_one = framing.asked(None, "hi<|end|>"), framing.asked_on("hi<|end|>")
    pieces = [model.piece(token, special=True) for token in next_one]
    model.close()
    assert pieces == [b"th", b"i", *(bytes([byte]) for byte in b"<|end|>")]  # text, not control
    with Engine.open(path, n_ctx=64, n_threads=1) as engine:
        assert first == prompt_ids(engine, "hi<|end|>")
