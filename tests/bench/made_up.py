"""Results as the benchmarks write them, with made-up numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.document.speed import CLASSES
from benchmarks.schemas import Found, as_json

Content = dict[str, Any]


def head(benchmark: str, command: str, **changes: Any) -> Content:
    return {
        "schema": 2,
        "benchmark": benchmark,
        "date": "2026-01-02",
        "commit": "c0ffee1",
        "machine": {"processor": "Abacus 9", "cores": 2, "vectors": "AVX-512"},
        "llama_cpp_python": "0.3.36",
        "model": {"file": "made-up.gguf", "format": "q4_1", "bytes": 1000},
        "heads": None,
        "command": f"{command} --json out.json",
        "quick": False,
        **changes,
    }


def ratios(values: Mapping[str, float]) -> dict[str, float]:
    found = list(values.values())
    return {**values, "geomean": statistics.geometric_mean(found), "worst": min(found)}


def over_plain(step: float) -> dict[str, dict[str, float]]:
    """Class after class a little faster; plain beside itself 0.99 to 1.09."""
    by_depth = {"0": 0.99, "1": 1.2, "2": 1.1, "auto": 1.3}
    return {
        depth: ratios(
            {cls: first + (0.01 if depth == "0" else step) * n for n, cls in enumerate(CLASSES)}
        )
        for depth, first in by_depth.items()
    }


def mtp_bench(step: float = 0.1, **changes: Any) -> Content:
    greedy = over_plain(step)
    summary = {
        "plain_tokens_per_s": ratios({cls: 100 + n for n, cls in enumerate(CLASSES)}),
        "auto_over_plain": greedy["auto"],
        "auto_over_best_static": ratios(
            {cls: greedy["auto"][cls] / greedy["1"][cls] for cls in CLASSES}
        ),
        "auto_over_bound": ratios(dict.fromkeys(CLASSES, 0.8)),
    }
    forks = {depth: {"forks": 0, "answers": 55} for depth in greedy}
    body = {"summary": summary, "over_plain": {"0": greedy}, "forks": forks}
    return {**head("mtp-bench", "mtp-bench --depths 0,1,2,auto"), **body, **changes}


def sampled() -> Content:
    return mtp_bench(over_plain={"0.7": over_plain(0.05), "1": over_plain(0.02)})


def row(n: int, ours: float, llama: float) -> Content:
    return {
        "ours_ms": 7 + ours * n, "llama_ms": 9 + llama * n, "difference": 0.0,
        "llama_difference": 0.25 if n > 1 else 0.0, "from_llama": 0.0, "bandwidth_share": 0.5,
    }  # fmt: skip


def few_rows() -> Content:
    formats = {
        name: {
            "rows": {str(n): row(n, 0.5 * place, 4) for n in (1, 2, 3, 4, 5, 6, 8, 12, 16)},
            "prompt_64": {"ours_ms": 50.0, "llama_ms": 90.0, "difference": 0.0},
            "prompt_512": {"ours_ms": 500.0, "llama_ms": 900.0, "difference": 0.0},
            "format": name, "weight_bytes": 96_000_000, "ours_share": 1.0,
            "read_bytes_per_s": 3e10, "bandwidth_share": 0.5,
        }
        for place, name in enumerate(("q4_0", "q4_1", "q8_0", "bf16", "f16"), start=1)
    }  # fmt: skip
    return {**head("few_rows", "python -m benchmarks.few_rows"), "context": 16, "formats": formats}


def ttft() -> Content:
    one = {"off_s": 0.2, "on_s": 0.202, "on_over_off": 1.01, "lowest": 0.98, "highest": 1.04}
    prompts = dict.fromkeys(("100", "1000", "4000"), one)
    return {**head("ttft", "python -m benchmarks.ttft"), "clock": "wall", "prompts": prompts}


def cached_prompt() -> Content:
    times = {"read_s": 2.0, "found_s": 0.1, "read_over_found": 20.0, "lowest": 18.0}
    sizes = {"tokens": 4000, "file_bytes": 92_000_000, "logits_that_differ": 0}
    return {**head("cached-prompt", "python -m benchmarks.cached_prompt"), **times, **sizes,
            "highest": 21.0}  # fmt: skip


def peer() -> Content:
    one = ratios({"chat": 1.5, "editing": 3.0})
    drafting = {
        "auto_over_peer_defaults": one, "auto_over_peer_best": one, "auto_over_plain": one,
        "ours_over_peer_same_depth": {"depth 1": one, "depth 2": one},
    }  # fmt: skip
    summary = {
        "peer_best_setting": "plain", "plain_over_peer_plain": one, **drafting, "beside": drafting,
    }  # fmt: skip
    body = {"name": "Made Up", "max_tokens": 12, "repetitions": 5, "summary": summary}
    return {**head("peer", "python -m benchmarks.peer run --minutes 4"), **body}


def copying(name: str, step: float) -> Content:
    """mtp-bench's of a file without heads, of which one class is left out."""
    greedy = {depth: ratios for depth, ratios in over_plain(step).items() if depth in ("0", "auto")}
    model = {"file": f"{name}.gguf", "format": "q4_k", "bytes": 1000, "ours_share": 0.97}
    return mtp_bench(step, over_plain={"0": greedy}, model=model, command=f"mtp-bench -m {name}")


