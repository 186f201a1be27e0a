"""The sections of docs/measured.md on drafting beside plain decoding, in mtp-bench's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from benchmarks.document.results import Content, Results, holds_for, not_recorded, prose, table

CLASSES = {
    "python": "Python",
    "cpp": "C++",
    "explanation": "explanation",
    "summary": "summary",
    "factual": "factual question",
    "translation": "translation",
    "creative": "creative",
    "mathematics": "mathematics",
    "review": "code review",
    "editing": "copy-heavy editing",
    "chat": "chat",
}
FORMATS = {"q4_1": "Q4_1", "q4_0": "Q4_0", "q8_0": "Q8_0", "bf16": "BF16"}  # as shipped first
SAMPLED = "mtp-bench-sampled"
_COPYING = "editing"  # only automatic depth copies: fixed depths cannot be compared with it

_LOOK = (
    "Look at the columns *automatic*: how many times plain decoding's speed drafting has in a "
    "class of prompts; 1 is plain decoding. The two take turns token by token, ratios are taken "
    "within a pair, and each number is the median over the repetitions. Q4_1 is the built-in "
    "model as shipped; the other formats are requantized from it."
)
_LOOK_AGAIN = (
    "Look at *automatic* again: the same ratio where answers are drawn at a temperature. What is "
    "drawn differs from run to run, and so does what can be drafted of it."
)

Ratios = Mapping[str, float]


def result_of(outtype: str) -> str:
    return f"mtp-bench-{outtype}"


def recorded_formats(results: Results) -> dict[str, Content]:
    """By the format's name for people."""
    found = {name: results.get(result_of(outtype)) for outtype, name in FORMATS.items()}
    return {name: content for name, content in found.items() if content is not None}


def depths_of(content: Content, temperature: str = "0") -> dict[str, Ratios]:
    """Over plain, by depth; plain decoding beside itself is depth 0."""
    found: dict[str, Ratios] = content["over_plain"][temperature]
    return found


def best_fixed(content: Content, cls: str) -> float:
    """The fixed depth that serves a class best, with hindsight; plain decoding is one of them."""
    ratios = depths_of(content)
    return max(1.0, *(ratios[depth][cls] for depth in ratios if depth not in ("0", "auto")))


def without_copying(ratios: Ratios) -> float:
    return statistics.geometric_mean(
        ratio for cls, ratio in ratios.items() if cls in CLASSES and cls != _COPYING
    )


def greedy(results: Results) -> str:
    recorded = recorded_formats(results)
    missing = [result_of(outtype) for outtype in FORMATS if result_of(outtype) not in results]
    parts = [
        "## Speed of drafting, greedy",
        prose(_LOOK),
    ]
    if recorded:
        parts += [
            "![Automatic depth and the best fixed one over plain decoding, by class and format]"
            "(speed.svg)",
            _greedy_table(recorded),
            _equals(recorded),
            _each(recorded),
        ]
    if missing:
        parts.append(not_recorded(*missing))
    return "\n\n".join(parts)


def _greedy_table(recorded: Mapping[str, Content]) -> str:
    first, lead = next(iter(recorded.items()))
    fixed = [depth for depth in depths_of(lead) if depth not in ("0", "auto")]
    others = list(recorded)[1:]
    head = [
        *("class", f"{first} plain, tok/s", *(f"depth {depth}" for depth in fixed)),
        *(f"automatic: {first}", *others),
    ]
    rows = [
        [name, _plain(lead, cls), *_ratios(lead, fixed, cls), *_automatic(recorded, cls)]
        for cls, name in CLASSES.items()
        if cls in depths_of(lead)["auto"]
    ]
    blank = [""] * (1 + len(fixed))
    return table(
        head,
        [
            *rows,
            ["**geometric mean**", "", *_ratios(lead, fixed, "geomean"),
             *(f"**{cell}**" for cell in _automatic(recorded, "geomean"))],
            ["worst class", "", *_ratios(lead, fixed, "worst"), *_automatic(recorded, "worst")],
            ["over the best fixed depth of each class", *blank,
             *_summaries(recorded, "auto_over_best_static")],
            ["the same without editing", *blank,
             *(f"{without_copying(c['summary']['auto_over_best_static']):.2f}"
               for c in recorded.values())],
            ["of what knowing the future would give", *blank,
             *_summaries(recorded, "auto_over_bound")],
            ["answers that are not plain decoding's", "", *(_forks(lead, d) for d in fixed),
             *(_forks(content, "auto") for content in recorded.values())],
        ],
    )  # fmt: skip


def _plain(content: Content, cls: str) -> str:
    return f"{content['summary']['plain_tokens_per_s'][cls]:.0f}"


def _ratios(content: Content, depths: list[str], key: str) -> list[str]:
    return [f"{depths_of(content)[depth][key]:.2f}" for depth in depths]


def _automatic(recorded: Mapping[str, Content], key: str) -> list[str]:
    return [f"{depths_of(content)['auto'][key]:.2f}" for content in recorded.values()]


def _summaries(recorded: Mapping[str, Content], name: str) -> list[str]:
    return [f"{content['summary'][name]['geomean']:.2f}" for content in recorded.values()]


def _forks(content: Content, depth: str) -> str:
    found = content["forks"][depth]
    return f"{found['forks']} of {found['answers']}"


def _equals(recorded: Mapping[str, Content]) -> str:
    """How exact a ratio is: plain decoding beside itself, over all classes and formats."""
    ratios = [
        ratio
        for content in recorded.values()
        for cls, ratio in depths_of(content)["0"].items()
        if cls in CLASSES
    ]
    return prose(
        f"Plain decoding beside itself, measured likewise, has {min(ratios):.2f} to "
        f"{max(ratios):.2f}: so exact is a ratio here. Fixed depths are chosen with hindsight, and "
        "cannot copy."
    )


def _each(recorded: Mapping[str, Content]) -> str:
    return "\n".join(holds_for(content, name) for name, content in recorded.items())


def sampled(results: Results) -> str:
    parts = [
        "## Speed of drafting, sampled",
        prose(_LOOK_AGAIN),
    ]
    content = results.get(SAMPLED)
    if content is None:
        return "\n\n".join([*parts, not_recorded(SAMPLED)])
    return "\n\n".join([*parts, _sampled_table(content), holds_for(content)])


def _sampled_table(content: Content) -> str:
    columns = {
        f"T {temperature}, {'automatic' if depth == 'auto' else f'depth {depth}'}": ratios
        for temperature, by_depth in content["over_plain"].items()
        for depth, ratios in by_depth.items()
        if depth != "0"
    }
    names = {**CLASSES, "geomean": "**geometric mean**", "worst": "worst class"}
    keys = [key for key in names if all(key in ratios for ratios in columns.values())]
    rows = [[names[key], *(f"{ratios[key]:.2f}" for ratios in columns.values())] for key in keys]
    return table(["class", *columns], rows)
