"""How to choose tokens: what a user or a GGUF can ask for. Chooses nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mtp_cli.engine.sampling.penalties import Penalties

COLDEST = 1e-6  # at a lower temperature, logits over it leave what a float can tell apart


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. temperature 0 (below 1e-6) is greedy; top_k 0, top_p 1 and min_p 0 are
    off.

    The defaults are llama.cpp's own. seed: the same one gives the same answer to the same prompt
    (`Engine.generate` says how far that goes); None: every answer is another one.

    The penalties (`Penalties` says what each does) are off at last_n 0 or less, or repeat 1, freq 0
    and present 0. repeat: 0.001 to 1000; freq and present: -1000 to 1000.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    penalty_last_n: int = 64
    penalty_repeat: float = 1.0
    penalty_freq: float = 0.0
    penalty_present: float = 0.0

    @property
    def penalties(self) -> Penalties:
        return Penalties(
            self.penalty_last_n, self.penalty_repeat, self.penalty_freq, self.penalty_present
        )
