"""Where Ollama keeps the GGUF of a model, and what it calls the model.

Its store holds blobs, named by their sha256, and manifests, which say what the blobs are of. A
model's name is that of its manifest: [[host/]namespace/]name[:tag].
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

_HOSTS, _NAMESPACE, _TAG = ("registry.ollama.ai", "ollama.com"), "library", "latest"
_FOLDERS = ("manifests", "manifests-v2")
_MODEL = "application/vnd.ollama.image.model"
_MOST_BYTES = 1 << 20  # of a manifest; they have hundreds


def models() -> Iterator[tuple[tuple[str, ...], Path]]:
    """Each model's names, Ollama's own first, and its GGUF."""
    for store in _stores():
        for folder in _FOLDERS:
            for manifest in sorted((store / folder).glob("*/*/*/*")):
                blob = blob_in_manifest(manifest)
                if blob is not None:
                    yield _names(*manifest.parts[-4:]), blob


def _names(host: str, namespace: str, name: str, tag: str) -> tuple[str, ...]:
    """From as short as Ollama has it to whole."""
    short, middle = f"{name}:{tag}", f"{namespace}/{name}:{tag}"
    names = [middle, f"{host}/{middle}"] if host in _HOSTS else [f"{host}/{middle}"]
    if host in _HOSTS and namespace == _NAMESPACE:
        names.insert(0, short)
    bare = [one.removesuffix(f":{tag}") for one in names] if tag == _TAG else []
    return (*names, *bare)


def _stores() -> list[Path]:
    own = os.environ.get("OLLAMA_MODELS")
    places = [Path(own)] if own else []
    return [*places, Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]


def blob_in_manifest(manifest: Path) -> Path | None:
    """The GGUF that a manifest names; None where it is none, or its blob is not there."""
    try:
        if manifest.stat().st_size > _MOST_BYTES:
            return None
        layers = json.loads(manifest.read_bytes())["layers"]
        digests = [layer["digest"] for layer in layers if layer["mediaType"] == _MODEL]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    for store in (parent for parent in manifest.parents if (parent / "blobs").is_dir()):
        for digest in digests:
            blob = store / "blobs" / str(digest).replace(":", "-")
            if blob.is_file():
                return blob
    return None
