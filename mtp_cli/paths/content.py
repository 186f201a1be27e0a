"""Says of a file that is no GGUF what it is, by its first bytes, and what to do with it."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from pathlib import Path

from mtp_cli.paths import folder, ollama

HEAD_BYTES = 4096  # of a file, that tell what it is
_LFS = b"version https://git-lfs.github.com"
_NO_GGUF = "not a GGUF file"
_ANSWER_BYTES = 200  # of a server's short answer that was saved under the file's name
_ARCHIVES = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf", b"Rar!")
_GGML = (b"lmgg", b"tjgg", b"fmgg", b"algg")  # formats before GGUF, as their integers lie in files
_OBJECT = re.compile(rb"\s*{\s*[\"}]")
_FROM = re.compile(rb"(?:\s*#[^\n]*\n|\s*\n)*FROM\s+(?P<what>\S+)", re.IGNORECASE)


def lfs_pointer(head: bytes) -> str | None:
    """What to do where a file holds Git LFS's pointer instead of its content; None where not."""
    if not head.startswith(_LFS):
        return None
    return "a Git LFS pointer; git lfs pull, run in its folder, fetches the file itself"


def instead_of_gguf(path: Path, head: bytes) -> str:
    """head: the first bytes, as many as there are up to HEAD_BYTES."""
    if not head:
        return "the file is empty; get it again"
    if (pointer := lfs_pointer(head)) is not None:
        return f"{_NO_GGUF} but {pointer}"
    for is_so, say in _KINDS:
        if is_so(head):
            return f"{_NO_GGUF} but {say(path, head)}"
    if path.parent.name == "blobs" and path.name.startswith("sha256"):
        return (
            f"{_NO_GGUF} but another part of an Ollama model; "
            "ollama show --modelfile NAME tells where the GGUF lies"
        )
    if len(head) < _ANSWER_BYTES and _is_text(head):
        said = head.decode(errors="replace").strip()
        return f"{_NO_GGUF} but a line of text ({said[:60]!r}): a failed download? get it again"
    return f"{_NO_GGUF} (it starts with {head[:4]!r}); expected one that ends in .gguf"


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _is_page(head: bytes) -> bool:
    return head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _is_json(head: bytes) -> bool:
    return _OBJECT.match(head) is not None


def _is_text(head: bytes) -> bool:
    return all(byte in string.printable.encode() or byte >= 0x80 for byte in head)


def _of_safetensors(path: Path, _head: bytes) -> str:
    return f"safetensors; {folder.convert(path.parent)}"


def _of_pytorch(path: Path, _head: bytes) -> str:
    return f"a zip archive, as PyTorch writes them; {folder.convert(path.parent)}"


def _of_json(path: Path, head: bytes) -> str:
    blob = ollama.blob_in_manifest(path)
    if blob is not None:
        return f"an Ollama manifest; the GGUF is {blob}: give that path"
    return f"JSON; {folder.convert(path.parent)}"


def _of_modelfile(_path: Path, head: bytes) -> str:
    match = _FROM.match(head)
    assert match is not None
    made_from = match["what"].decode(errors="replace")
    return f"an Ollama Modelfile; give what it is made from: {made_from}"


def _plain(text: str) -> Callable[[Path, bytes], str]:
    return lambda _path, _head: text


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[Path, bytes], str]], ...] = (
    (_is_safetensors, _of_safetensors),
    (lambda head: head.startswith(b"PK\3\4"), _of_pytorch),
    (lambda head: head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5", _of_pytorch),
    (lambda head: head[:4] in _GGML, _plain("GGML, from before GGUF; get the model as a GGUF")),
    (lambda head: head.startswith(_ARCHIVES), _plain("an archive; unpack it first")),
    (_is_page, _plain("a web page; download the file that it is about")),
    (_is_json, _of_json),
    (lambda head: _FROM.match(head) is not None, _of_modelfile),
    (lambda head: not any(head), _plain("zeros: a download that did not finish? get it again")),
)
