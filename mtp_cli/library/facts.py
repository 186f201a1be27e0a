"""What is known of each model on this machine, by its header: for `mtp-chat models`.

Loads llama.cpp, whose parser reads headers and whose kernels run some formats. Loads no weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from mtp_cli import models
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.binding import supports_gpu
from mtp_cli.engine.files import gguf_header, soundness
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.files.memory import Machine, estimate, size
from mtp_cli.errors import MtpError
from mtp_cli.library.stores import Stored
from mtp_cli.paths import parts

_FORMATS = {kind.value: kind.name.lower() for kind in GGMLQuantizationType}
_MOST_OF_TARGET = 0.5  # of its bytes: a draft model of more takes nearly as long as the target


@dataclass(frozen=True)
class Facts:
    """name:    what `--model` takes
    fault:      why it does not run, in a line; empty where it does, and then all else is known
    n_bytes:    of all its files
    format:     its quantization by its name, else the format that most bytes are in
    n_ctx_train: tokens, 0 where its file does not say
    heads:      what is in its file or beside it; empty for none
    drafters:   names of smaller models here with its vocabulary
    memory:     bytes with the default context, and whether this machine has them
    kernels:    share of the weights, by bytes, that kernels of ours take on the CPU
    gpu:        whether llama.cpp puts layers on a GPU here
    """

    name: str
    store: str
    path: str
    n_bytes: int = 0
    architecture: str = ""
    format: str = ""
    n_ctx_train: int = 0
    heads: str = ""
    drafters: list[str] = field(default_factory=list)
    memory: int = 0
    fits: bool = False
    kernels: float = 0.0
    gpu: bool = False
    fault: str = ""

    @property
    def runs(self) -> str:
        """What computes with it, for people."""
        if self.fault:
            return self.fault
        if self.gpu:
            return "GPU"
        return f"our kernels {self.kernels:.0%}" if self.kernels else "llama.cpp"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Read:
    """A model whose header could be read."""

    stored: Stored
    shards: list[Header]

    @property
    def n_bytes(self) -> int:
        return sum(entry.n_bytes for shard in self.shards for entry in shard.tensors.values())

    @property
    def vocabulary(self) -> tuple[object, ...]:
        """What models that number the same tokens have in common."""
        pairs = self.shards[0].pairs
        kinds = (pairs.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
        return (*kinds, gguf_header.n_vocab(self.shards))


def facts_of(found: Sequence[Stored]) -> Iterator[Facts]:
    """Of every model, in the same order."""
    read = {model.path: _read(model) for model in found}
    whole = [one for one in read.values() if isinstance(one, _Read)]
    for model in found:
        one = read[model.path]
        if isinstance(one, _Read):
            yield _facts(one, whole)
        else:
            yield Facts(model.name, model.store, str(model.path), _on_disk(model), fault=one)


def _read(model: Stored) -> _Read | str:
    """The headers, or why there are none."""
    if model.missing:
        return f"incomplete: {len(model.missing)} of {_n_parts(model)} parts are missing"
    try:
        shards = gguf_header.read_shards(model.path)
        soundness.check_kind(shards[0])
        soundness.check_writes(shards[0])
        if not any(shard.tensors for shard in shards):
            return "a vocabulary without weights"
    except (MtpError, OSError) as error:
        return str(error).removeprefix(f"{model.path}: ")
    is_drafter = gguf_header.is_drafter(shards[0])
    return "heads for another model (--heads)" if is_drafter else _Read(model, shards)


def _n_parts(model: Stored) -> int:
    return len(parts.parts(model.path.name))


def _on_disk(model: Stored) -> int:
    names = set(parts.parts(model.path.name)) - set(model.missing)
    return sum(model.path.with_name(name).stat().st_size for name in names)


def _facts(one: _Read, others: Sequence[_Read]) -> Facts:
    shards, stored = one.shards, one.stored
    beside = models.with_heads_beside(models.ModelFiles(stored.path, None)).heads
    needed = estimate(shards, heads=beside).total
    formats = _formats(shards)
    return Facts(
        stored.name,
        stored.store,
        str(stored.path),
        _on_disk(stored),
        architecture=shards[0].architecture,
        format=parts.quant(stored.path.name)
        or parts.quant(stored.name)
        or formats.most_common(1)[0][0].upper(),
        n_ctx_train=shards[0].number("context_length"),
        heads=_heads(shards, beside),
        drafters=[other.stored.name for other in others if _drafts(other, one)],
        memory=needed,
        fits=needed <= Machine.here().total,
        kernels=_share(formats),
        gpu=supports_gpu(),
    )


def _heads(shards: list[Header], beside: Path | None) -> str:
    if beside is not None:
        return beside.name
    n_heads = shards[0].number("nextn_predict_layers") if gguf_header.has_heads(shards) else 0
    return f"{n_heads} in the file" if n_heads else ""


def _drafts(small: _Read, target: _Read) -> bool:
    """Whether a model could draft: `--draft-model` compares the tokens themselves."""
    is_small = small.n_bytes < _MOST_OF_TARGET * target.n_bytes
    return is_small and small.vocabulary == target.vocabulary


def _formats(shards: Sequence[Header]) -> Counter[str]:
    """Bytes of matrices by llama.cpp's name of their format."""
    found: Counter[str] = Counter()
    for entry in (entry for header in shards for entry in header.tensors.values()):
        if len(entry.shape) > 1:
            found[_FORMATS.get(entry.ggml_type, "unknown")] += entry.n_bytes
    return found or Counter({"": 0})


def _share(formats: Counter[str]) -> float:
    ours = our_kernels.formats()
    return sum(formats[name] for name in ours) / max(1, sum(formats.values()))


def table(found: Sequence[Facts]) -> Iterator[tuple[str, ...]]:
    """Rows for people, the heading first."""
    yield ("name", "size", "format", "context", "drafts", "memory", "runs on")
    for model in found:
        drafts = [*([model.heads] if model.heads else []), *model.drafters]
        fits = "fits" if model.fits else "too large"
        yield (
            model.name,
            size(model.n_bytes),
            model.format,
            f"{model.n_ctx_train:,}" if model.n_ctx_train else "",
            ", ".join(drafts),
            "" if model.fault else f"{size(model.memory)}, {fits}",
            model.runs,
        )
