"""Stores as the tools lay them out, with files of a few bytes, or of a given content.

Each function puts one model into a tool's store below a home folder and gives its file's path.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

GGUF = b"GGUF"


def hugging_face(
    home: Path, repository: str, name: str, content: bytes = GGUF, *, commit: str = "c0ffee"
) -> Path:
    """A blob, a link to it in a snapshot, and refs/main."""
    return hub_form(home / ".cache/huggingface/hub", repository, name, content, commit=commit)


def hub_form(
    cache: Path, repository: str, name: str, content: bytes = GGUF, *, commit: str = "c0ffee"
) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(name.encode() + content).hexdigest()
    path = folder / "snapshots" / commit / name
    for parent in (blob.parent, path.parent, folder / "refs"):
        parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    path.symlink_to(blob)
    (folder / "refs/main").write_text(commit)
    return path


def llama_cpp_flat(
    home: Path, repository: str, name: str, tag: str = "latest", content: bytes = GGUF
) -> Path:
    """USER_REPO_FILE and its manifest, as before llama.cpp took Hugging Face's cache."""
    folder = home / ".cache/llama.cpp"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"manifest={repository.replace('/', '=')}={tag}.json").write_text("{}")
    path = folder / f"{repository.replace('/', '_')}_{name}"
    path.write_bytes(content)
    return path


def ollama(
    home: Path,
    name: str,
    tag: str = "latest",
    content: bytes = GGUF,
    *,
    whose: str = "registry.ollama.ai/library",
    manifests: str = "manifests",
) -> Path:
    """Blobs, and a manifest that names them."""
    store = home / ".ollama/models"
    manifest = store / manifests / whose / name / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    (store / "blobs").mkdir(exist_ok=True)
    digest = hashlib.sha256(name.encode() + tag.encode() + content).hexdigest()
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:t"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    (store / "blobs/sha256-t").write_text("{{ .Prompt }}")
    blob = store / f"blobs/sha256-{digest}"
    blob.write_bytes(content)
    return blob


def lm_studio(
    home: Path, repository: str, name: str, content: bytes = GGUF, *, folder: str | None = None
) -> Path:
    """publisher/model/file, in LM Studio's folder or in one that its user has chosen."""
    models = home / ".lmstudio/models"
    if folder is not None:
        models = home / folder
        (home / ".lmstudio").mkdir(exist_ok=True)
        (home / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": str(models)}))
    path = models / repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
