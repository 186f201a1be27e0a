"""docs/measured.md: its sections in order, of which `speed.py` has the first two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.document import speed
from benchmarks.document.real import real
from benchmarks.document.results import (
    Content,
    Results,
    holds_for,
    not_recorded,
    prose,
    table,
)
from benchmarks.gpu import report

PEER, FEW_ROWS, TTFT, CACHED = "peer", "few-rows", "ttft", "cached-prompt"
SCALED, LOSSLESS, OVERHEAD = "scaled", "lossless", "python-overhead"
SCHEMAS, GPU = "schemas", "gpu"
_SCHEMA_RESULTS = (
    ("built-in", SCHEMAS),
    ("Qwen 1.5B", f"{SCHEMAS}-qwen-1.5b"),
)
_NO_GPU = (
    "Not recorded yet: nothing here ever ran on one. `python -m benchmarks.gpu` does in 8 minutes, "
    "see [devices](devices.md#measuring-on-a-card), and its `gpu.json` goes into "
    "`benchmarks/results`."
)
_GPU_LOOK = (
    "Look at *automatic*: speed over plain decoding, geometric mean of the classes. 4B and 14B are "
    "zero-padded copies of the built-in model that cost what models of that size do and say what "
    "it says. Forks are greedy answers that are not plain decoding's, at each depth from 1 to 8."
)
_SCHEMAS_LOOK = (
    "Look at *drafting over plain*: both keep to the same JSON schema, greedy, and take turns; "
    "what the schema forces is drafted. *Over free text* is the speed of drafted answers in the "
    "schema over that of drafted answers to the same request without one."
)
_ROWS = ("1", "2", "3", "4", "6", "8")

_SHARES = (
    "How much of the weights' bytes our kernels take, what share of the machine's read bandwidth "
    "a decode reaches (`benchmarks/bandwidth.py`), and by how much a row's logits differ at most "
    "when it is decoded among 2 to 16 rows: 0 is the same bits."
)
_START = """\
# Measured

