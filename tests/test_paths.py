"""What people give for a GGUF or a checkpoint by mistake: each is named, and what to do next."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtp_cli.errors import MtpError
from mtp_cli.paths.gguf import check_checkpoint, check_gguf

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
SAFETENSORS = struct.pack("<Q", 2) + b"{}"


def refusal(path: Path, check: Callable[[Path], object] = check_gguf) -> str:
    with pytest.raises(MtpError) as caught:
        check(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder and home of someone who has nothing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    return tmp_path


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; get it again"),
        (LFS, "but a Git LFS pointer; git lfs pull"),
        (SAFETENSORS, "but safetensors; mtp-convert convert makes a GGUF of a whole"),
        (b"PK\3\4" + bytes(60), "but a zip archive, as PyTorch writes them; mtp-convert"),
        (b"\x80\2}q", "as PyTorch writes them"),
        (b"tjgg" + bytes(60), "but GGML, from before GGUF; get the model as a GGUF"),
        (b"\x1f\x8b" + bytes(60), "but an archive; unpack it first"),
        (b"\n<!DOCTYPE HTML>\n<html>", "but a web page; download the file that it is about"),
        (b'{"weight_map": {}}', "but JSON; mtp-convert convert"),
        (b"# mine\nFROM ./big.gguf\n", "but an Ollama Modelfile; give what it is made from: ./big"),
        (bytes(5000), "but zeros: a download that did not finish? get it again"),
        (b"Entry not found", "but a line of text ('Entry not found'): a failed download?"),
        (b"\x7fELF" + bytes(60), "(it starts with b'\\x7fELF'); expected one that ends in .gguf"),
    ],
)
def test_a_file_is_named_by_its_content(here: Path, content: bytes, said: str) -> None:
    path = Path("model.gguf")
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_file_of_a_checkpoint_names_the_command_that_converts_it(here: Path) -> None:
    folder = checkpoint(here / "my model")
    command = f"mtp-convert convert '{folder}' -o 'my model.gguf' makes a GGUF of it"
    for path in (folder, folder / "model.safetensors", folder / "config.json"):
        assert refusal(path).endswith(command)


def test_a_folder_names_the_ggufs_in_it(here: Path) -> None:
    assert refusal(here).startswith("Is a directory without a GGUF or a checkpoint")
    (here / "a.gguf").touch()
    assert refusal(here).endswith(f"give the GGUF in it: {here / 'a.gguf'}")
    for number in (1, 2, 3):
        (here / f"b-0000{number}-of-00003.gguf").touch()
    assert refusal(here).endswith("give one of the GGUFs in it: a.gguf, b-00001-of-00003.gguf")
    for name in "cdefg":
        (here / f"{name}.gguf").touch()
    assert refusal(here).endswith("b-00001-of-00003.gguf, c.gguf, d.gguf and 3 more")


def test_a_folder_of_the_hubs_cache_names_what_it_keeps(here: Path) -> None:
    cache = here / "models--you--big"
    checkpoint(cache / "snapshots" / "0123")
    assert f"mtp-convert convert {cache / 'snapshots' / '0123'} " in refusal(cache)


def test_an_adapter_is_no_model(here: Path) -> None:
    (here / "adapter_config.json").touch()
    assert "merge it into its model" in refusal(here)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuch", "No such file or directory"),
        ("no/such/file.gguf", "; there is no folder no/such"),
        ("you/big-GGUF", "if it is on Hugging Face, hf:you/big-GGUF in its place downloads it"),
        ("you/big-GGUF:Q4_K_M", "hf:you/big-GGUF:Q4_K_M in its place"),
        ("hf.co/you/big", "hf:you/big in its place"),
        ("https://huggingface.co/you/big/blob/main/x.gguf", "hf:you/big in its place"),
        ("https://example.com/big.gguf", "an address; download the file and give its path"),
        ("llama3.2:1b", "no model that Ollama keeps here (ollama pull llama3.2:1b fetches one)"),
    ],
)
def test_a_name_that_leads_nowhere(here: Path, name: str, said: str) -> None:
    assert said in refusal(Path(name))


@pytest.mark.parametrize("name", ["smoll.gguf", "small", "SMALL.GGUF"])
def test_a_name_that_is_nearly_right(here: Path, name: str) -> None:
    (here / "small.gguf").touch()
    assert refusal(Path(name)) == "No such file or directory; did you mean small.gguf?"


def test_a_name_that_is_quite_wrong_names_what_is_there(here: Path) -> None:
    (here / "small.gguf").touch()
    assert refusal(Path("xyz")) == "No such file or directory; GGUFs there: small.gguf"


def ollama_model(store: Path, name: str, tag: str, digest: str) -> Path:
    """A manifest and its blob, laid out as Ollama does; the manifest."""
    manifest = store / "manifests/registry.ollama.ai/library" / name / tag
    manifest.parent.mkdir(parents=True)
    (store / "blobs").mkdir()
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:t"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    (store / "blobs" / f"sha256-{digest}").write_bytes(b"GGUF")
    (store / "blobs" / "sha256-t").write_text("{{ .Prompt }}" * 40)
    return manifest


def test_ollamas_files_are_named(here: Path) -> None:
    store = here / ".ollama/models"
    manifest = ollama_model(store, "llama3.2", "latest", "abc")
    blob = store / "blobs/sha256-abc"
    assert f"an Ollama manifest; the GGUF is {blob}" in refusal(manifest)
    assert "another part of an Ollama model" in refusal(store / "blobs/sha256-t")
    assert check_gguf(blob) == 4


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(MtpError, match="not a name that a file can have"):
        check_gguf(Path("a\0b"))
    with pytest.raises(MtpError, match="File name too long"):
        check_gguf(Path("a" * 5000))


def test_what_is_no_file_is_not_read(here: Path) -> None:
    os.mkfifo("pipe.gguf")
    assert refusal(Path("pipe.gguf")) == "not a regular file"


def test_what_is_no_checkpoint_folder(here: Path) -> None:
    Path("big.gguf").write_bytes(b"GGUF")
    Path("x.safetensors").write_bytes(SAFETENSORS)
    said = {name: refusal(Path(name), check_checkpoint) for name in ("big.gguf", "x.safetensors")}
    assert said["big.gguf"] == "expected a checkpoint folder; a GGUF needs no converting"
    assert said["x.safetensors"] == "expected a checkpoint folder; name the one that it lies in"
    assert refusal(Path("you/big"), check_checkpoint).endswith(
        "if it is on Hugging Face, hf download you/big --local-dir big"
    )
    check_checkpoint(here)


@pytest.mark.parametrize("module", ["mtp_cli.chat.cli", "mtp_cli.bench.cli"])
def test_a_wrong_path_is_refused_before_anything_heavy_is_imported(module: str) -> None:
    script = (
        "import sys, importlib\n"
        f"sys.argv = ['command', '-m', 'nosuch']\n"
        f"main = importlib.import_module({module!r}).main\n"
        "try:\n    main()\nexcept SystemExit as exit:\n    assert exit.code == 1\n"
        "heavy = {'llama_cpp', 'numpy', 'jinja2', 'rich', 'prompt_toolkit'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"error: nosuch: No such file or directory\n"
