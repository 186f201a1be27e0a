"""Drafted answers that keep to a grammar are the plain ones: the real loop over real contexts.

`sampling/test_distribution.py` looks at how often sampled ones come; `benchmarks/schemas.py` does
the same at length on the built-in model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from benchmarks.schema_tasks import TASKS
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Generation, Sampling
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth, Seconds
from mtp_cli.engine.drafters import Draft
from mtp_cli.engine.grammar.source import Grammar, gbnf, json_schema
from mtp_cli.engine.types import Depth
from mtp_cli.models import built_in_heads, built_in_model
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.engine.depth.machines import TABLES
from tests.engine.scripted import GREEDY, Whim, finish
from tests.engine.test_lossless import HEADED, PENALISED

PROMPT = tiny.random_ids(24, seed=31)
SEEDED = Sampling(temperature=0.7, top_k=20, seed=5)
SHORT = {"type": "string", "maxLength": 6}
PEOPLE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": SHORT,
            "mood": {"enum": ["glad", "sad"]},
            "age": {"type": "integer"},
        },
        "required": ["name", "mood", "age"],
        "additionalProperties": False,
    },
    "minItems": 2,
    "maxItems": 2,
}
GRAMMARS: dict[str, Callable[[], Grammar]] = {
    "schema": lambda: json_schema(PEOPLE),
    "any JSON": lambda: json_schema({}),
    "GBNF": lambda: gbnf('root ::= "this is " ("a " | "the ")* [a-z]+ ", and that is all"'),
}


@pytest.fixture(scope="module", params=HEADED)
def headed(request: pytest.FixtureRequest, tiny_file: Files) -> Iterator[Engine]:
    """An engine over a tiny random model with heads."""
    target, heads = HEADED[request.param]
    beside = None if heads is None else tiny_file(heads)
    with Engine.open(tiny_file(target), beside, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        yield engine


@pytest.fixture(scope="module")
def built_in() -> Iterator[Engine]:
    with Engine.open(built_in_model(), built_in_heads(), n_ctx=1024, n_threads=1) as engine:
        yield engine


def answered(
    engine: Engine,
    prompt: Sequence[int],
    sampling: Sampling,
    grammar: Grammar,
    depth: Depth | DepthPolicy,
    *,
    exact: bool = False,
    max_tokens: int = 60,
) -> Generation:
    answer = engine.generate(
        prompt,
        sampling,
        max_tokens=max_tokens,
        depth=depth,
        exact=exact,
        constraint=engine.constrain(grammar),
    )
    finish(answer)
    return answer


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seed", "penal"])
@pytest.mark.parametrize("name", GRAMMARS)
def test_random_models_with_heads_under_any_policy(
    headed: Engine, name: str, sampling: Sampling
) -> None:
    grammar = GRAMMARS[name]()
    plain = answered(headed, PROMPT, sampling, grammar, 0)
    depths: list[Depth | DepthPolicy] = [1, 4, "auto", "auto", Whim(0), Whim(1)]
    for depth in depths:
        drafted = answered(headed, PROMPT, sampling, grammar, depth)
        assert drafted.tokens == plain.tokens, f"depth {depth}"
        assert drafted.finish_reason == plain.finish_reason
    drafted = answered(headed, PROMPT, sampling, grammar, "auto", exact=True)
    assert drafted.tokens == plain.tokens


def test_random_models_keep_to_it(headed: Engine) -> None:
    drawn = dataclasses.replace(SEEDED, seed=None, temperature=1.5)
    said = ""
    for _ in range(3):
        answer = answered(headed, PROMPT, drawn, GRAMMARS["schema"](), "auto", max_tokens=400)
        assert answer.finish_reason == "stop"
        said = b"".join(map(headed.piece, answer.tokens)).decode()
        assert [set(person) for person in json.loads(said)] == [{"name", "mood", "age"}] * 2
    assert said.startswith('[{"name": "')


class Noting:
    """A policy that notes what it has verified, and what was chosen."""

    def __init__(self, policy: DepthPolicy) -> None:
        self.begin, self.keep_going, self.commit = policy.begin, policy.keep_going, policy.commit
        self._policy = policy
        self.verified: list[list[int]] = []
        self.chosen: list[Sequence[int]] = []

    def choose(self, draft: Draft) -> list[int]:
        self.verified.append(self._policy.choose(draft))
        return self.verified[-1]

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        self.chosen.append(chosen)
        self._policy.observe(chosen, seconds)


def test_no_draft_breaks_the_grammar(headed: Engine) -> None:
    """Once costs are known; while they are learned, rows that no draft asks for are timed."""
    grammar = GRAMMARS["schema"]()
    for policy in (FixedDepth(3), ExpectedValue(CostModel(TABLES["wide BF16"]))):
        noting = Noting(policy)
        answer = answered(headed, PROMPT, GREEDY, grammar, noting)
        assert any(noting.verified)
        constraint = headed.constrain(grammar)
        constraint.accept(answer.tokens[:1])
        for verified, chosen in zip(noting.verified, noting.chosen, strict=True):
            assert constraint.n_fitting(verified) == len(verified)
            constraint.accept(chosen)


@pytest.mark.parametrize("name", ["extraction", "tool call"])
def test_the_built_in_model(built_in: Engine, name: str) -> None:
    task = TASKS[name]
    prompt = prompt_ids(built_in, task.request, system="Answer in JSON.")
    grammar = json_schema(task.schema)
    built_in.costs()
    for sampling in (GREEDY, dataclasses.replace(SEEDED, temperature=0.8)):
        plain = answered(built_in, prompt, sampling, grammar, 0, max_tokens=160)
        for depth in (3, "auto"):
            drafted = answered(built_in, prompt, sampling, grammar, depth, max_tokens=160)
            assert drafted.tokens == plain.tokens, f"depth {depth}"
        assert drafted.stats.rounds < plain.stats.rounds
        text = b"".join(map(built_in.piece, plain.tokens)).decode()
        assert list(json.loads(text)) == task.schema["required"]
        assert not any(map(built_in.is_eog, plain.tokens))


def test_an_answer_cut_in_the_middle(built_in: Engine) -> None:
    prompt = prompt_ids(built_in, TASKS["extraction"].request)
    grammar = json_schema(TASKS["extraction"].schema)
    whole = answered(built_in, prompt, GREEDY, grammar, 0, max_tokens=160)
    for n in (1, 2, 5, 17):
        for depth in (0, "auto"):
            cut = answered(built_in, prompt, GREEDY, grammar, depth, max_tokens=n)
            assert cut.tokens == whole.tokens[:n]
            assert cut.finish_reason == "length"
    last = answered(built_in, prompt, GREEDY, grammar, "auto", max_tokens=len(whole.tokens))
    assert last.finish_reason == "stop"
    begun = b"".join(map(built_in.piece, whole.tokens[:17]))
    more = built_in.generate(
        [*prompt, *whole.tokens[:17]],
        GREEDY,
        max_tokens=160,
        constraint=built_in.constrain(grammar, begun),
    )
    assert finish(more) == whole.tokens[17:]