def real_rows() -> Content:
    found = few_rows()["formats"]["q4_1"]
    rows = {n: {**found["rows"][n], "peer_ms": 30.0} for n in ("1", "2", "4", "8")}
    head_ = head("few_rows", "python -m benchmarks.few_rows --model made-up.gguf")
    return {**head_, **found, "rows": rows}


def peer_without_heads() -> Content:
    one = ratios({"chat": 1.5, "editing": 3.0})
    summary = {
        "peer_best_setting": "ngram-mod", "peer_best_of_class_over_plain": one,
        "plain_over_peer_plain": one, "auto_over_peer_best": one,
        "auto_over_peer_best_of_class": ratios({"chat": 1.2, "editing": 1.2}),
    }  # fmt: skip
    return {**head("peer", "python -m benchmarks.peer run -m x.gguf"), "summary": summary}


def scaled() -> Content:
    run = {**mtp_bench(), "label": "scaled width, 4,032 bf16", "plan": {"max_tokens": 24}}
    return {**head("scaled", "python -m benchmarks.scaled"), "is_scaled": True, "runs": [run]}


def lossless() -> Content:
    formats = {
        "q4_1": {"asked": 10, "answers": 10, "tokens": 480, "differing": 0},
        "bf16": {"asked": 10, "answers": 9, "tokens": 432, "differing": 1},
    }
    body = {"max_tokens": 48, "depths": [1, "auto"], "formats": formats}
    return {**head("lossless", "python -m benchmarks.lossless --answers 10"), **body}


def overhead() -> Content:
    columns = [
        {"n_vocab": 49_152, "temperature": 0.0, "draws_drafts": False, "limit_ms": 0.3},
        {"n_vocab": 49_152, "temperature": 0.7, "draws_drafts": True, "limit_ms": 0.3},
    ]
    rounds = {"plain": [0.05, 0.06], "depth 3": [0.15, 0.17]}
    known = {"columns": columns, "rounds": rounds}
    return {**head("python_overhead", "python -m benchmarks.python_overhead"), **known}


def schemas() -> Content:
    found = {name: Found([100.0], [ratio * 100], [50.0], 40, 9) for name, ratio in _SCHEMAS.items()}
    return {**head("schemas", "python -m benchmarks.schemas"), **as_json(found)}


_SCHEMAS = {"tool call": 2.0, "dates": 4.5}


def gpu() -> Content:
    found = {
        "load": {"layers": [[31, 31], [2, 2]], "seconds": 1.5},
        "costs": {"rows_ms": [1.0 + n / 4 for n in range(16)], "first_draft_ms": 0.25},
        "forks": {"answers": 9, "forks": {**{str(n): 1 for n in range(1, 9)}, "auto": 0}},
        "exact": {"answers": 8, "forks": 0, "row_counts": [1, 2, 3, 8]},
        "speed": mtp_bench(),
    }
    prompts = {"1000": {"off_s": 0.1, "on_s": 0.11, "on_over_off": 1.1}}
    return {
        **head("gpu", "python -m benchmarks.gpu"),
        "took_s": 400.0,
        "stages": {
            "14B-q4_k": {"status": "done", "found": found},
            "first-token": {"status": "done", "found": {"first token": {"prompts": prompts}}},
        },
    }


def everything() -> dict[str, Content]:
    formats = {"q4_1": 0.1, "q4_0": 0.08, "q8_0": 0.12, "bf16": 0.15}
    return {
        **{f"mtp-bench-{name}": mtp_bench(step) for name, step in formats.items()},
        "mtp-bench-sampled": sampled(),
        "few-rows": few_rows(),
        "ttft": ttft(),
        "cached-prompt": cached_prompt(),
        "peer": peer(),
        "scaled": scaled(),
        "lossless": lossless(),
        "python-overhead": overhead(),
        "gpu": gpu(),
        "schemas": schemas(),
        "schemas-qwen-1.5b": schemas(),
        **{f"qwen-{size}": copying(size, step) for size, step in (("0.5b", 0.1), ("1.5b", 0.2))},
        "draft-qwen-1.5b": copying("1.5b", 0.15),
        **{f"heads-qwen-{size}": copying(size, 0.3) for size in ("0.5b", "1.5b")},
        **{f"peer-heads-qwen-{size}": peer_without_heads() for size in ("0.5b", "1.5b")},
        **{f"few-rows-qwen-{size}": real_rows() for size in ("0.5b", "1.5b")},
        **{f"peer-qwen-{size}": peer_without_heads() for size in ("0.5b", "1.5b")},
    }
