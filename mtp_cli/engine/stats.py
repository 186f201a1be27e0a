"""What one answer cost, counted and timed. Knows nothing of how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Stats:
    """What one answer cost.

    verified, accepted: how often each draft position was verified, and accepted
    exact:             only row counts that change no bit of the logits were verified
    checking_s:        what comparing them with single rows took, no part of decode_s
    inexact:           row counts that had been believed to change none, each time one did: from the
                       first on the answer goes on as plain decoding's, what came before may differ
    plain_s:           what plain decoding would have taken, by the cost of single rows, instead of
                       compared_s: as much of decode_s as that cost was known in
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    rounds: int = 0
    verified: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    exact: bool = False
    checking_s: float = 0.0
    inexact: list[int] = field(default_factory=list)
    plain_s: float = 0.0
    compared_s: float = 0.0

    @property
    def time_to_first_token_s(self) -> float:
        """The first token comes out of the prompt's own pass."""
        return self.prefill_s

    @property
    def tokens_per_s(self) -> float:
        """Decoding alone: the prompt's pass and the token it gives are left out."""
        seconds = self.decode_s + self.checking_s
        return (self.completion_tokens - 1) / seconds if seconds > 0 else 0.0

    @property
    def tokens_per_round(self) -> float:
        return (self.completion_tokens - 1) / self.rounds if self.rounds else 0.0

    @property
    def times_plain(self) -> float | None:
        """How many times as fast as plain decoding; None where nothing was drafted, or unknown."""
        if not any(self.verified) or self.compared_s <= 0:
            return None
        return self.plain_s / self.compared_s

    def count_round(self, n_verified: int, n_accepted: int) -> None:
        self.rounds += 1
        for counts, n in ((self.verified, n_verified), (self.accepted, n_accepted)):
            counts.extend([0] * (n_verified - len(counts)))
            for position in range(n):
                counts[position] += 1
