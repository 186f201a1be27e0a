"""What a checkpoint folder or a GGUF holds, in lines for people: family, trunk, heads, formats.

Knows nothing of one family beyond what its table says of itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from convert.build import Resolver
from convert.checkpoint import open_checkpoint
from convert.families import family_of
from convert.families.rules import Config
from convert.model import GgufModel, open_model
from convert.report import size

_MEMORY = {"hybrid": "hybrid memory", "plain": "plain KV"}
# Architectures whose graph llama.cpp has for heads, and how they run.
_KINDS = {"mimo2": "chained", "step35": "chained", "gemma4-assistant": "shared-kv"}


def inspect_lines(path: Path) -> Iterator[str]:
    """Lines about a folder or a file; raises MtpError on what cannot be read."""
    if path.is_dir():
        yield from _checkpoint_lines(path)
    else:
        yield from _gguf_lines(open_model(path))


def _checkpoint_lines(folder: Path) -> Iterator[str]:
    checkpoint = open_checkpoint(folder)
    config = Config(checkpoint.config, str(folder / "config.json"))
    family = family_of(config)
    resolver = Resolver(checkpoint, family, config)
    n_heads = resolver.n_heads()
    yield f"{folder}: checkpoint of {family.name}, llama.cpp architecture {family.arch}"
    yield (
        f"trunk: {resolver.n_layers} layers, width {config.count('hidden_size')}, "
        f"vocabulary {config.count('vocab_size')}"
    )
    announced = config.find(*family.heads.count, default=0) if family.heads else 0
    if family.heads is None:
        yield f"heads: none ({family.notes})" if family.notes else "heads: none"
    elif n_heads:
        run = f"{family.heads.kind}, {_MEMORY[family.heads.memory]}"
        yield f"heads: {n_heads} ({run})"
        if announced != n_heads:
            yield f"note: config.json announces {announced or 'no'} heads"
        yield "runs in: mtp-chat and llama.cpp, after mtp-convert convert"
    else:
        yield "heads: none"
        yield f"warning: {family.name} checkpoints have heads; here they are missing"
    formats: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        formats[entry.dtype] += entry.n_bytes
    yield f"tensors: {len(checkpoint.tensors)}, {size(checkpoint.n_bytes)}: {_shares(formats)}"


def _gguf_lines(model: GgufModel) -> Iterator[str]:
    file = model.file
    kind = "head file" if model.is_head_file else "model"
    yield f"{file.path}: GGUF {kind}, architecture {model.arch}, {file.get('general.name', '?')}"
    if model.has_trunk and not model.is_head_file:
        yield (f"trunk: {model.n_layers} layers, width {model.n_embd}, vocabulary {model.n_vocab}")
    announced = file.count(model.key("nextn_predict_layers"))
    if model.n_heads:
        how = _KINDS.get(model.arch, "reused") if model.n_heads > 1 else "reused"
        yield f"heads: {model.n_heads} ({how}), {_head_bytes(model)}"
    elif announced:
        yield f"warning: the metadata announces {announced} head(s), the file holds none"
    else:
        yield "heads: none; mtp-convert graft adds a checkpoint's, pack those of mtp-train"
    if model.is_head_file:
        yield from _pairing_lines(model)
    elif model.n_heads:
        yield "runs in: mtp-chat, and llama.cpp with --spec-type draft-mtp"
    else:
        yield "runs in: mtp-chat and llama.cpp, without drafting heads"
    formats: Counter[str] = Counter()
    for tensor in file.tensors.values():
        formats[tensor.kind.name] += tensor.n_bytes
    total = sum(formats.values())
    n_files = len({tensor.file for tensor in file.tensors.values()})
    parts = f" in {n_files} files" if n_files > 1 else ""
    yield f"tensors: {len(file.tensors)}{parts}, {size(total)}: {_shares(formats)}"


def _pairing_lines(model: GgufModel) -> Iterator[str]:
    info = model.info()
    yield f"for: {info.trunk_name}, width {info.n_embd}, vocabulary {info.n_vocab}, {info.hidden}"
    if info.vocabulary is not None:
        yield f"draft vocabulary: {len(info.vocabulary.draft_ids)} ids"
    yield f"fingerprint: {info.fingerprint}"
    yield "runs in: mtp-chat --heads, beside its trunk"


def _head_bytes(model: GgufModel) -> str:
    formats: Counter[str] = Counter()
    for name in model.head_tensors:
        tensor = model.file.tensors[name]
        formats[tensor.kind.name] += tensor.n_bytes
    return f"{size(sum(formats.values()))}: {_shares(formats)}"


def _shares(formats: Counter[str]) -> str:
    return ", ".join(f"{size(n_bytes)} {name}" for name, n_bytes in formats.most_common())
