"""A scripted engine: the interface of `mtp_cli.engine.Engine`, with answers written by the test.

Its vocabulary is the 256 bytes, a few merges that its tokeniser prefers, and control tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from mtp_cli.conversation.session import Depth
from mtp_cli.engine import FinishReason, Sampling, Stats
from mtp_cli.engine.grammar.constrained import Constrained
from mtp_cli.engine.grammar.constraint import Constraint
from mtp_cli.engine.grammar.source import Grammar
from mtp_cli.engine.grammar.vocabulary import Vocabulary
from mtp_cli.engine.types import Proposer, TokenKind

BOS, START, END = 256, 257, 258
MERGED = 300  # "ab", which the tokeniser always merges, and an answer may spell as "a", "b"
CONTROL = {BOS: "<s>", START: "<|im_start|>", END: "<|im_end|>"}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Rounds = Sequence[Sequence[int]]


def said(text: str, *, end: bool = True) -> list[tuple[int, ...]]:
    """Rounds that say `text` one byte at a time, then end the turn."""
    rounds: list[tuple[int, ...]] = [(byte,) for byte in text.encode()]
    return [*rounds, (END,)] if end else rounds


class ScriptedGeneration:
    """Plays rounds; `after` runs before each of them, and may stop it."""

    def __init__(
        self, rounds: Rounds, stats: Stats, max_tokens: int, after: Callable[[], None]
    ) -> None:
        self.tokens: list[int] = []
        self.proposers: list[Proposer] = []
        self.finish_reason: FinishReason = "interrupted"
        self.stats = stats
        self._rounds = rounds
        self._max_tokens = max_tokens
        self._after = after
        self._is_stopped = False

    @property
    def n_read(self) -> int:
        return self.stats.prompt_tokens

    def stop(self) -> None:
        self._is_stopped = True

    def __iter__(self) -> Iterator[Sequence[int]]:
        for ids in self._rounds:
            if self._is_stopped:
                return
            room = self._max_tokens - len(self.tokens)
            if room <= 0:
                break
            kept = tuple(ids)[:room]
            self.tokens += kept
            self.proposers.extend("drafter" for _ in kept[1:])
            self.proposers.append("target")
            self.stats.completion_tokens = len(self.tokens)
            self.stats.count_round(2, min(1, len(kept) - 1))
            if kept[-1] == END:
                self.finish_reason = "stop"
            yield kept
            self._after()
        if self.finish_reason != "stop" and not self._is_stopped:
            self.finish_reason = "length"


class ScriptedEngine:
    """The engine's interface, answering from a script.

    prompts: the ids each answer was asked with; cached: how many of them the timeline held
    """

    def __init__(
        self,
        *answers: Rounds,
        n_ctx: int = 1000,
        template: str | None = CHATML,
        drafter: str | None = "a script",
    ) -> None:
        self.n_ctx = n_ctx
        self.n_vocab = MERGED + 1
        self.drafter = drafter
        self.metadata: Mapping[str, str] = {}
        if template is not None:
            self.metadata = {"tokenizer.chat_template": template}
        self.prompts: list[list[int]] = []
        self.cached: list[int] = []
        self.asked: list[tuple[Sampling, int, Depth]] = []
        self.plain_s = self.compared_s = 0.0  # nothing is known of plain decoding
        self.inexact: list[int] = []
        self.after_round: Callable[[], None] = lambda: None
        self.generation: ScriptedGeneration | None = None
        self.constraint: Constraint | None = None  # of the newest answer
        self._answers = list(answers)
        self._timeline: list[int] = []

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        ids = [BOS] if add_special else []
        while text:
            if parse_special:
                for token, spelling in CONTROL.items():
                    if text.startswith(spelling):
                        ids.append(token)
                        text = text[len(spelling) :]
                        break
                else:
                    text = self._eat(text, ids)
            else:
                text = self._eat(text, ids)
        return ids

    @staticmethod
    def _eat(text: str, ids: list[int]) -> str:
        if text.startswith("ab"):
            ids.append(MERGED)
            return text[2:]
        ids += text[0].encode()
        return text[1:]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token in CONTROL:
            return CONTROL[token].encode() if special else b""
        return b"ab" if token == MERGED else bytes([token])

    def is_eog(self, token: int) -> bool:
        return token == END

    def kind(self, token: int) -> TokenKind:
        return "control" if token in CONTROL else "text"

    def is_matched(self, token: int) -> bool:
        return token in CONTROL

    @property
    def first_token(self) -> int:
        return BOS

    def special_text(self, name: Literal["bos", "eos"]) -> str:
        return CONTROL[BOS if name == "bos" else END]

    def constrain(self, grammar: Grammar, begun: bytes = b"") -> Constraint:
        return Constrained(Vocabulary(self).matcher(grammar), Vocabulary(self), begun)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth = "auto",
        exact: bool = False,
        constraint: Constraint | None = None,
    ) -> ScriptedGeneration:
        n_cached = 0
        for old, new in zip(self._timeline, prompt[:-1], strict=False):
            if old != new:
                break
            n_cached += 1
        rounds = self._answers.pop(0)
        self.constraint = constraint
        self.prompts.append(list(prompt))
        self.cached.append(n_cached)
        self.asked.append((sampling, max_tokens, depth))
        self._timeline = [*prompt, *(token for ids in rounds for token in ids)]
        stats = Stats(prompt_tokens=len(prompt), cached_tokens=n_cached)
        stats.exact = exact
        stats.plain_s, stats.compared_s = self.plain_s, self.compared_s
        stats.inexact = self.inexact
        stats.prefill_s, stats.decode_s = 0.25, 0.5
        self.generation = ScriptedGeneration(rounds, stats, max_tokens, self.after_round)
        return self.generation
