"""Verifies drafts. Knows nothing of text or llama.cpp.

Both rules give exactly the target's own distribution, and the greedy choice where that is all it
has. Write p_i for the target's distribution after x_1 .. x_{i-1} (penalised and truncated, as it is
sampled from) and q_i for the one that x_i was drawn from.

*Token match*, for drafts without draws. The target chooses row by row, until its choice is not the
drafted token. The choices never look at the draft, so the draft may be made in any way, and as much
of it be verified as anyone likes for whatever reason: under a seed, the text is plain decoding's.

*Block verification* (Sun et al. 2024, arXiv:2403.10444), for drafts with draws; a token that was
not drawn has q_i(x_i) = 1. The rejection rule of Leviathan et al. (2023, arXiv:2211.17192) and Chen
et al. (2023, arXiv:2302.01318) keeps each x_i with min(1, p_i(x_i) / q_i(x_i)); here a surplus
p / q > 1 makes up for a shortage after it:

    M_0 = 1,  M_i = min(1, M_{i-1} p_i(x_i) / q_i(x_i))
    S_i = sum over x of max(0, M_i p_{i+1}(x) - q_{i+1}(x))

Of n drafted tokens the first i are kept with probability h_i = S_i / (S_i + 1 - M_i) (h_n = M_n),
each i by itself; the most that are kept are accepted, i of them, and the next token comes from
max(0, M_i p_{i+1} - q_{i+1}), normalised, or after all n from p_{n+1}. For n = 1 this is the
rejection rule. `native/logits.cpp` has the same for the usual rows: who changes one changes both.

*Why it is exact.* Backwards from n, P(accepted >= i | x_1 .. x_i) = M_i: it is so at n, and before,
P(accepted > i | x_1 .. x_i) = sum over x of min(M_i p_{i+1}, q_{i+1}) = M_i - S_i, hence
P(accepted >= i | x_1 .. x_i) = M_i - S_i + (1 - M_i + S_i) h_i = M_i. So a text y_1 .. y_{i+1} has
the mass m_{i+1} = q(y_1 .. y_{i+1}) M_{i+1} from drafts accepted that far, and from the residual
m_i p_{i+1}(y_{i+1}) - m_{i+1}: together m_i p_{i+1}(y_{i+1}), the target's share of m_i.

*Penalties* change nothing in this. Each p_i has to be a function of x_1 .. x_{i-1} and of what was
before the draft, and so it is when its row is penalised for the last ids before position i, the
drafted x_1 .. x_{i-1} among them, whatever may follow. Without those p_i would be the distribution
of another text. The same goes for the choices of token match. That q_i is penalised likewise makes
it more like p_i, so that more is accepted; nothing rests on it.

*What may decide n.* The step from i + 1 back to i sums over all x that q_{i+1} could have given. So
whether x_{i+1} is verified may depend on x_1 .. x_i, on q_{i+1} as a whole and on all that was
before; not on x_{i+1}, nor on anything drafted after it. Else the drawn tokens that are verified
are a selection, no longer distributed like q ("verify it if the head was sure of it" gives too few
of the unlikely ones). Hence a token is drawn only when its verification is certain already, and the
first `Draft.n_committed` must be verified. A token that was not drawn is a function of those before
it: the draft may end before it for any reason, unless a drawn one follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from mtp_cli.engine.sampling.candidates import Candidates, point_mass

Row = TypeVar("Row")


def verify_by_match(
    draft: Sequence[int],
    rows: Iterable[Row],
    choose: Callable[[Row], int],
    is_end: Callable[[int], bool],
) -> list[int]:
    """The target's tokens: the accepted part of `draft`, then one of its own; none after an end.

    rows: the target's outputs at the newest id and at each drafted one, len(draft) + 1 of them;
          rows after the first rejected token follow a text that is not the target's and are
          never looked at
    """
    chosen = []
    for position, row in enumerate(rows):
        chosen.append(choose(row))
        if position == len(draft) or chosen[-1] != draft[position] or is_end(chosen[-1]):
            break
    return chosen


def verify_block(
    draft: Sequence[int],
    drawn: Mapping[int, Candidates],
    rows: Sequence[Row],
    candidates: Callable[[Row], Candidates],
    random: Callable[[], float],
    is_end: Callable[[int], bool],
) -> list[int]:
    """As `verify_by_match`, where the ids at the positions in `drawn` are draws.

    candidates: a row's distribution, p; called for no row after a token that p cannot give
    random:     uniform in [0, 1)
    """
    draft = up_to_end(draft, is_end)
    kept, p = 1.0, candidates(rows[0])  # M_i and p_{i+1}
    n_accepted, last = 0, p
    for position, token in enumerate(draft):
        q = drawn.get(position) or point_mass(token)
        excess = p.excess_over(q, kept)
        surplus = float(excess.sum())
        if position == 0 or random() * (surplus + 1 - kept) < surplus:
            n_accepted, last = position, p.reweighted(excess)
        kept = min(kept * p.prob_of(token) / q.prob_of(token), 1.0)  # NaN keeps nothing
        if kept == 0:
            break
        p = candidates(rows[position + 1])
    if draft and random() < kept:
        n_accepted, last = len(draft), p
    accepted = list(draft[:n_accepted])
    if accepted and is_end(accepted[-1]):
        return accepted
    return [*accepted, last.token_at(random())]


def up_to_end(draft: Sequence[int], is_end: Callable[[int], bool]) -> Sequence[int]:
    """The draft until an end: whether it goes on is known before what it goes on with is drawn."""
    for position, token in enumerate(draft):
        if is_end(token):
            return draft[: position + 1]
    return draft
