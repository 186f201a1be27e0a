"""Shares of right answers, with 95% intervals over the requests.

The requests are the sample: several seeds make each one's share surer, and do not add to them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from benchmarks.answers.asking import Asked
from benchmarks.answers.items import ITEMS, KINDS
from benchmarks.answers.settings import Setting

_Z = statistics.NormalDist().inv_cdf(0.975)
_KIND = {item.request: item.kind for item in ITEMS}
Shares = Mapping[str, float]


def shares(answers: Iterable[Asked]) -> dict[Setting, dict[str, float]]:
    """For each setting, the share of seeds that answered each request right."""
    found: dict[Setting, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for asked in answers:
        found[asked.setting][asked.request].append(asked.is_right)
    return {
        setting: {request: statistics.fmean(right) for request, right in of.items()}
        for setting, of in found.items()
    }


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95% interval (normal approximation)."""
    if len(values) < 2:
        return statistics.fmean(values), math.inf
    return statistics.fmean(values), _Z * statistics.stdev(values) / math.sqrt(len(values))


def table(answers: Sequence[Asked], baseline: Setting) -> Table:
    """Best first; the last column is the difference to the baseline, request by request."""
    found = shares(answers)
    tokens = defaultdict(list)
    for asked in answers:
        tokens[asked.setting].append(asked.n_tokens)
    shown = Table("setting", "seeds", *(f"{kind}s" for kind in KINDS), "all", "tokens", "more")
    for setting in sorted(found, key=lambda s: -statistics.fmean(found[s].values())):
        of = found[setting]
        n_seeds = len({asked.seed for asked in answers if asked.setting == setting})
        columns = [_percent([of[r] for r in of if _KIND[r] == kind]) for kind in KINDS]
        columns += [_percent(list(of.values())), f"{statistics.fmean(tokens[setting]):.0f}"]
        shown.add_row(str(setting), str(n_seeds), *columns, _more(of, found.get(baseline)))
    return shown


def _more(of: Shares, base: Shares | None) -> str:
    common = [] if base is None else [of[r] - base[r] for r in of if r in base]
    return _percent(common, sign="+") if common else ""


def _percent(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return ""
    mean, margin = mean_and_margin(values)
    return f"{100 * mean:{sign}.1f} ±{100 * margin:.1f}"
