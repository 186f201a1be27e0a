"""How to choose tokens: what a user or a GGUF can ask for. Chooses nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mtp_cli.engine.sampling.dry import Dry, Piece
from mtp_cli.engine.sampling.penalties import Penalties
from mtp_cli.engine.sampling.truncation import Truncation

COLDEST = 1e-6  # at a lower temperature, logits over it leave what a float can tell apart


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. temperature 0 (below 1e-6) is greedy; top_k 0, top_p 1 and min_p 0 are
    off.

    The defaults are llama.cpp's own. seed: the same one gives the same answer to the same prompt
    (`Engine.generate` says how far that goes); None: every answer is another one.

    top_n_sigma: leaves the tokens whose logits are at most so many standard deviations below the
    best one's; 0 is off. xtc: with this probability every token is left out whose probability is at
    least the threshold, but the least likely of them; off at a threshold above 0.5. DRY: `Dry`.

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
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < COLDEST and not self.has_xtc

    @property
    def has_xtc(self) -> bool:
        return self.xtc_probability > 0 and self.xtc_threshold <= 0.5

    def truncation(self, sharpness: float = 1.0) -> Truncation:
        """What is left of a row of logits; sharpness: divides the temperature."""
        return Truncation(
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            temperature=max(self.temperature, COLDEST) / sharpness,
            top_n_sigma=self.top_n_sigma,
            xtc=(self.xtc_probability, self.xtc_threshold) if self.has_xtc else None,
        )

    def dry(self, piece: Piece | None) -> Dry:
        """piece: a token's bytes; without it no text breaks a repetition"""
        return Dry(
            self.dry_multiplier,
            self.dry_base,
            self.dry_allowed_length,
            self.dry_penalty_last_n,
            tuple(text.encode() for text in self.dry_sequence_breakers),
            piece,
        )

    @property
    def penalties(self) -> Penalties:
        return Penalties(
            self.penalty_last_n, self.penalty_repeat, self.penalty_freq, self.penalty_present
        )
