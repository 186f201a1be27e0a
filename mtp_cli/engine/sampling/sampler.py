"""Chooses a token from one row of logits, as llama.cpp's sampler chain would.

Owns what is sampled from (penalties, DRY, top-n-sigma, top-k, top-p, min-p, XTC, temperature) and
the random numbers, for the target's rows and, by the same rules over its own vocabulary, for a
drafter's. What of a draft stands is `verify.py`'s to say. Keeps no text: the ids that a row follows
come with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.dry import Piece
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.sampling.verify import up_to_end, verify_block
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import Floats, Ids


class Sampler:
    """One answer's sampler.

    draws_drafts: whether drafts are drawn from the head's distribution, not its best guesses.
                  Without, every choice costs one random number, so that a seed gives the same text
                  however many of its tokens were drafted. With, random numbers go to drafts and
                  their verification too.
    n_before:     how many of the ids before a row it looks at, to penalise them; 0 for none
    piece:        a token's bytes, control tokens by their spelling: DRY looks for texts in them
    """

    def __init__(
        self, sampling: Sampling, *, draws_drafts: bool = False, piece: Piece | None = None
    ) -> None:
        self.is_greedy = sampling.is_greedy
        self.draws_drafts = draws_drafts and not self.is_greedy
        self._target = sampling.truncation()
        self._drafts = sampling.truncation(TUNING.draws.sharpness)
        self._penalties, self._dry = sampling.penalties, sampling.dry(piece)
        self.n_before = max(self._penalties.n_before, self._dry.n_before)
        self._rng = np.random.default_rng(sampling.seed)

    def choose(self, logits: Floats, before: Sequence[int] = ()) -> int:
        """The token the model gives for one row of logits, (n_vocab,) float32.

        before: the ids that the row follows, `n_before` of them or more where there are as many
        """
        if self.is_greedy:
            with self._penalised(logits, before):
                return int(logits.argmax())
        with self._penalised(logits, before):
            return self._target.token_at(logits, self.random())

    def candidates(self, logits: Floats, before: Sequence[int] = ()) -> Candidates:
        """The truncated distribution that `choose` draws from."""
        with self._penalised(logits, before):
            return self._target.of(logits)

    def propose(
        self,
        logits: Floats,
        ids: Ids | None,
        before: Sequence[int],
        commit: Callable[[float], bool],
        prob: float | None = None,
    ) -> Proposal:
        """What to draft from a drafter's row, (n,) float32 with n <= n_vocab.

        The best id; or a draw, penalised and truncated like the target's, where `draws_drafts` and
        the id is sure to be verified.

        ids:    the target's id of each place, see `Propose`
        before: the ids that the row follows, drafted ones included, as for `choose`
        commit: whether the id will be verified whatever it is; told the best one's probability
        prob:   that the drafter gives in its place, see `Propose`
        """
        with self._penalised(logits, before, ids):
            best = likeliest(logits, ids, prob=prob)
            # From a row with NaN nothing can be drawn: a bad guess, and no error.
            if not (self.draws_drafts and best.prob > 0 and commit(best.prob)):
                return best
            q = self._drafts.of(logits)
        index = int(q.ids[q.index_at(self.random())])
        return Proposal(index, best.prob, q if ids is None else q.renamed(ids))

    def verify_block(
        self,
        draft: Sequence[int],
        drawn: Mapping[int, Candidates],
        rows: Sequence[tuple[Floats, Sequence[int]]],
        is_end: Callable[[int], bool],
    ) -> list[int]:
        """What the target makes of a drawn draft: the accepted ids, and one of its own.

        drawn: see `Draft`
        rows:  the target's logits at the newest id and at each drafted one, and what they follow
        """
        draft = up_to_end(draft, is_end)
        if self.n_before == 0:
            points = self._rng.random(len(draft) + 1)
            found = self._target.verify_block(
                draft, drawn, [logits for logits, _ in rows[: len(draft) + 1]], points
            )
            if found is not None:
                n_accepted, following = found
                accepted = [*draft[:n_accepted]]
                return accepted if accepted and is_end(accepted[-1]) else [*accepted, following]
        return verify_block(
            draft, drawn, rows, lambda row: self.candidates(*row), self.random, is_end
        )

    def _penalised(
        self, logits: Floats, before: Sequence[int], ids: Ids | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside, the row is a penalised one; after it, what it was."""
        if self._dry.n_before:
            return self._penalised_twice(logits, before, ids)
        return self._penalties.on(logits, before, ids)

    @contextlib.contextmanager
    def _penalised_twice(
        self, logits: Floats, before: Sequence[int], ids: Ids | None
    ) -> Iterator[None]:
        with self._penalties.on(logits, before, ids), self._dry.on(logits, before, ids):
            yield

    def random(self) -> float:
        """The next random number, uniform in [0, 1)."""
        return self._rng.random()
