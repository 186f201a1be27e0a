"""The one timeline that target and drafter share: opened over a loaded model, emptied, put back.

Knows which contexts there are, and nothing of how an answer comes about.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.backend.cores import FreeCores
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.rope import Rope
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters import LastingDrafter, NoDrafter
from mtp_cli.engine.drafters.ngram import NgramDrafter
from mtp_cli.engine.drafters.opening import open_drafter, open_small_model
from mtp_cli.engine.files.pairing import Pairing
from mtp_cli.engine.types import N_CTX, HiddenSource, Saved


class Timeline:
    """Target and drafter, which hold the same ids, and an index of these ids to copy from.

    Whoever opened it closes it.
    """

    def __init__(self, target: Target, drafter: LastingDrafter) -> None:
        self.target, self.drafter = target, drafter
        self.ngram = NgramDrafter(is_alone=drafter.max_depth == 0)

    @property
    def ids(self) -> Sequence[int]:
        return self.target.ids

    def forget(self) -> None:
        """Hold nothing."""
        self.target.clear()
        self.drafter.truncate(0)
        self.ngram.truncate(0)

    def save(self) -> Saved:
        """What it holds now, in memory of the machine's own."""
        return dataclasses.replace(self.target.save(), drafter=self.drafter.save())

    def restore(self, saved: Saved) -> None:
        """Hold what was saved; with no room for it, nothing."""
        self.forget()
        self.target.restore(saved)
        if self.target.ids:
            self.drafter.restore(saved.drafter)

    def truncate(self, n_past: int) -> int:
        """Drop the ids from `n_past` on, or all where that cannot be; how many are left."""
        n_left = self.target.truncate(n_past)
        self.drafter.truncate(n_left)
        self.ngram.truncate(n_left)
        return n_left

    def close(self) -> None:
        self.drafter.close()
        self.target.close()


@dataclass(frozen=True)
class Setup:
    """How a timeline over a loaded target is opened.

    pairing:    its heads; None without
    small_model: the model that drafts in their place
    n_threads:  of a decode, at most where `spares_cores`: cores that other programs use are left to
                them
    n_gpu_layers_draft: of what drafts
    cost_facts: what rounds' costs depend on, see `cost_table`
    """

    pairing: Pairing | None
    small_model: Path | None
    n_ctx: int | None
    n_threads: int
    spares_cores: bool
    n_gpu_layers_draft: int
    cache: CacheTypes
    rope: Rope
    cost_facts: tuple[object, ...]

    def open(self, model: Model) -> Timeline:
        n_ctx = self.n_ctx or min(N_CTX, model.n_ctx_train or N_CTX)
        hidden = HiddenSource.NONE if self.pairing is None else self.pairing.hidden
        cores = FreeCores(self.n_threads) if self.spares_cores else None
        with contextlib.ExitStack() as opened:  # what did not fit must not keep its memory
            target = Target(
                model,
                n_ctx=n_ctx,
                n_threads=self.n_threads,
                hidden=hidden,
                layers=() if self.pairing is None else self.pairing.layers,
                cores=cores,
                cache=self.cache,
                rope=self.rope,
            )
            opened.callback(target.close)
            drafter: LastingDrafter = NoDrafter()
            if self.small_model is not None:
                drafter = open_small_model(
                    target, self.small_model, self.n_threads, self.n_gpu_layers_draft
                )
            elif self.pairing is not None:
                drafter = open_drafter(
                    target, self.pairing, self.n_threads, self.n_gpu_layers_draft
                )
            opened.pop_all()
        return Timeline(target, drafter)

    def describe(self) -> str | None:
        """What drafts, for people."""
        if self.small_model is not None:
            return f"{self.small_model.name}, a model that drafts"
        return None if self.pairing is None else self.pairing.describe()
