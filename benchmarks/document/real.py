"""The section of docs/measured.md on real files: what copying, another model and heads give."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.document.results import Content, Results, holds_for, not_recorded, prose, table
from benchmarks.document.speed import CLASSES, depths_of

FILES = {"qwen-0.5b": "Qwen2.5-Coder 0.5B", "qwen-1.5b": "Qwen2.5-Coder 1.5B"}  # Q4_K_M
HEADS = {
    "heads-qwen-0.5b": "0.5B, its heads drafting",
    "heads-qwen-1.5b": "1.5B, its heads drafting",
}
DRAFTING = {"draft-qwen-1.5b": "1.5B, the 0.5B drafting"}
PEERS = {
    **{f"peer-{name}": title for name, title in FILES.items()},
    **{f"peer-{name}": title for name, title in HEADS.items()},
}
_ROWS = ("1", "2", "4", "8")

_LOOK = (
    "Files as people have them, Qwen2.5-Coder-Instruct in Q4_K_M. Look at *automatic*: times plain "
    "decoding beside it, as above. They have no heads, so that only copying what was said drafts."
)
_LOOK_HEADS = (
    "With the heads that [`mtp-train` made for them](../heads/README.md), on other prompts than "
    "they were trained and measured with."
)
_LOOK_DRAFTING = (
    "With `--draft-model` a smaller model of the family drafts, whose step takes half of a row of "
    "the model's: it has to read the prompt first, and is asked once that pays."
)
_LOOK_PEER = (
    "Beside llama-server on the same file, greedy, the same prompts: plain decoding, its five ways "
    "to copy at their defaults, and for the 1.5B the 0.5B as its draft model; it cannot run heads "
    "that read several layers. Look at the last line: ours over its fastest setting of each class, "
    "chosen with hindsight; geometric means, in brackets the worst class."
)
_LOOK_ROWS = (
    "Milliseconds of a decode of few rows: llama.cpp's kernels, ours, and, where one was asked, "
    "another llama-bench."
)


def rows_of(name: str) -> str:
    return f"few-rows-{name}"


def peer_of(name: str) -> str:
    return f"peer-{name}"


def recorded(results: Results, result_of: Mapping[str, str]) -> dict[str, Content]:
    """By the file's name for people."""
    return {FILES[name]: results[result] for name, result in result_of.items() if result in results}


def _titled(results: Results, titles: Mapping[str, str]) -> dict[str, Content]:
    return {title: results[name] for name, title in titles.items() if name in results}


def real(results: Results) -> str:
    names = {name: name for name in FILES}
    rows = {name: rows_of(name) for name in FILES}
    parts = ["## Real files", prose(_LOOK)]
    if found := recorded(results, names):
        chart = "![Automatic depth over plain decoding, by class and file](copying.svg)"
        parts += [chart, _speed(found), _each(found)]
    if found := _titled(results, HEADS):
        parts += [prose(_LOOK_HEADS), _speed(found), _each(found)]
    if found := _titled(results, DRAFTING):
        parts += [prose(_LOOK_DRAFTING), _speed(found), _each(found)]
    if found := _titled(results, PEERS):
        parts += [prose(_LOOK_PEER), _peers(found), _each(found)]
    if found := recorded(results, rows):
        parts += [prose(_LOOK_ROWS), _rows(found), _each(found)]
    every = (*names.values(), *HEADS, *DRAFTING, *PEERS, *rows.values())
    missing = [name for name in every if name not in results]
    if missing:
        parts.append(not_recorded("--models", "FOLDER", *missing))
    return "\n\n".join(parts)


def _each(found: Mapping[str, Content]) -> str:
    return "\n".join(holds_for(content, name) for name, content in found.items())


def _speed(found: Mapping[str, Content]) -> str:
    contents = found.values()
    head = ["class", *(cell for name in found for cell in (f"{name} plain, tok/s", "automatic"))]
    rows = [
        [title, *(cell for content in contents for cell in _class(content, cls))]
        for cls, title in CLASSES.items()
    ]
    means = {"geomean": "**geometric mean**", "worst": "worst class"}
    rows += [
        [title, *(cell for content in contents for cell in ("", _auto(content, key)))]
        for key, title in means.items()
    ]
    forks = [content["forks"]["auto"] for content in contents]
    shares = [content["model"].get("ours_share") for content in contents]
    rows += [
        ["answers that are not plain decoding's",
         *(cell for one in forks for cell in ("", f"{one['forks']} of {one['answers']}"))],
        ["weights' bytes that our kernels take",
         *(cell for one in shares for cell in ("", "" if one is None else f"{one:.0%}"))],
    ]  # fmt: skip
    return table(head, rows)


def _class(content: Content, cls: str) -> list[str]:
    plain = content["summary"]["plain_tokens_per_s"].get(cls)
    return ["" if plain is None else f"{plain:.0f}", _auto(content, cls)]


def _auto(content: Content, key: str) -> str:
    ratio = depths_of(content)["auto"].get(key)
    return "" if ratio is None else f"{ratio:.2f}"


def _peers(found: Mapping[str, Content]) -> str:
    lines = {
        "plain_over_peer_plain": ["plain decoding", "plain decoding"],
        "auto_over_peer_best": ["automatic", "its best setting over all classes"],
        "auto_over_peer_best_of_class": ["automatic", "its best setting of each class"],
    }
    rows = [
        [*names, *(_ratio(content["summary"][key]) for content in found.values())]
        for key, names in lines.items()
    ]
    best = [content["summary"]["peer_best_setting"] for content in found.values()]
    rows.append(["", "its best setting: which", *best])
    return table(["ours", "llama-server", *found], rows, n_text=2)


def _ratio(ratios: Mapping[str, float]) -> str:
    return f"{ratios['geomean']:.2f} ({ratios['worst']:.2f})"


def _rows(found: Mapping[str, Content]) -> str:
    head = ["rows", *_ROWS, "prompt of 512", "of read bandwidth, 1 row"]
    rows = [
        [name, *(_times(content["rows"].get(n), 1) for n in _ROWS),
         _times(content["prompt_512"], 0), _share(content["bandwidth_share"])]
        for name, content in found.items()
    ]  # fmt: skip
    return table(head, rows)


def _times(found: Mapping[str, float] | None, digits: int) -> str:
    sides = [] if found is None else [found.get(f"{side}_ms") for side in ("llama", "ours", "peer")]
    return ", ".join(f"{ms:.{digits}f}" for ms in sides if ms is not None)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"
