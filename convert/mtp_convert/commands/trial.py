"""Heads tried out: text written by the model itself, drafted and verified on the way.

Owns what `check` and `trim` measure, and the words for it. The engine does the work; this module
knows nothing of files beyond passing their paths on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.engine import Engine, Sampling

GREEDY = Sampling(temperature=0.0)
DEPTH = 3
N_CTX = 512
NEAR_ZERO = 0.05  # random heads are right as often as 0.02 where a text goes round in circles
LOW = 0.2

# Beginnings of several kinds; a chat model takes them as plain text, which is enough to tell heads
# that were loaded rightly from others.
TEXTS = (
    "The capital of France is Paris. The capital of Italy is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Once upon a time there was a small village at the foot of a mountain. Every morning",
    "1, 2, 3, 4, 5, 6, 7, 8, 9,",
    "Dear Sir or Madam,\n\nI am writing to you because",
)


@dataclass(frozen=True)
class Trial:
    """What drafting over the texts gave; counts by draft position."""

    drafter: str | None
    verified: list[int]
    accepted: list[int]
    n_differing: int
    n_texts: int

    @property
    def acceptance(self) -> list[float]:
        """Of the drafts made at each position, the share accepted."""
        return [a / d if d else 0.0 for d, a in zip(self.verified, self.accepted, strict=True)]

    def lines(self, coarse: Sequence[str]) -> Iterator[str]:
        """A report; `coarse` names head tensors of fewer than eight bits."""
        yield f"drafter: {self.drafter}"
        for position, share in enumerate(self.acceptance):
            yield f"position {position + 1}: {share:.3f} of {self.verified[position]} accepted"
        same = self.n_texts - self.n_differing
        yield f"drafted greedy output equals plain output: {same} of {self.n_texts} texts"
        first = self.acceptance[0] if self.acceptance else 0.0
        if first < NEAR_ZERO:
            yield "warning: next to nothing is accepted; these heads look mis-loaded or untrained"
        if first < LOW and coarse:
            yield (
                f"warning: little is accepted and {coarse[0]} has fewer than eight bits; "
                "quantization may have damaged these heads (try --head-outtype q8_0)"
            )


def try_heads(model: Path, heads: Path | None, n_tokens: int = 48) -> Trial:
    """Draft and verify over the built-in texts, and decode them plainly for comparison."""
    verified, accepted = [0] * DEPTH, [0] * DEPTH
    n_differing = 0
    with Engine.open(model, heads, n_ctx=N_CTX, n_gpu_layers=0) as engine:
        prompts = [prompt_ids(engine, text) for text in TEXTS]
        for prompt in prompts:
            run = engine.generate(prompt, GREEDY, max_tokens=n_tokens, depth=DEPTH)
            for _ in run:
                pass
            plain = engine.generate(prompt, GREEDY, max_tokens=n_tokens, depth=0)
            for _ in plain:
                pass
            n_differing += plain.tokens != run.tokens
            for position, (d, a) in enumerate(
                zip(run.stats.verified, run.stats.accepted, strict=True)
            ):
                verified[position] += d
                accepted[position] += a
        return Trial(engine.drafter, verified, accepted, n_differing, len(TEXTS))


def prompt_ids(engine: Engine, text: str) -> list[int]:
    """The text's ids; where the file has no vocabulary, ids of its bytes' values."""
    if engine.metadata.get("tokenizer.ggml.model") == "no_vocab":
        return [byte % engine.n_vocab for byte in text.encode()]
    return engine.tokenize(text, add_special=True, parse_special=False)


def written_by(
    model: Path, n_tokens: int, progress: Callable[[int, int], None], seed: int = 1
) -> Iterator[list[int]]:
    """About n_tokens ids of text that the model writes at temperature 1; progress(done, all)."""
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    n_done, round_ = 0, 0
    with Engine.open(model, n_ctx=N_CTX, n_gpu_layers=0) as engine:
        while n_done < n_tokens:
            prompt = prompt_ids(engine, TEXTS[round_ % len(TEXTS)])
            each = Sampling(**{**vars(sampling), "seed": seed + round_})
            run = engine.generate(prompt, each, max_tokens=N_CTX // 2, depth=0)
            for _ in run:
                pass
            yield run.tokens
            n_done += max(1, len(run.tokens))
            round_ += 1
            progress(min(n_done, n_tokens), n_tokens)


def ids_of_text(model: Path, texts: Sequence[str]) -> list[list[int]]:
    with Engine.open(model, n_ctx=N_CTX, n_gpu_layers=0) as engine:
        return [prompt_ids(engine, text) for text in texts]


def ends_of_text(model: Path) -> list[int]:
    """The ids that end an answer: every draft vocabulary keeps them."""
    with Engine.open(model, n_ctx=N_CTX, n_gpu_layers=0) as engine:
        return [i for i in range(engine.n_vocab) if engine.is_eog(i)]
