"""The loop's neighbours, scripted: a target without llama.cpp, and drafters that know the answer.

A scripted target keeps the same promises as the real one and logs what was asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtp_cli.engine.depth.policy import FixedDepth, Seconds
from mtp_cli.engine.drafters.base import Draft, Drafter, always, with_rows
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.generate import Generation, SamplerLike
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import MAX_DEPTH, Floats, Ids, OnRead, Rows, TargetLike

N_VOCAB = 64
GREEDY = Sampling(temperature=0)
NextLogits = Callable[[Sequence[int]], Floats]


def wander(ids: Sequence[int]) -> int:
    """A text that depends on its last three ids and never ends by itself (no id 0)."""
    return 1 + hash(tuple(ids[-3:])) % (N_VOCAB - 1)


def certain(ids: Sequence[int]) -> Floats:
    """Logits that leave no doubt of the id to which `wander` goes."""
    row = np.zeros(N_VOCAB, np.float32)
    row[wander(ids)] = 10
    return row


@dataclass
class ScriptedTarget:
    """A target whose logits are a function of the ids before them.

    hidden rows are (position, id), so that a drafter's can be checked
    can_drop: False for a memory that loses everything when asked to drop a suffix of a prompt
    log:      what was asked: ("prefill" | "verify", ids) and ("truncate", n_past)
    """

    next_logits: NextLogits = certain
    n_ctx: int = 256
    can_drop: bool = True
    n_batch: int = 8
    ids: list[int] = field(default_factory=list)
    log: list[tuple[str, list[int] | int]] = field(default_factory=list)

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool] = lambda: False,
        on_read: OnRead = None,
    ) -> Rows | None:
        self.log.append(("prefill", list(tokens)))
        for start in range(0, len(tokens), self.n_batch):
            rows = self._append(tokens[start : start + self.n_batch])
            if start + self.n_batch < len(tokens) and is_stopped():
                return None
        n_rows = max(1, min(n_hidden, len(rows.logits)))
        hidden = rows.hidden if n_hidden else None
        return Rows(rows.logits[-n_rows:], None if hidden is None else hidden[-n_rows:])

    def decode(self, tokens: Sequence[int]) -> Rows:
        self.log.append(("verify", list(tokens)))
        return self._append(tokens)

    def _append(self, tokens: Sequence[int]) -> Rows:
        assert tokens
        assert len(self.ids) + len(tokens) <= self.n_ctx, "the loop ran over the context"
        logits, hidden = [], []
        for token in tokens:
            hidden.append((len(self.ids), token))
            self.ids.append(token)
            logits.append(self.next_logits(self.ids))
        return Rows(np.stack(logits), np.array(hidden, np.float32))

    def truncate(self, n_past: int) -> int:
        self.log.append(("truncate", n_past))
        if n_past >= len(self.ids):
            return len(self.ids)
        if not self.can_drop:
            self.ids.clear()
            return 0
        del self.ids[n_past:]
        return n_past


class ScriptedDrafter:
    """Drafts from a text it was told, right or wrong as `is_right` says for each id.

    seen: every row it was shown: position -> (id, hidden row); rows it was told to forget are gone
    """

    max_depth = 8
    n_window = 8
    n_waiting = 0

    def __init__(
        self, target: TargetLike, text: Sequence[int], is_right: Callable[[], bool]
    ) -> None:
        self._target = target
        self.text = text
        self._is_right = is_right
        self.seen: dict[int, tuple[int, Floats]] = {}

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        if hidden is None:
            return
        ids, position = with_rows(ids, position, hidden)
        for at, (token, row) in enumerate(zip(ids, hidden, strict=True), position):
            self.seen[at] = (token, row.copy())

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        start = len(self._target.ids)
        assert self.text[start] == newest, "the loop drafts for another text"
        draft = Draft()
        for right in self.text[start + 1 : start + 1 + depth]:
            draft.ids.append(right if self._is_right() else (right + 1) % N_VOCAB)
            draft.probs.append(0.5)
            if not keep_going(draft):
                break
        return draft

    def truncate(self, n_past: int) -> None:
        self.seen = {p: row for p, row in self.seen.items() if p < n_past}

    def close(self) -> None:
        pass


class StubbornDrafter(ScriptedDrafter):
    """Proposes the same ids whatever came before."""

    def __init__(self, target: TargetLike, ids: Sequence[int]) -> None:
        super().__init__(target, ids, lambda: True)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        ids = list(self.text[:depth])
        return Draft(ids, [0.5] * len(ids))


class TableDrafter(ScriptedDrafter):
    """Draws each id from a row of a table of logits; ids: the trimmed vocabulary it drafts in."""

    def __init__(self, target: ScriptedTarget, table: Floats, ids: Ids | None = None) -> None:
        super().__init__(target, [], lambda: True)
        self._table = table if ids is None else table[:, ids]
        self._ids = ids

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft, token = Draft(), newest
        while len(draft.ids) < depth and (not draft.ids or keep_going(draft)):
            draft.take(self._table[token], propose, self._ids)
            token = draft.ids[-1]
        return draft


class Whim:
    """A depth policy without sense: any depth, any part of the heads' ids or of copied ones."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._room = 0
        self._copied: list[int] = []
        self.n_verified = 0

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        self._room, self._copied = min(room, MAX_DEPTH), match.ids
        return int(self._rng.integers(0, self._room + 1))

    def keep_going(self, draft: Draft) -> bool:
        return bool(self._rng.random() < 0.7)

    def commit(self, prob: float) -> bool:
        return False  # what it verifies need not be what was drafted

    def choose(self, draft: Draft) -> list[int]:
        made_up = self._rng.integers(0, N_VOCAB, self._room).tolist()
        ids = [draft.ids, self._copied, made_up][int(self._rng.integers(3))]
        chosen = list(ids[: int(self._rng.integers(0, self._room + 1))])
        self.n_verified += len(chosen)
        return chosen

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        pass


def coin(seed: int) -> Callable[[], bool]:
    rng = np.random.default_rng(seed)
    return lambda: bool(rng.random() < 0.6)


# How right a scripted drafter is: always, never, or by chance.
SKILLS: dict[str, Callable[[], Callable[[], bool]]] = {
    "perfect": lambda: lambda: True,
    "useless": lambda: lambda: False,
    "random": lambda: coin(21),
}


def new_generation(
    target: TargetLike,
    drafter: Drafter,
    prompt: Sequence[int],
    *,
    depth: int,
    max_tokens: int = 48,
    sampler: SamplerLike | None = None,
    is_end: Callable[[int], bool] = lambda token: False,
    single_row_s: Callable[[int], float | None] = lambda n_past: None,
) -> Generation:
    """The real loop, greedy and at a fixed depth unless told otherwise."""
    return Generation(
        target,
        drafter,
        sampler or Sampler(GREEDY),
        FixedDepth(depth),
        prompt,
        max_tokens=max_tokens,
        is_end=is_end,
        single_row_s=single_row_s,
    )


def finish(generation: Generation) -> list[int]:
    """Run to the end; what was yielded must be what it says it generated."""
    yielded = [token for new in generation for token in new]
    assert yielded == generation.tokens
    return yielded
