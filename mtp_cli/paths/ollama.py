"""Where Ollama keeps the GGUF of a model.

Its store holds blobs, named by their sha256, and manifests, which say what the blobs are of. A
model's name is that of its manifest: [[host/]namespace/]name[:tag].
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MODEL = "application/vnd.ollama.image.model"
_MOST_BYTES = 1 << 20  # of a manifest; they have hundreds


def blob_of(name: str) -> Path | None:
    """The GGUF of the model that Ollama knows by this name; None where it keeps none."""
    path, _, tag = name.partition(":")
    parts = path.split("/")
    if not all(parts) or len(parts) > 3 or ".." in parts or "/" in tag:
        return None
    whole = [_HOST, _NAMESPACE][: 3 - len(parts)] + parts
    for store in _stores():
        blob = blob_in_manifest(store.joinpath("manifests", *whole, tag or _TAG))
        if blob is not None:
            return blob
    return None


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
