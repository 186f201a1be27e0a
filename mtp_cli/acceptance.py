"""What a head accepts, counted by answer: the record in a head file, and whether two agree.

Owns the counts, the record's metadata keys and the comparison. Shared by those who measure and
write (`mtp_train`) and those who check (`mtp_convert`); knows nothing of engines or of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtp_cli.errors import MtpError

KEY_PROMPTS = "mtp.accepted.prompts"
KEY_SYSTEM = "mtp.accepted.system"
KEY_FORMAT = "mtp.accepted.target_format"
KEY_MAX_TOKENS = "mtp.accepted.max_tokens"
KEY_DEPTH = "mtp.accepted.depth"
KEY_COUNTS = "mtp.accepted.counts"
KEYS = (KEY_PROMPTS, KEY_SYSTEM, KEY_FORMAT, KEY_MAX_TOKENS, KEY_DEPTH, KEY_COUNTS)

MOST_DEPTH = 8
_MOST_TOKENS = 2**31 - 1  # what an answer may have in llama.cpp
# Standard errors that are held to be chance. Of equal heads, one in 60 still looks worse on ten
# prompts, and one in 125 on fifty.
BOUND = 2.5
TOLERATED = 0.02  # of the tokens a round: less is no loss that anybody feels, however certain


@dataclass(frozen=True)
class Acceptance:
    """Counts of one greedy answer, or of several.

    n_tokens: tokens but the first, which comes with the prompt; rounds: of draft and verification
    drafted:  rounds that had a draft
    accepted: how often each draft position was accepted
    """

    n_tokens: int
    rounds: int
    drafted: int
    accepted: tuple[int, ...]

    def __add__(self, other: Acceptance) -> Acceptance:
        both = zip(self.accepted, other.accepted, strict=True)
        return Acceptance(
            self.n_tokens + other.n_tokens,
            self.rounds + other.rounds,
            self.drafted + other.drafted,
            tuple(a + b for a, b in both),
        )

    @property
    def conditional(self) -> list[float]:
        """Acceptance at each position where the one before was accepted."""
        before = (self.drafted, *self.accepted[:-1])
        return [a / max(b, 1) for a, b in zip(self.accepted, before, strict=True)]

    @property
    def tokens_per_round(self) -> float:
        return self.n_tokens / max(self.rounds, 1)

    def __str__(self) -> str:
        rates = " ".join(f"{rate:.3f}" for rate in self.conditional)
        return f"{rates}  tokens/round {self.tokens_per_round:.2f}  ({self.n_tokens} tokens)"


def total(answers: Iterable[Acceptance], depth: int) -> Acceptance:
    return sum(answers, Acceptance(0, 0, 0, (0,) * depth))


@dataclass(frozen=True)
class Record:
    """What a head accepted when it was made.

    prompts:       the name of the set (`mtp_cli.bench.held_out`)
    system:        what stood in front of each prompt; None: what the chat template says
    target_format: number format of the target's file
    answers:       one for each prompt, all of the same depth
    """

    prompts: str
    system: str | None
    target_format: str
    max_tokens: int
    answers: tuple[Acceptance, ...]

    @property
    def depth(self) -> int:
        return len(self.answers[0].accepted)

    @property
    def total(self) -> Acceptance:
        return total(self.answers, self.depth)

    def metadata(self) -> dict[str, Any]:
        """The key-value pairs to write; the counts as int32, those of an answer after another."""
        counts = [(a.n_tokens, a.rounds, a.drafted, *a.accepted) for a in self.answers]
        pairs = {
            KEY_PROMPTS: self.prompts,
            KEY_FORMAT: self.target_format,
            KEY_MAX_TOKENS: self.max_tokens,
            KEY_DEPTH: self.depth,
            KEY_COUNTS: np.array(counts, np.int32).ravel(),
        }
        return pairs if self.system is None else {**pairs, KEY_SYSTEM: self.system}

    @classmethod
    def from_metadata(cls, pairs: Mapping[str, Any]) -> Record | None:
        """None where there is none; MtpError where the keys do not go together."""
        if KEY_COUNTS not in pairs:
            return None
        system = _text(pairs, KEY_SYSTEM) if KEY_SYSTEM in pairs else None
        depth = _number(pairs, KEY_DEPTH, MOST_DEPTH)
        counts = np.asarray(pairs[KEY_COUNTS])
        n_columns = 3 + depth
        if counts.ndim != 1 or counts.dtype.kind not in "iu" or not counts.size:
            raise MtpError(f"{KEY_COUNTS}: expected an array of counts")
        if counts.size % n_columns or counts.min() < 0:
            raise MtpError(f"{KEY_COUNTS}: expected {n_columns} counts of each answer")
        rows: list[list[int]] = counts.reshape(-1, n_columns).tolist()
        return cls(
            _text(pairs, KEY_PROMPTS),
            system,
            _text(pairs, KEY_FORMAT),
            _number(pairs, KEY_MAX_TOKENS, _MOST_TOKENS),
            tuple(Acceptance(n, r, d, tuple(a)) for n, r, d, *a in rows),
        )


def _text(pairs: Mapping[str, Any], key: str) -> str:
    found = pairs.get(key)
    if not isinstance(found, str):
        raise MtpError(f"{key}: expected a text, found {found!r}")
    return found


def _number(pairs: Mapping[str, Any], key: str, most: int) -> int:
    found = pairs.get(key)
    if not isinstance(found, int) or not 1 <= found <= most:
        raise MtpError(f"{key}: expected 1 to {most}, found {found!r}")
    return found


@dataclass(frozen=True)
class Comparison:
    """Two measurements on the same prompts.

    difference: tokens a round now, minus those then
    bound:      how large a difference may be by chance
    """

    difference: float
    bound: float

    @property
    def is_worse(self) -> bool:
        return self.difference < -self.bound

    @property
    def is_better(self) -> bool:
        return self.difference > self.bound


def compare(then: Sequence[Acceptance], now: Sequence[Acceptance]) -> Comparison:
    """By prompt: answers to one prompt are alike, so what differs is what is to be explained.

    The standard error is that of a difference of two ratios whose terms come in pairs.
    """
    before, after = (total(side, len(side[0].accepted)) for side in (then, now))
    apart = [_share_of(b, after) - _share_of(a, before) for a, b in zip(then, now, strict=True)]
    error = math.sqrt(sum(x * x for x in apart) * len(apart) / max(len(apart) - 1, 1))
    bound = max(BOUND * error, TOLERATED * before.tokens_per_round)
    return Comparison(after.tokens_per_round - before.tokens_per_round, bound)


def _share_of(answer: Acceptance, of: Acceptance) -> float:
    """How far one answer moves the tokens a round of all."""
    expected = of.tokens_per_round * answer.rounds
    return (answer.n_tokens - expected) / max(of.rounds, 1)
