"""What a pair accepts, beside what its heads accepted when they were made.

Owns the prompts taken and the words. The engine does the work, and `mtp_cli.acceptance` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mtp_cli import models
from mtp_cli.acceptance import Acceptance, Comparison, Record, compare, total
from mtp_cli.bench import held_out
from mtp_cli.bench.accepted import answered
from mtp_cli.conversation.choice import usual_template
from mtp_cli.engine import Engine

N_CTX = 2048


@dataclass(frozen=True)
class Quality:
    """What a pair accepts now, beside what was accepted when its heads were made.

    then:     of the same prompts; empty where no record is of these
    recorded: the record in the heads' file, if there is one
    """

    now: tuple[Acceptance, ...]
    then: tuple[Acceptance, ...]
    recorded: Record | None

    @property
    def compared(self) -> Comparison | None:
        return compare(self.then, self.now) if self.then else None

    @property
    def is_worse(self) -> bool:
        return self.compared is not None and self.compared.is_worse

    def lines(self) -> Iterator[str]:
        depth = len(self.now[0].accepted)
        yield f"chat prompts, {len(self.now)} of {len(held_out.texts())}: {total(self.now, depth)}"
        if self.recorded is None:
            yield "when made: not recorded; mtp-train measure --record keeps it in a head file"
            return
        if not self.then:
            yield f"when made: on other prompts ({self.recorded.prompts}), which do not compare"
            return
        yield f"when made, {self.recorded.target_format} target: {total(self.then, depth)}"
        found = compare(self.then, self.now)
        chance = f"{found.difference:+.2f} tokens a round, ±{found.bound:.2f} is chance"
        yield f"{self._verdict(found)}: {chance}"
        if found.is_worse:
            yield "note: mtp-train fit --start trains these heads further for this target"

    def _verdict(self, found: Comparison) -> str:
        n = len(self.now)
        more = "" if n == len(held_out.texts()) else "; --all asks more"
        if found.is_worse:
            return f"warning: worse than when made ({n} prompts{more})"
        what = "better than" if found.is_better else "as good as"
        return f"{what} when made, as far as {n} prompts tell{more}"


def measure(
    model: Path, heads: Path | None, recorded: Record | None, *, every: bool
) -> Quality | None:
    """One prompt of each kind, or all; None where the target has no chat template.

    As the record was made, if there is one: the same system prompt, depth and length.
    """
    texts = held_out.texts()
    chosen = range(0, len(texts), 1 if every else held_out.EACH)
    known = recorded is not None and (
        recorded.prompts == held_out.NAME and len(recorded.answers) == len(texts)
    )
    if recorded is not None and known:
        system, depth, length = recorded.system, recorded.depth, recorded.max_tokens
    else:
        system, depth, length = models.defaults(model).system, held_out.DEPTH, held_out.MAX_TOKENS
    with Engine.open(model, heads, n_ctx=N_CTX, n_gpu_layers=0) as engine:
        if usual_template(engine.metadata) is None:
            return None
        now = tuple(
            answered(engine, texts[i], system=system, depth=depth, max_tokens=length)
            for i in chosen
        )
    then = tuple(recorded.answers[i] for i in chosen) if recorded is not None and known else ()
    return Quality(now, then, recorded)
