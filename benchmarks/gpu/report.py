"""One table of a run on a card. Reads what stages found; computes nothing but what is shown."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

Found = dict[str, Any]
_ROWS = (2, 4, 8, 16)
_NONE = "-"
WIDTH = 200
_HEADS = (
    "layers on the card", "load, s", "1 row, ms", *(f"{n} rows, of one" for n in _ROWS),
    "first draft, ms", "plain, tok/s", "best depth, of plain", "automatic", "worst class",
    "accepted of drafted", "answers compared", "forks, depths 1-8", "forks, automatic",
    "forks, --exact", "exact rows",
)  # fmt: skip


def rows(content: Found) -> list[list[str]]:
    """A column for each model that was run, its name first; each row begins with what it holds."""
    models = [
        model
        for stage, entry in content["stages"].items()
        for model in _models(stage, entry["found"])
    ]
    columns = [["", *_HEADS], *([label, *_cells(found)] for label, found in models)]
    return [[*row] for row in zip(*columns, strict=True)]


def shown(content: Found) -> RenderableType:
    heads, *body = rows(content)
    table = Table(title=_title(content), title_justify="left")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in body:
        table.add_row(*row)
    return Group(table, *first_token(content), *_problems(content))


def print_table(content: Found, console: Console | None = None) -> None:
    (console or Console(width=WIDTH)).print(shown(content))


def _title(content: Found) -> str:
    card = content.get("card", {})
    name = ", ".join(filter(None, (card.get("name"), card.get("memory.total")))) or "no card"
    return f"{name}, {content['took_s']:.0f} s in all"


def _models(stage: str, found: Found) -> list[tuple[str, Found]]:
    """What was found of each model of a stage, by a label."""
    if stage != "lossless":
        return [(stage, found)] if "load" in found else []
    labels = [name.removeprefix("load ") for name in found if name.startswith("load ")]
    return [
        (label, {
            piece: found[f"{piece} {label}"]
            for piece in ("load", "forks", "exact") if f"{piece} {label}" in found
        })
        for label in labels
    ]  # fmt: skip


def _cells(found: Found) -> list[str]:
    load = found.get("load", {})
    there = ", ".join(f"{n} of {of}" for n, of in load.get("layers", [])) or "none"
    return [
        there,
        _number(load.get("seconds"), 1),
        *_costs(found.get("costs", {})),
        *_speed(found.get("speed", {})),
        *_forks(found),
    ]


def _costs(costs: Found) -> list[str]:
    rows = costs.get("rows_ms")
    if not rows:
        return [_NONE] * (2 + len(_ROWS))
    ratios = [f"{rows[n - 1] / rows[0]:.2f}" for n in _ROWS]
    return [f"{rows[0]:.2f}", *ratios, _number(costs["first_draft_ms"], 2)]


def _speed(speed: Found) -> list[str]:
    """Geometric means of the classes, but for the worst one."""
    if "summary" not in speed:
        return [_NONE] * 5
    (over_plain,) = speed["over_plain"].values()  # of one temperature
    fixed = {depth: by["geomean"] for depth, by in over_plain.items() if depth not in ("0", "auto")}
    best = max(fixed, key=lambda depth: fixed[depth])
    auto = speed["summary"]["auto_over_plain"]
    return [
        f"{speed['summary']['plain_tokens_per_s']['geomean']:.0f}",
        f"{fixed[best]:.2f} ({best})",
        f"{auto['geomean']:.2f}",
        f"{auto['worst']:.2f}",
        _accepted(speed.get("records", [])),
    ]


def _accepted(records: list[Found]) -> str:
    auto = [one for one in records if one["depth"] == "auto"]
    verified, accepted = (sum(one[name] for one in auto) for name in ("verified", "accepted"))
    return f"{accepted / verified:.2f}" if verified else _NONE


def _forks(found: Found) -> list[str]:
    forks, exact = found.get("forks", {}), found.get("exact", {})
    cells = [_NONE] * 5
    if "forks" in forks:
        fixed = {depth: n for depth, n in forks["forks"].items() if depth != "auto"}
        cells[0] = str(forks["answers"])
        cells[1] = " ".join(str(fixed[depth]) for depth in sorted(fixed))
        cells[2] = str(forks["forks"]["auto"])
    if "row_counts" in exact:
        cells[3] = f"{exact['forks']} of {exact['answers']}"
        cells[4] = _runs(exact["row_counts"])
    return cells


def _runs(numbers: list[int]) -> str:
    """Numbers that follow each other as one: 1-3, 8"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def first_token(content: Found) -> list[str]:
    """A line for each length of prompt."""
    found = content["stages"].get("first-token", {}).get("found", {}).get("first token", {})
    return [
        f"first token of {int(n):,}: {one['off_s']:.3f} s, drafting {one['on_s']:.3f} s "
        f"({one['on_over_off']:.2f})"
        for n, one in found.get("prompts", {}).items()
    ]


def _problems(content: Found) -> list[str]:
    """Stages that did not end by themselves, pieces that failed, layers that are not there."""
    lines = []
    for name, entry in content["stages"].items():
        if entry["status"] != "done":
            lines.append(f"{name}: {entry['status']}")
        for piece, found in entry.get("found", {}).items():
            if "error" in found:
                lines.append(f"{name}, {piece}: {found['error'].strip().splitlines()[-1]}")
            if found.get("is_all_on_card") is False and not content.get("dry_run"):
                lines.append(f"{name}, {piece}: not every layer is on a card")
    return lines


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
