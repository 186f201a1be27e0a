"""README's five numbers, between two marks. Knows nothing else of the README."""

from __future__ import annotations

import re

from benchmarks.document.page import FEW_ROWS, LOSSLESS, PEER, TTFT
from benchmarks.document.results import Content, Results, command, table
from benchmarks.document.speed import SAMPLED, depths_of, result_of

_MARKS = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.DOTALL)
_FORMAT = "q4_1"  # the built-in model as shipped
_N_SHOWN = 5  # the first ones that are recorded: a reader who wants more has the page


def with_numbers(text: str, results: Results) -> str:
    """The text with today's numbers between its marks; as it is, where it has none."""
    return _MARKS.sub(lambda match: match[1] + numbers(results) + "\n" + match[2], text)


def numbers(results: Results) -> str:
    recorded = [name for name in _NUMBERS if name in results][:_N_SHOWN]
    found = {name: (_NUMBERS[name], results[name]) for name in recorded}
    if not found:
        return "Nothing is recorded yet: `python -m benchmarks.record` does."
    rows = [
        [*says(content), f"`{command(content)}`{', a quick run' * bool(content['quick'])}"]
        for says, content in found.values()
    ]
    return table(["what", "number", "command"], rows, n_text=3)


def _speed(content: Content) -> list[str]:
    ratios = depths_of(content)["auto"]
    return ["speed over plain decoding, geometric mean of the classes",
            f"{ratios['geomean']:.2f}, worst class {ratios['worst']:.2f}"]  # fmt: skip


def _in_q8_0(content: Content) -> list[str]:
    return ["speed over plain decoding in Q8_0", *_speed(content)[1:]]


def _sampled(content: Content) -> list[str]:
    ratios = depths_of(content, "0.7")["auto"]
    return ["speed over plain decoding at a temperature of 0.7",
            f"{ratios['geomean']:.2f}, worst class {ratios['worst']:.2f}"]  # fmt: skip


def _peer(content: Content) -> list[str]:
    ratios = content["summary"]["beside"]["auto_over_peer_best"]
    return ["speed over llama-server's best setting",
            f"{ratios['geomean']:.2f}, worst class {ratios['worst']:.2f}"]  # fmt: skip


def _rows(content: Content) -> list[str]:
    four = content["formats"][_FORMAT]["rows"]["4"]
    return ["a decode of four rows, and on llama.cpp's kernels",
            f"{four['ours_ms']:.1f} ms, {four['llama_ms']:.1f} ms"]  # fmt: skip


def _ttft(content: Content) -> list[str]:
    return ["time to the first token of 1,000, drafting over not drafting",
            f"{content['prompts']['1000']['on_over_off']:.2f}"]  # fmt: skip


def _lossless(content: Content) -> list[str]:
    formats = content["formats"].values()
    n_differing, n = (sum(one[key] for one in formats) for key in ("differing", "answers"))
    return [f"greedy answers that differ from plain decoding's, in {len(formats)} formats",
            f"{n_differing} of {n}"]  # fmt: skip


_NUMBERS = {
    result_of(_FORMAT): _speed,
    PEER: _peer,
    FEW_ROWS: _rows,
    TTFT: _ttft,
    LOSSLESS: _lossless,
    result_of("q8_0"): _in_q8_0,
    SAMPLED: _sampled,
}
