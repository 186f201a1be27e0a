"""All that is asked: each request with its kind, its check and how long an answer may be."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.answers.checks import Check, passes, says
from benchmarks.answers.facts import FACTS
from benchmarks.answers.instructions import INSTRUCTIONS
from benchmarks.answers.programs import PROGRAMS

KINDS = ("fact", "program", "instruction")
_MAX_TOKENS = {"fact": 48, "program": 200, "instruction": 64}


@dataclass(frozen=True)
class Item:
    kind: str
    request: str
    is_right: Check

    @property
    def max_tokens(self) -> int:
        return _MAX_TOKENS[self.kind]


ITEMS: tuple[Item, ...] = (
    *(Item("fact", request, says(*accepted.split("|"))) for request, accepted in FACTS),
    *(Item("program", request, passes(assertion)) for request, assertion in PROGRAMS),
    *(Item("instruction", request, check) for request, check in INSTRUCTIONS),
)
