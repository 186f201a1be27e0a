"""What a checkpoint folder or a GGUF holds, in lines for people: family, target, heads, formats.

What convert would make of a folder is found by planning it, so that both say the same. Knows
nothing of one family beyond what its table says of itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import Checkpoint, open_checkpoint
from mtp_convert.commands import common_form
from mtp_convert.commands.build import Options, Part, plan_checkpoint
from mtp_convert.commands.record import record_in, record_lines
from mtp_convert.commands.report import size
from mtp_convert.commands.resolver import Resolver
from mtp_convert.families import all_families, family_of
from mtp_convert.families.rules import Config, Family, HeadKind, Heads
from mtp_convert.gguf.header import GgufFile
from mtp_convert.gguf.model import NEXTN, GgufModel, open_model
from mtp_convert.gguf.plan import Plan

_MEMORY = {"hybrid": "hybrid memory", "plain": "plain KV"}
_BESIDE: HeadKind = "shared-kv"  # heads that are a model of their own, beside their target's
TEMPLATE = "tokenizer.chat_template"
# Drafters that read rows of layers: a tensor that only one of them has, or the architecture.
_READERS = (
    ("DSpark", "markov_w1.weight"), ("DFlash 2", "selector_hidden.weight"), ("DFlash", "dflash"),
    ("EAGLE-3", "eagle3"),
)  # fmt: skip
_BLOCK_SIZE = "block_size"  # of a drafter that drafts a whole block in one pass
# Marks of chat formats, the less common ones first: later formats took over marks of earlier ones.
_MARKS = (
    ("<|channel|>", "Harmony (gpt-oss)"), ("<|start_header_id|>", "Llama 3"),
    ("<|header_start|>", "Llama 4"), ("<|turn>", "Gemma 4"), ("<start_of_turn>", "Gemma"),
    ("<\uff5cAssistant\uff5c>", "DeepSeek"), ("[gMASK]", "GLM"), ("<|im_start|>", "ChatML"),
    ("<|START_OF_TURN_TOKEN|>", "Command R"), ("<|end|>", "Phi"), ("[INST]", "Llama 2 or Mistral"),
    ("<|user|>", "Zephyr"), ("### Instruction", "Alpaca"),
)  # fmt: skip


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
    width, n_vocab = config.count("hidden_size"), _vocabulary(resolver)
    sizes = f"{resolver.n_layers} layers, width {width}, {n_vocab}"
    if family.is_beside:
        yield f"heads: one model ({family.reads.kind if family.reads else _BESIDE}), {sizes}"
        runs = "runs in: mtp-chat --heads, beside its target, after mtp-convert convert"
    else:
        yield f"target: {sizes}"
        runs = yield from _checkpoint_heads(resolver)
    yield from _plan_lines(checkpoint, resolver, runs)
    if resolver.quantization.method:
        yield f"quantized: {resolver.quantization.shown}"
    formats: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        formats[entry.dtype] += entry.n_bytes
    yield f"tensors: {len(checkpoint.tensors)}, {size(checkpoint.n_bytes)}: {_shares(formats)}"


def _vocabulary(resolver: Resolver) -> str:
    """How many ids there are; a drafter may leave them to its target."""
    if resolver.family.reads is not None and resolver.config.find("vocab_size") is None:
        return "its target's vocabulary"
    return f"vocabulary {resolver.config.count('vocab_size')}"


def _plan_lines(checkpoint: Checkpoint, resolver: Resolver, runs: str) -> Iterator[str]:
    """What convert would write, or why it would not."""
    heads = resolver.family.heads
    if resolver.family.reads is not None:
        yield runs
        yield "convert needs: --target, the folder or GGUF of the model it drafts for"
        return
    part: Part = "target" if heads and heads.is_apart else "all"
    plan, refusal = _planned(checkpoint, part)
    if plan is not None:
        yield runs
        yield from _facts(resolver.family.arch, {k: v.value for k, v in plan.metadata.items()})
        yield f"parameters: {_amount(plan.n_parameters)}"
        return
    yield f"convert refuses: {refusal}"
    if resolver.n_heads() and _planned(checkpoint, "heads")[0] is not None:
        yield "heads alone: mtp-convert graft, or convert --heads-only"


def _planned(checkpoint: Checkpoint, part: Part) -> tuple[Plan | None, str]:
    """A plan, or why there is none."""
    try:
        return plan_checkpoint(checkpoint, Options(part)), ""
    except MtpError as error:
        return None, str(error)


def _facts(arch: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Context and chat template, by a GGUF's metadata."""
    context = values.get(f"{arch}.context_length")
    if isinstance(context, int):
        yield f"context: {context} tokens"
    named = sorted(k.removeprefix(f"{TEMPLATE}.") for k in values if k.startswith(f"{TEMPLATE}."))
    also = f"; also {', '.join(named)}" if named else ""
    template = values.get(TEMPLATE)
    shown = template_kind(template) if isinstance(template, str) and template.strip() else "none"
    yield f"chat template: {shown}{also}"


