"""How target and drafter are opened over a loaded model, so that they share one timeline.

Knows which contexts there are, and nothing of what is asked of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.backend.cores import FreeCores
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.rope import Rope
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters import LastingDrafter, NoDrafter
from mtp_cli.engine.drafters.opening import open_drafter, open_small_model
from mtp_cli.engine.files.pairing import Pairing
from mtp_cli.engine.types import N_CTX, HiddenSource


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

    def open(self, model: Model) -> tuple[Target, LastingDrafter]:
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
        return target, drafter

    def describe(self) -> str | None:
        """What drafts, for people."""
        if self.small_model is not None:
            return f"{self.small_model.name}, a model that drafts"
        return None if self.pairing is None else self.pairing.describe()
