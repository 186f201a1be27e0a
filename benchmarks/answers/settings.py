"""What is compared: system prompts by name, and how tokens are chosen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from mtp_cli.engine import Sampling

BARE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
"""The turns of the built-in model's template without a system turn, which it never leaves out."""

SYSTEMS: dict[str, str | None] = {
    "template": None,  # "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "bare": None,
    "empty": "",
    "helpful": "You are a helpful assistant.",
    "helpful-ai": "You are a helpful AI assistant.",
    "smollm": "You are SmolLM, a helpful assistant.",
    "brief": "You are a helpful assistant. Answer briefly and correctly.",
    "answer": "Answer the question.",
    "correct": "Give short, correct answers.",
    "expert": "You are an expert. You answer questions correctly and follow instructions exactly.",
    "expert-brief": "You are an expert. Answer correctly and briefly. Follow instructions exactly.",
    "only-expert": "You are an expert.",
    "smollm-expert": "You are SmolLM, an expert. You answer questions correctly and follow "
    "instructions exactly.",
    "exact": "You are a helpful assistant. You answer questions correctly and follow instructions "
    "exactly.",
    "knowing": "You are a knowledgeable assistant. You give short, correct answers and follow "
    "instructions exactly.",
    "teacher": "You are a careful teacher who gives short, correct answers.",
}


@dataclass(frozen=True)
class Setting:
    """system: a name of SYSTEMS; the rest as in `Sampling`."""

    system: str
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    penalty_repeat: float

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def sampling(self, seed: int) -> Sampling:
        fields = asdict(self)
        del fields["system"]
        return Sampling(seed=seed, **fields)

    def __str__(self) -> str:
        penalty = f" repeat {self.penalty_repeat:g}" if self.penalty_repeat != 1 else ""
        if self.is_greedy:
            return f"{self.system}, greedy{penalty}"
        limits = f"k {self.top_k} p {self.top_p:g} min {self.min_p:g}"
        return f"{self.system}, {self.temperature:g} {limits}{penalty}"


def grid(
    systems: Sequence[str],
    temperatures: Sequence[float],
    top_ks: Sequence[int],
    top_ps: Sequence[float],
    min_ps: Sequence[float],
    penalties: Sequence[float],
) -> Iterator[Setting]:
    """Every combination, once: greedy answers do not ask how the others are limited."""
    seen = set()
    for system, temperature, *limits, penalty in itertools.product(
        systems, temperatures, top_ks, top_ps, min_ps, penalties
    ):
        top_k, top_p, min_p = limits if temperature else (0, 1.0, 0.0)
        setting = Setting(system, temperature, int(top_k), top_p, min_p, penalty)
        if setting not in seen:
            seen.add(setting)
            yield setting