def template_kind(template: str) -> str:
    """The chat format of a template, by the marks in it."""
    kinds = (kind for mark, kind in _MARKS if mark in template)
    return next(kinds, f"of its own, {len(template)} characters")


def _amount(n: int) -> str:
    """A number of parameters for people: 134.5 million."""
    for unit, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return str(n)


def _checkpoint_heads(resolver: Resolver) -> Generator[str, None, str]:
    """Heads by their tensors, beside what config.json says of them; gives what runs them."""
    family, n_heads = resolver.family, resolver.n_heads()
    runs = "runs in: mtp-chat and llama.cpp, after mtp-convert convert"
    announced = resolver.config.find(*family.heads.count, default=0) if family.heads else 0
    if family.heads is None:
        yield f"heads: none ({family.notes})" if family.notes else "heads: none of its own"
    elif n_heads:
        yield f"heads: {n_heads} ({family.heads.kind}, {_MEMORY[family.heads.memory]})"
        if announced != n_heads:
            yield f"note: {resolver.checkpoint.config_file} announces {announced or 'no'} heads"
        if family.heads.is_apart:
            runs = "runs in: mtp-chat, after mtp-convert convert --no-heads and --heads-only"
    else:
        yield "heads: none"
        if announced or not family.heads.is_apart:  # of which there are baselines without
            yield f"warning: {family.name} checkpoints have heads; here they are missing"
        runs += ", without drafting heads"
    return runs


def _gguf_lines(model: GgufModel) -> Iterator[str]:
    file = model.file
    kind = "head file" if model.is_head_file or model.is_sidecar else "model"
    yield f"{file.path}: GGUF {kind}, architecture {model.arch}, {file.name or '?'}"
    is_whole = model.has_target and not model.is_head_file and not model.is_layer_reader
    if is_whole:
        yield (f"target: {model.n_layers} layers, width {model.n_embd}, vocabulary {model.n_vocab}")
    if model.is_beside:
        yield f"heads: one model ({_BESIDE if model.is_assistant else _layer_reader(model)})"
        yield "runs in: mtp-chat --heads, beside its target"
    else:
        yield from _gguf_heads(model)
    formats: Counter[str] = Counter()
    for tensor in file.tensors.values():
        formats[tensor.kind.name] += tensor.n_bytes
    if is_whole:
        yield from _facts(model.arch, _said(file))
    yield from _sizes(file, formats)
    total = sum(formats.values())
    n_files = len({tensor.file for tensor in file.tensors.values()})
    parts = f" in {n_files} files" if n_files > 1 else ""
    yield f"tensors: {len(file.tensors)}{parts}, {size(total)}: {_shares(formats)}"


