"""The loop: draft, verify, accept, emit.

Owns the order of events in one answer, and its statistics. Knows nothing of text, of llama.cpp or
of how a drafter drafts: tests run it on scripted targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from mtp_cli.engine.depth.policy import DepthPolicy, Seconds
from mtp_cli.engine.drafters.base import Draft, Drafter
from mtp_cli.engine.drafters.forced import forced_first
from mtp_cli.engine.drafters.ngram import Match, NgramDrafter
from mtp_cli.engine.grammar.constraint import Constraint, Unconstrained
from mtp_cli.engine.prefix import n_common
from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.proposals import Proposal
from mtp_cli.engine.sampling.truncation import best
from mtp_cli.engine.sampling.verify import verify_by_match
from mtp_cli.engine.stats import Stats
from mtp_cli.engine.types import FinishReason, Floats, Ids, Proposer, Row, Rows, TargetLike
from mtp_cli.errors import MtpError

Watch = Callable[[int, Floats], None]


class SamplerLike(Protocol):
    """What the loop needs of a sampler; `mtp_cli.engine.sampling.sampler.Sampler` is the real one.

    It keeps no text: the loop says of each row what it follows, `n_before` ids or more.
    """

    n_before: int

    def choose(self, logits: Floats, before: Sequence[int]) -> int: ...
    def propose(
        self,
        logits: Floats,
        ids: Ids | None,
        before: Sequence[int],
        commit: Callable[[float], bool],
        prob: float | None = None,
    ) -> Proposal: ...
    def verify_block(
        self,
        draft: Sequence[int],
        drawn: Mapping[int, Candidates],
        rows: Sequence[Row],
        is_end: Callable[[int], bool],
    ) -> list[int]: ...


class Generation:
    """One answer, as an iterator over its rounds; each item is the ids a round made final.

    It ends after a token that `is_end` knows (counted in `tokens`, last in the last round), where
    the constraint lets nothing else follow (without such a token), after `max_tokens` (0: before it
    began, with the prompt unread), when the context is full, or after `stop()`. The target then
    holds the prompt and the answer but its last token, whatever the reason.

    proposers:    who proposed each of `tokens`
    policy:       who decides how far to draft, and learns from it
    on_read:      told how many ids were in memory before, once target and drafter hold the prompt
                  but its last id
    constraint:   what may be said, None for anything
    single_row_s: what a plain round after so many tokens takes here, None while that is unknown
    watch:        told each token of the answer before it is given out, and the row of logits that
                  it was chosen from, which is another one afterwards
    """

    def __init__(
        self,
        target: TargetLike,
        drafter: Drafter,
        sampler: SamplerLike,
        policy: DepthPolicy,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        is_end: Callable[[int], bool],
        ngram: NgramDrafter | None = None,
        on_read: Callable[[int], None] | None = None,
        constraint: Constraint | None = None,
        single_row_s: Callable[[int], float | None] = lambda n_past: None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tokens: list[int] = []
        self.proposers: list[Proposer] = []
        self.stats = Stats(prompt_tokens=len(prompt))
        self.finish_reason: FinishReason = "interrupted"
        self.policy = policy
        self._target = target
        self._drafter = drafter
        self._sampler = sampler
        self._prompt = list(prompt)
        self._max_tokens = max_tokens
        self._is_end = is_end
        self._ngram = NgramDrafter(is_alone=drafter.max_depth == 0) if ngram is None else ngram
        self._on_read = on_read
        self._constraint = Unconstrained() if constraint is None else constraint
        self._single_row_s = single_row_s
        self._watch = watch
        self._clock = clock
        self._is_stopped = False
        self._unshown: tuple[Sequence[int], int, Floats | None] | None = None
        self._rounds = self._run()

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return self._rounds

    def __next__(self) -> tuple[int, ...]:
        return next(self._rounds)

    @property
    def n_read(self) -> int:
        """How much of the prompt the timeline holds by now, for who waits in another thread."""
        return min(len(self._target.ids), len(self._prompt))

    def stop(self) -> None:
        """End after the round in progress; safe to call from a signal handler."""
        self._is_stopped = True

    def _run(self) -> Iterator[tuple[int, ...]]:
        if self._max_tokens <= 0:
            self.finish_reason = "length"
            return
        first = self._prefill()
        if first is None:
            return
        self.proposers.append("target")
        yield self._emit([first])
        started = self._clock()
        if self._unshown is not None:
            self._drafter.observe(*self._unshown)
        while not self._is_over():
            chosen = self._round()
            round_s = self._clock() - started
            self.stats.decode_s += round_s
            self._compare(len(chosen), round_s)
            yield self._emit(chosen)
            started = self._clock()

    def _prefill(self) -> int | None:
        """Decode the part of the prompt that is not cached; the first token, unless stopped."""
        started = self._clock()
        if not self._prompt:
            raise MtpError("the prompt is empty")
        if len(self._prompt) >= self._target.n_ctx:
            raise MtpError(
                f"the prompt has {len(self._prompt)} tokens and the context {self._target.n_ctx}: "
                f"no room for an answer"
            )
        n_past = self._reuse_prefix()
        new = self._prompt[n_past:]
        rows = self._read(new, n_past)
        if rows is None:
            return None
        self._ngram.observe(self._prompt[self._ngram.n_past :])
        self._constraint.read(self._prompt)
        row = self._row(len(self._prompt) - 1, rows.logits[-1])
        self._constraint.restrict(row.logits, ())
        first = self._choose(row)
        self._constraint.accept([first])
        self._show([first], [row])
        self.stats.cached_tokens = n_past
        self.stats.prefill_s = self._clock() - started
        return first

    def _read(self, new: list[int], n_past: int) -> Rows | None:
        """Decode these ids, and show them to the drafter, or keep them for that; None once
        stopped."""
        n_window, n_shown, tell = self._drafter.n_window, 0, self._on_read

        def on_read(hidden: Floats | None) -> None:
            nonlocal n_shown
            n_shown = len(new) - 1
            self._drafter.observe(new[:n_shown], n_past, hidden)
            assert tell is not None
            tell(n_past)

        rows = self._target.prefill(
            new, n_window, lambda: self._is_stopped, None if tell is None else on_read
        )
        if rows is not None:
            shown = new[n_shown:], n_past + n_shown, rows.hidden
            # What reads a window of the prompt would delay the first token. It takes gaps, so that
            # an answer that is dropped there does no harm; others need every id.
            if n_window > 1:
                self._unshown = shown
            else:
                self._drafter.observe(*shown)
        return rows

    def _reuse_prefix(self) -> int:
        """Keep the common prefix of timeline and prompt; the last row is always decoded anew."""
        ids, prompt = self._target.ids, self._prompt
        n_past = self._target.truncate(n_common(ids, prompt[:-1]))
        self._drafter.truncate(n_past)
        self._ngram.truncate(n_past)
        return n_past

    def _round(self) -> list[int]:
        newest, n_past, room = self.tokens[-1], len(self._target.ids), self._room()
        started = self._clock()
        match = forced_first(self._constraint, self._ngram.match(newest, room), room)
        depth = self.policy.begin(room, n_past, self._drafter.n_waiting, match)
        draft = self._draft(newest, depth)
        verified = self.policy.choose(draft)
        decided = self._clock()
        rows = self._target.decode([newest, *verified])
        places = [self._row(*place) for place in enumerate(rows.logits, n_past)]
        chosen = self._accept(draft, verified, places)
        chosen = chosen[: self._constraint.accept(chosen)]
        self._show(chosen, places)
        self._keep(n_past, [newest, *chosen[:-1]], rows)
        took = decided - started, self._clock() - decided
        self.policy.observe(chosen, Seconds(*took, lambda: best(rows.logits[0])[1]))
        self.proposers += _proposers(match, draft, verified, chosen)
        # Nothing of the target's own comes after a drafted end.
        is_over = self._is_end(chosen[-1]) or self._constraint.is_complete
        is_end_drafted = is_over and chosen == verified[: len(chosen)]
        self.stats.count_round(len(verified), len(chosen) - (not is_end_drafted))
        return chosen

    def _draft(self, newest: int, depth: int) -> Draft:
        """What the heads propose, as far as it may come."""

        def keep_going(draft: Draft) -> bool:
            return self._n_fitting(draft) == len(draft.ids) and self.policy.keep_going(draft)

        draft = self._drafter.draft(newest, depth, keep_going, self._propose)
        draft.cut(self._n_fitting(draft))
        return draft

    def _n_fitting(self, draft: Draft) -> int:
        return self._constraint.n_fitting(draft.ids)

    def _propose(
        self,
        logits: Floats,
        ids: Ids | None,
        drafted: Sequence[int],
        prob: float | None = None,
    ) -> Proposal:
        self._constraint.restrict(logits, drafted, ids)
        n = self._sampler.n_before
        before = [*self._target.ids[-n:], self.tokens[-1], *drafted] if n else []
        return self._sampler.propose(logits, ids, before, self.policy.commit, prob)

    def _restricted(self, rows: Sequence[Row], verified: Sequence[int]) -> Iterator[Row]:
        """The rows to choose from, one by one: those after a rejected id follow no such text."""
        for n_before, row in enumerate(rows):
            self._constraint.restrict(row.logits, verified[:n_before])
            yield row

    def _row(self, position: int, logits: Floats) -> Row:
        ids, end = self._target.ids, position + 1
        return Row(logits, ids[max(0, end - self._sampler.n_before) : end])

    def _choose(self, row: Row) -> int:
        return self._sampler.choose(row.logits, row.before)

    def _accept(self, draft: Draft, verified: Sequence[int], rows: Sequence[Row]) -> list[int]:
        """What the target makes of the ids verified: the accepted ones, and one of its own."""
        n_committed = draft.n_committed
        if n_committed == 0:
            restricted = self._restricted(rows, verified)
            return verify_by_match(verified, restricted, self._choose, self._is_end)
        if list(verified[:n_committed]) != draft.ids[:n_committed]:
            raise ValueError("the depth policy dropped a drawn id that it had committed itself to")
        all_restricted = [*self._restricted(rows, verified)]
        return self._sampler.verify_block(verified, draft.drawn, all_restricted, self._is_end)

    def _show(self, chosen: Sequence[int], rows: Sequence[Row]) -> None:
        """Each token beside the row that it was chosen from."""
        if self._watch is not None:
            for token, row in zip(chosen, rows, strict=False):
                self._watch(token, row.logits)

    def _keep(self, n_past: int, ids: list[int], rows: Rows) -> None:
        """Of the rows just decoded, keep those of `ids`, and show them to the drafters."""
        hidden = None if rows.hidden is None else rows.hidden[: len(ids)]
        self._drafter.observe(ids, n_past, hidden)
        self._ngram.observe(ids)
        if self._target.truncate(n_past + len(ids)) == 0:
            raise MtpError("the model's memory could not drop a rejected draft")

    def _room(self) -> int:
        """How many ids can be drafted before the answer or the context is full."""
        in_answer = self._max_tokens - len(self.tokens) - 1
        in_context = self._target.n_ctx - len(self._target.ids) - 1
        return max(0, min(in_answer, in_context))

    def _emit(self, chosen: list[int]) -> tuple[int, ...]:
        """Make a round's tokens final."""
        if self._is_end(chosen[-1]) or self._constraint.is_complete:
            self.finish_reason = "stop"
            self._is_stopped = True
        self.tokens.extend(chosen)
        self.stats.completion_tokens = len(self.tokens)
        return tuple(chosen)

    def _compare(self, n_tokens: int, round_s: float) -> None:
        """Set against a round the plain ones that would have given as much, as costs are now."""
        row_s = self._single_row_s(len(self._target.ids))
        if row_s is not None:
            self.stats.plain_s += n_tokens * row_s
            self.stats.compared_s += round_s

    def _is_over(self) -> bool:
        if self._is_stopped:
            return True
        is_full = len(self._target.ids) >= self._target.n_ctx
        if is_full or len(self.tokens) >= self._max_tokens:
            self.finish_reason = "length"
            return True
        return False


def _proposers(
    match: Match, draft: Draft, verified: Sequence[int], chosen: Sequence[int]
) -> Iterator[Proposer]:
    """Whose each of a round's tokens is: what was verified, and neither forced nor drafted, is a
    copy."""
    n_accepted, n_drafted = n_common(verified, chosen), n_common(draft.ids, chosen)
    for position in range(len(chosen)):
        if position >= n_accepted:
            yield "target"
        elif match.is_forced(position):
            yield "grammar"
        else:
            yield "drafter" if position < n_drafted else "copy"