Written by `python -m benchmarks.document` from the runs in `benchmarks/results`; do not edit it.
`python -m benchmarks.record` records them. Numbers hold for the machine, commit and command that
stand with them: on yours, `mtp-bench --quick` takes a minute. What was tried and dropped is in
[the log](../benchmarks/LOG.md)."""


def page(results: Results) -> str:
    sections = (
        speed.greedy,
        speed.sampled,
        real,
        _schemas,
        *(_section(*one) for one in _SECTIONS),
        _gpu,
    )
    return "\n\n".join([_START, *(section(results) for section in sections)]) + "\n"


def _section(
    name: str, title: str, look: str, shown: Callable[[Content], str]
) -> Callable[[Results], str]:
    """name: of the result; look: what to look at; shown: the numbers, of what was recorded."""

    def section(results: Results) -> str:
        content = results.get(name)
        body = [not_recorded(name)] if content is None else [shown(content), holds_for(content)]
        return "\n\n".join([f"## {title}", prose(look), *body])

    return section


def _ratio(ratios: Mapping[str, float]) -> str:
    return f"{ratios['geomean']:.2f} ({ratios['worst']:.2f})"


def _peer(content: Content) -> str:
    found = content["summary"]
    alone, beside = found, found["beside"]
    best = found["peer_best_setting"]
    rows = [
        ["automatic", "`draft-mtp` at its defaults",
         *(_ratio(side["auto_over_peer_defaults"]) for side in (alone, beside))],
        ["automatic", f"its best setting: {best}",
         *(_ratio(side["auto_over_peer_best"]) for side in (alone, beside))],
        *([depth, depth, *(_ratio(side["ours_over_peer_same_depth"][depth])
                           for side in (alone, beside))]
          for depth in alone["ours_over_peer_same_depth"]),
        ["plain decoding", "plain decoding", _ratio(found["plain_over_peer_plain"]), ""],
    ]  # fmt: skip
    shown = table(
        ["ours", "llama-server", "the same file", "our head file beside it"], rows, n_text=2
    )
    n_answers = f"answers of up to {content['max_tokens']} tokens, {content['repetitions']} times"
    return f"{shown}\n\n{content['name']}, {n_answers}."


def _rows(content: Content) -> str:
    formats = content["formats"]
    head = ["rows", *_ROWS, "prompt of 512"]
    times = [
        [f"{name.upper()}: llama.cpp's, ours",
         *(_pair(found["rows"].get(n), 1) for n in _ROWS), _pair(found["prompt_512"], 0)]
        for name, found in formats.items()
    ]  # fmt: skip
    shares = [
        [name.upper(), f"{found['ours_share']:.0%}", *_bandwidth(found), *_differences(found)]
        for name, found in formats.items()
    ]
    columns = [
        *("format", "weights' bytes that are ours", "of read bandwidth, 1 row", "8 rows"),
        *("difference to the row alone, ours", "llama.cpp's"),
    ]
    return "\n\n".join(
        [
            "![Milliseconds of a decode by rows, ours and llama.cpp's, by format](rows.svg)",
            table(head, times),
            prose(_SHARES),
            table(columns, shares),
        ]
    )


def _pair(found: Mapping[str, float] | None, digits: int) -> str:
    """Blank where a count was left out, since a row is dear."""
    if found is None:
        return ""
    return f"{found['llama_ms']:.{digits}f}, {found['ours_ms']:.{digits}f}"


def _bandwidth(found: Content) -> list[str]:
    shares = (found["rows"][n]["bandwidth_share"] for n in ("1", "8"))
    return ["" if share is None else f"{share:.2f}" for share in shares]


def _differences(found: Content) -> list[str]:
    names = ("difference", "llama_difference")
    return [f"{max(row[name] for row in found['rows'].values()):.2g}" for name in names]


def _ttft(content: Content) -> str:
    rows = [
        [f"{int(n):,} tokens", *(f"{one[key]:.3f}" for key in ("off_s", "on_s")),
         f"{one['on_over_off']:.2f}", f"{one['lowest']:.2f} to {one['highest']:.2f}"]
        for n, one in content["prompts"].items()
    ]  # fmt: skip
    return table(["prompt", "drafting off, s", "on, s", "on over off", "lowest, highest"], rows)


def _cached(content: Content) -> str:
    row = [
        f"{content['tokens']:,} tokens",
        *(f"{content[key]:.3f}" for key in ("read_s", "found_s")),
        f"{content['read_over_found']:.1f}",
        f"{content['lowest']:.1f} to {content['highest']:.1f}",
        f"{content['file_bytes'] / 1e6:.0f}",
        str(content["logits_that_differ"]),
    ]
    columns = ["prompt", "read, s", "found on disk, s", "read over found", "lowest, highest"]
    return table([*columns, "file, MB", "logits that differ"], [row])


def _scaled(content: Content) -> str:
    return table(
        ["", "tokens an answer", "automatic over plain", "worst class", "of what knowing the "
         "future would give", "answers that are not plain decoding's"],
        [_scaled_row(run) for run in content["runs"]],
    )  # fmt: skip


def _scaled_row(run: Content) -> list[str]:
    found = run["summary"]
    forks = run["forks"]["auto"]
    return [
        run["label"],
        str(run["plan"]["max_tokens"]),
        *(f"{found['auto_over_plain'][key]:.2f}" for key in ("geomean", "worst")),
        f"{found['auto_over_bound']['geomean']:.2f}",
        f"{forks['forks']} of {forks['answers']}",
    ]


def _lossless(content: Content) -> str:
    rows = [
        [name.upper(), str(found["answers"]), str(found["tokens"]), str(found["differing"])]
        for name, found in content["formats"].items()
    ]
    return table(["format", "answers", "tokens", "answers that differ"], rows)


def _overhead(content: Content) -> str:
    heads = [_overhead_head(column) for column in content["columns"]]
    rows = [[case, *(f"{ms:.3f}" for ms in found)] for case, found in content["rounds"].items()]
    return table(["round", *heads], rows)


def _overhead_head(column: Mapping[str, Any]) -> str:
    how = "drafts drawn" if column["draws_drafts"] else "drafts guessed"
    way = f"T {column['temperature']:g}, {how}" if column["temperature"] else "greedy"
    return f"{column['n_vocab']:,} ids, {way} (limit {column['limit_ms']:g})"


def _gpu(results: Results) -> str:
    content = results.get(GPU)
    body = [prose(_NO_GPU)]
    if content is not None:
        heads, *rows = report.rows(content)
        items = "\n".join(f"- {line}" for line in report.first_token(content))
        body = [prose(_GPU_LOOK), table(heads, rows), items, holds_for(content)]
    return "\n\n".join(["## On a GPU", *filter(None, body)])


def _schemas(results: Results) -> str:
    """Of the built-in model and of real ones, where recorded."""
    found = {name: results[key] for name, key in _SCHEMA_RESULTS if key in results}
    body = [not_recorded(*dict(_SCHEMA_RESULTS).values())] if not found else [_schema_table(found)]
    held = "\n".join(holds_for(content, name) for name, content in found.items())
    return "\n\n".join(
        ["## Answers in a schema", prose(_SCHEMAS_LOOK), *body, *filter(None, [held])]
    )


def _schema_table(found: Mapping[str, Content]) -> str:
    heads = [
        f"{name}: {what}"
        for name in found
        for what in ("tokens", "plain, tok/s", "drafting over plain", "over free text")
    ]
    names = next(iter(found.values()))["schemas"]
    rows = [
        [name, *(cell for content in found.values() for cell in _schema_cells(content, name))]
        for name in names
    ]
    means, worst = ["**geometric mean**"], ["worst"]
    for content in found.values():
        over = content["summary"]
        means += ["", "", f"**{over['over_plain']['geomean']:.2f}**"]
        means.append(f"{over['over_free_text']:.2f}")
        worst += ["", "", f"{over['over_plain']['worst']:.2f}", ""]
    differing = ["answers that differ"]
    for content in found.values():
        differing += [str(content["summary"]["differing"]), "", "", ""]
    return table(["schema", *heads], [*rows, means, worst, differing])


def _schema_cells(content: Content, name: str) -> list[str]:
    one = content["schemas"][name]
    return [
        str(one["tokens"]),
        f"{one['plain_per_s']:.0f}",
        f"{one['over_plain']:.2f}",
        f"{one['over_free_text']:.2f}",
    ]


_SECTIONS = (
    (
        PEER,
        "Beside llama-server",
        "Look at the second row: automatic depth over the best that llama.cpp's own server does "
        "with the same file, greedy, as geometric means over the classes; in brackets the worst "
        "class. The server is built with the flags of the wheel, and its draft head has the full "
        "vocabulary; the last column is ours with its trimmed head file, which llama.cpp cannot "
        "use.",
        _peer,
    ),
    (
        FEW_ROWS,
        "Few rows",
        "Verifying a draft of three is a decode of four rows: look at how little the second number "
        "of a pair grows from left to right. Milliseconds of a decode after a short context, "
        "medians; llama.cpp's kernels first, ours second, both in one process in turns.",
        _rows,
    ),
    (
        TTFT,
        "Time to the first token",
        "Look at *on over off*: 1 means that drafting costs nothing before the first token.",
        _ttft,
    ),
    (
        CACHED,
        "Prompts kept on disk",
        "Look at *read over found*: how much sooner the first token comes with `--cache-prompt`, "
        "in a program that was just started.",
        _cached,
    ),
    (
        SCALED,
        "Larger models, scaled",
        "Look at *automatic over plain*. These are zero-padded copies of the built-in model: they "
        "say what it says and cost what a model with matrices of that width costs; no real model's "
        "speed is shown here.",
        _scaled,
    ),
    (
        LOSSLESS,
        "Lossless",
        "Look at the last column: how many greedy answers, drafted at depths 1 to 8 and at "
        "automatic depth, are not plain decoding's, token for token.",
        _lossless,
    ),
    (
        OVERHEAD,
        "What Python costs",
        "CPU milliseconds a round that this project adds to llama.cpp's time, with a model that "
        "answers at once; look at how far each is below its limit.",
        _overhead,
    ),
)