def _layer_reader(model: GgufModel) -> str:
    """Its kind, what it reads, and what it drafts in."""
    file = model.file
    layers = file.pairs.get(model.key("target_layers"))
    named = "?"
    if layers is not None and layers.kind == GGUFValueType.ARRAY:
        named = ", ".join(map(str, layers.value))
    kind = next(kind for kind, mark in _READERS if mark in (model.arch, *file.tensors))
    found = f"{kind}, rows of layers {named}"
    if model.key(_BLOCK_SIZE) in file.pairs:
        found += f", blocks of {file.count(model.key(_BLOCK_SIZE))}"
    ids = file.tensors.get("d2t")
    return found + (f", {ids.shape[0]} ids" if ids else "")


def _said(file: GgufFile) -> dict[str, Any]:
    """Metadata without arrays, which are long."""
    return {k: v.value for k, v in file.pairs.items() if v.kind != GGUFValueType.ARRAY}


def _sizes(file: GgufFile, formats: Counter[str]) -> Iterator[str]:
    n_parameters = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    total = sum(formats.values())
    shares = ", ".join(
        f"{100 * n_bytes / total:.0f}% {name}" for name, n_bytes in formats.most_common()
    )
    yield f"parameters: {_amount(n_parameters)}"
    yield f"quantization: {8 * total / n_parameters:.2f} bits for each, by bytes {shares}"


def _gguf_heads(model: GgufModel) -> Iterator[str]:
    announced = model.file.count(model.key(NEXTN))
    if model.n_heads:
        yield f"heads: {model.n_heads} ({_kind(model)}), {_head_bytes(model)}"
    elif announced:
        yield f"warning: the metadata announces {announced} head(s), the file holds none"
        yield "note: mtp-convert strip takes the announcement off, which llama.cpp may stop at"
    else:
        yield "heads: none; mtp-convert graft adds a checkpoint's, pack those of mtp-train"
        yield from _missing_lines(model)
    if model.is_head_file:
        yield from _pairing_lines(model)
    elif model.is_sidecar:
        yield f"for: {model.n_layers} layers, width {model.n_embd}, vocabulary {model.n_vocab}"
        yield from _common_lines(model)
        yield _runs_beside(model, "; llama.cpp with --spec-type draft-mtp")
    elif model.n_heads:
        yield from _recorded_lines(model)
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
    """The families whose heads lie in their target's file."""
    for family in all_families():
        if family.heads and not family.heads.is_apart:
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
    yield f"for: {info.target_name}, width {info.n_embd}, vocabulary {info.n_vocab}, {info.hidden}"
    if info.fused is not None:
        layers = ", ".join(map(str, info.fused.layers))
        final = ", and the final one of answers" if info.fused.with_final else ""
        n_rows = info.fused.prompt_rows
        yield f"reads: the rows of layers {layers}, fused; {n_rows} of a prompt{final}"
    if info.vocabulary is not None:
        yield f"draft vocabulary: {len(info.vocabulary.draft_ids)} ids"
    yield from _common_lines(model)
    yield f"fingerprint: {info.fingerprint}"
    yield from _recorded_lines(model)
    yield _runs_beside(model)


def _common_lines(model: GgufModel) -> Iterator[str]:
    ids = common_form.draft_ids(model)
    if ids is not None:
        yield f"draft vocabulary: {len(ids)} ids, as {common_form.D2T} (llama.cpp#29143)"


def _runs_beside(model: GgufModel, also: str = "") -> str:
    if common_form.runs(model):
        return f"runs in: mtp-chat --heads, beside its target{also}"
    return "runs in: nothing yet; mtp-convert trim makes a head file of it that runs"


def _recorded_lines(model: GgufModel) -> Iterator[str]:
    recorded = record_in(model)
    if recorded is not None:
        yield from record_lines(recorded)


def _head_bytes(model: GgufModel) -> str:
    formats: Counter[str] = Counter()
    for name in model.head_tensors:
        tensor = model.file.tensors[name]
        formats[tensor.kind.name] += tensor.n_bytes
    return f"{size(sum(formats.values()))}: {_shares(formats)}"


def _shares(formats: Counter[str]) -> str:
    return ", ".join(f"{size(n_bytes)} {name}" for name, n_bytes in formats.most_common())
