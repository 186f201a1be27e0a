"""What a checkpoint folder or a GGUF holds, in lines for people: family, trunk, heads, formats.

Knows nothing of one family beyond what its table says of itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Resolver
from mtp_convert.commands.report import size
from mtp_convert.families import all_families, family_of
from mtp_convert.families.rules import Config, Family, HeadKind, Heads
from mtp_convert.gguf.model import NEXTN, GgufModel, open_model

_MEMORY = {"hybrid": "hybrid memory", "plain": "plain KV"}
_BESIDE: HeadKind = "shared-kv"  # heads that are a model of their own, beside their trunk's


def inspect_lines(path: Path) -> Iterator[str]:
    """Lines about a folder or a file; raises MtpError on what cannot be read."""
    if path.is_dir():
        yield from _checkpoint_lines(path)
    else:
        yield from _gguf_lines(open_model(path))


def _checkpoint_lines(folder: Path) -> Iterator[str]:
    checkpoint = open_checkpoint(folder)
    config = Config(checkpoint.config, checkpoint.where)
    family = family_of(config)
    resolver = Resolver(checkpoint, family, config)
    yield f"{folder}: checkpoint of {family.name}, llama.cpp architecture {family.arch}"
    width, n_vocab = config.count("hidden_size"), config.count("vocab_size")
    sizes = f"{resolver.n_layers} layers, width {width}, vocabulary {n_vocab}"
    if family.is_beside:
        yield f"heads: one model ({_BESIDE}), {sizes}"
        yield "runs in: mtp-chat --heads, beside its target, after mtp-convert convert"
    else:
        yield f"trunk: {sizes}"
        yield from _checkpoint_heads(resolver)
    formats: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        formats[entry.dtype] += entry.n_bytes
    yield f"tensors: {len(checkpoint.tensors)}, {size(checkpoint.n_bytes)}: {_shares(formats)}"


def _checkpoint_heads(resolver: Resolver) -> Iterator[str]:
    """Heads by their tensors, beside what config.json says of them."""
    family, n_heads = resolver.family, resolver.n_heads()
    runs = "runs in: mtp-chat and llama.cpp, after mtp-convert convert"
    announced = resolver.config.find(*family.heads.count, default=0) if family.heads else 0
    if family.heads is None:
        yield f"heads: none ({family.notes})" if family.notes else "heads: none of its own"
    elif n_heads:
        yield f"heads: {n_heads} ({family.heads.kind}, {_MEMORY[family.heads.memory]})"
        if announced != n_heads:
            yield f"note: {resolver.checkpoint.config_file} announces {announced or 'no'} heads"
        if family.heads.kind == "independent":
            runs = "runs in: mtp-chat, after mtp-convert convert --no-heads and --heads-only"
    else:
        yield "heads: none"
        if announced or family.heads.kind != "independent":  # which has baselines without
            yield f"warning: {family.name} checkpoints have heads; here they are missing"
        runs += ", without drafting heads"
    yield runs


def _gguf_lines(model: GgufModel) -> Iterator[str]:
    file = model.file
    kind = "head file" if model.is_head_file else "model"
    yield f"{file.path}: GGUF {kind}, architecture {model.arch}, {file.get('general.name', '?')}"
    if model.has_trunk and not model.is_head_file:
        yield (f"trunk: {model.n_layers} layers, width {model.n_embd}, vocabulary {model.n_vocab}")
    if model.is_assistant:
        yield f"heads: one model ({_BESIDE})"
        yield "runs in: mtp-chat --heads, beside its target"
    else:
        yield from _gguf_heads(model)
    formats: Counter[str] = Counter()
    for tensor in file.tensors.values():
        formats[tensor.kind.name] += tensor.n_bytes
    total = sum(formats.values())
    n_files = len({tensor.file for tensor in file.tensors.values()})
    parts = f" in {n_files} files" if n_files > 1 else ""
    yield f"tensors: {len(file.tensors)}{parts}, {size(total)}: {_shares(formats)}"


def _gguf_heads(model: GgufModel) -> Iterator[str]:
    announced = model.file.count(model.key(NEXTN))
    if model.n_heads:
        yield f"heads: {model.n_heads} ({_kind(model)}), {_head_bytes(model)}"
    elif announced:
        yield f"warning: the metadata announces {announced} head(s), the file holds none"
    else:
        yield "heads: none; mtp-convert graft adds a checkpoint's, pack those of mtp-train"
        yield from _missing_lines(model)
    if model.is_head_file:
        yield from _pairing_lines(model)
    elif model.n_heads:
        yield "runs in: mtp-chat, and llama.cpp with --spec-type draft-mtp"
    else:
        yield "runs in: mtp-chat and llama.cpp, without drafting heads"


def _kind(model: GgufModel) -> HeadKind:
    """How llama.cpp runs the heads of this architecture; one head alone is always reused."""
    if model.is_independent:
        return "independent"
    kinds = {family.arch: heads.kind for family, heads in _with_heads_inside()}
    return kinds.get(model.arch, "reused") if model.n_heads > 1 else "reused"


def _with_heads_inside() -> Iterator[tuple[Family, Heads]]:
    """The families whose heads lie in their trunk's file."""
    for family in all_families():
        if family.heads and family.heads.kind != "independent":
            yield family, family.heads


def _missing_lines(model: GgufModel) -> Iterator[str]:
    """Warnings about a file without heads: lost on the way here, or hidden by the metadata."""
    hidden = {name.split(".")[1] for name in model.file.tensors if ".nextn." in name}
    families = [family.name for family, _ in _with_heads_inside() if family.arch == model.arch]
    if hidden:
        blocks = ", ".join(sorted(hidden))
        yield f"warning: block {blocks} holds a head that {model.key(NEXTN)} does not announce"
    elif families:
        yield f"warning: {' and '.join(families)} models have heads; here they are missing"


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
