"""How often a head agrees with the target on held-out greedy answers, without running the loop.

Teacher-forced agreement counts every position; the replayed loop walks an answer as the engine
does (draft, accept the agreeing prefix, one more token from the target) and counts only the
positions where a draft would start. The replay is exact up to the quantization of the file.
"""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mtp_cli.head_file import DraftVocabulary
from mtp_train.corpus import Role, Sample, make_batch, pieces_of
from mtp_train.head import Head
from mtp_train.precision import autocast
from mtp_train.tables import Tables


@dataclass(frozen=True)
class Agreement:
    """Lists by draft position. `forced`: right given that the positions before were right, over
    all positions; `loop`: accepted of those drafted whose predecessors were accepted."""

    forced: list[float]
    loop: list[float]
    tokens_per_round: float

    def __str__(self) -> str:
        forced = " ".join(f"{x:.3f}" for x in self.forced)
        loop = " ".join(f"{x:.3f}" for x in self.loop)
        return f"forced {forced} | loop {loop} | tokens/round {self.tokens_per_round:.3f}"


def replay(right: npt.NDArray[np.bool_], drafted: npt.NDArray[np.int64]) -> list[int]:
    """Walk one answer. right: (depth, n), whether step k+1 predicted the token after index i.
    Adds to drafted[k] each round that reaches position k; returns the accepted count by round."""
    depth, n = right.shape
    rounds, start = [], 0
    while start < n:
        reach = min(depth, n - start)
        accepted = 0
        while accepted < reach and right[accepted, start + accepted]:
            accepted += 1
        drafted[: min(accepted + 1, reach)] += 1
        rounds.append(accepted)
        start += accepted + 1
    return rounds


@torch.no_grad()
def agreement(
    head: Head,
    samples: Sequence[Sample],
    vocabulary: DraftVocabulary,
    depth: int = 3,
    tables: Tables | None = None,
) -> Agreement:
    """Of the head, drafting `depth` tokens a round.

    tables: the target's, where the head drafts in ids that only the text holds, too
    """
    depth = min(depth, head.max_depth or depth)
    hits, counts = np.zeros(depth), np.zeros(depth)
    accepted, drafted = np.zeros(depth), np.zeros(depth, np.int64)
    n_tokens = n_rounds = 0
    pieces = [piece for s in samples for piece in pieces_of(s, head.shape.prompt_rows)]
    for piece in sorted(pieces, key=len):
        for right in _rights(head, piece, vocabulary, depth, tables):
            n = right.shape[1]
            for k in range(min(depth, n)):
                # Index i of row k stands for a chain that started at i - k.
                chains = [right[j, j : n - k + j] for j in range(k + 1)]
                reached = np.logical_and.reduce([np.ones(n - k, bool), *chains[:-1]])
                counts[k] += reached.sum()
                hits[k] += (reached & chains[-1]).sum()
            rounds = replay(right, drafted)
            n_rounds += len(rounds)
            n_tokens += n
            accepted += [sum(at > k for at in rounds) for k in range(depth)]
    return Agreement(
        list(hits / counts.clip(1)),
        list(accepted / drafted.clip(1)),
        n_tokens / max(n_rounds, 1),
    )


def _rights(
    head: Head,
    piece: Sample,
    vocabulary: DraftVocabulary,
    depth: int,
    tables: Tables | None,
) -> list[npt.NDArray[np.bool_]]:
    """Of each greedy answer in a piece (depth, n): whether draft step k+1 was right there."""
    batch = make_batch([piece], vocabulary, adopts=tables is not None)
    at = np.flatnonzero((batch.weights[0] > 0) & (batch.roles[0] == Role.GREEDY))
    if not len(at):
        return []
    device = head.output.device
    drafted = np.concatenate([vocabulary.draft_ids, batch.adopted]).astype(np.int64)
    target_ids = torch.from_numpy(drafted).to(device)
    tokens = torch.from_numpy(batch.tokens).to(device)
    before = torch.from_numpy(batch.before).to(device).float()
    with autocast(device):
        embedded = None if tables is None else tables.embeddings(batch, device)
        outs = head.unroll(tokens, before, depth, embedded)
        guesses = []
        for k, out in enumerate(outs):
            logits = head.logits(out[0, at], k)
            if tables is not None and len(batch.adopted):
                more = head.normed(out[0, at], k) @ tables.output_rows(batch, device).T
                # A chain knows what the text held where it started.
                known = torch.from_numpy(batch.known[0] <= at[:, None] - k).to(device)
                logits = torch.cat((logits, more.masked_fill(~known, -torch.inf)), -1)
            guesses.append(target_ids[logits.argmax(-1)].cpu().numpy())
    right = np.stack([guess == batch.nexts[0, at] for guess in guesses])
    return np.split(right, np.flatnonzero(np.diff(at) > 1) + 1, 1)
