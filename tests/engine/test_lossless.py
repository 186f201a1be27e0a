"""Drafted text is the plain text: the real loop over real contexts, whatever is drafted.

Greedy text is compared token for token, sampled text under the same seed; `test_distribution.py`
looks at how often it comes.
`benchmarks/lossless.py` does the same at length on SmolLM2 in Q4_0, Q4_1 and Q8_0.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters import NoDrafter
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import MAX_DEPTH, HiddenSource
from mtp_cli.models import built_in_heads, built_in_model
from tests.engine import tiny
from tests.engine.conftest import Files, Targets
from tests.engine.scripted import (
    GREEDY,
    SKILLS,
    ScriptedDrafter,
    Whim,
    finish,
    new_generation,
)

DEPTHS = range(1, MAX_DEPTH + 1)
KINDS = (
    "llama", "llama-q8_0", "llama-q4_0", "gemma2", "mimo2", "mamba", "jamba", "qwen3next",
    "qwen35", "lfm2", "lfm2-window",
)  # fmt: skip
PROMPT = tiny.random_ids(24, seed=31)
N_TOKENS = 40

# target, heads: in the model's file (chained, reused, reused with replay) and beside it
HEADED = {
    "chained": ("mimo2", None),
    "reused": ("qwen35", None),
    "reused-replayed": ("qwen3next", None),
    "beside": ("llama", "heads"),
    "beside-post-norm": ("llama", "heads-post"),
    "beside-trimmed": ("llama-q8_0", "heads-trimmed"),
}
PENALISED = Sampling(
    temperature=0,
    penalty_last_n=16,
    penalty_repeat=1.3,
    penalty_freq=0.5,
    penalty_present=0.5,
)
QUESTION = "<|im_start|>user\nName the colours of the sea.<|im_end|>\n<|im_start|>assistant\n"
Engines = Callable[[str], Engine]


@pytest.fixture(scope="module")
def headed(tiny_file: Files) -> Iterator[Engines]:
    """An engine over a tiny model with heads, by its name in HEADED."""
    engines: dict[str, Engine] = {}

    def open_(name: str) -> Engine:
        if name not in engines:
            target, heads = HEADED[name]
            beside = None if heads is None else tiny_file(heads)
            engines[name] = Engine.open(
                tiny_file(target), beside, n_ctx=512, n_threads=1, n_gpu_layers=0
            )
        return engines[name]

    yield open_
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize(
    ("skill", "sampling"), [*((skill, GREEDY) for skill in SKILLS), ("random", PENALISED)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_scripted_drafters_at_every_depth(
    new_target: Targets, kind: str, skill: str, sampling: Sampling
) -> None:
    sampler = Sampler(sampling)
    plain_target = new_target(kind)
    plain = finish(
        new_generation(
            plain_target, NoDrafter(), PROMPT, depth=0, max_tokens=N_TOKENS, sampler=sampler
        )
    )
    assert tiny.is_varied(plain)
    target = new_target(kind)
    for depth in DEPTHS:
        drafter = ScriptedDrafter(target, PROMPT + plain, SKILLS[skill]())
        target.truncate(0)
        drafted = new_generation(
            target, drafter, PROMPT, depth=depth, max_tokens=N_TOKENS, sampler=sampler
        )
        assert finish(drafted) == plain, f"depth {depth}"
        assert target.ids == PROMPT + plain[:-1]
        if skill == "perfect":
            assert drafted.stats.accepted == drafted.stats.verified
            assert drafted.stats.rounds == -(-(N_TOKENS - 1) // (depth + 1))
        assert any(drafted.stats.accepted) == (skill != "useless")


@pytest.mark.parametrize("name", HEADED)
def test_heads_at_every_depth(headed: Engines, name: str) -> None:
    engine = headed(name)
    assert engine.drafter is not None
    plain = finish(engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth=0))
    assert tiny.is_varied(plain)
    for depth in DEPTHS:
        drafted = engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth=depth)
        assert finish(drafted) == plain, f"depth {depth}"
        assert sum(drafted.stats.verified) > N_TOKENS / 2, "the heads did not draft"


@pytest.mark.parametrize("name", HEADED)
def test_a_conversation_goes_on_as_it_would_plainly(headed: Engines, name: str) -> None:
    """Turn after turn over one timeline: long new prompts, undone turns, depths that change."""
    engine = headed(name)

    def talk(depths: list[int]) -> list[int]:
        engine.generate(tiny.random_ids(2, seed=99), GREEDY, max_tokens=1, depth=0)
        text: list[int] = []
        for turn, depth in enumerate(depths):
            if turn == 3:
                del text[-30:]
            text += tiny.random_ids(5 + 45 * (turn % 2), seed=turn)
            text += finish(engine.generate(text, GREEDY, max_tokens=20, depth=depth))
        return text

    plain = talk([0] * 6)
    for depths in ([1] * 6, [4] * 6, [0, 3, 0, 0, 8, 2], [2, 0, 8, 0, 0, 3]):
        assert talk(depths) == plain, f"depths {depths}"


@pytest.mark.parametrize("name", HEADED)
def test_any_policy_gives_the_plain_text(headed: Engines, name: str) -> None:
    """The automatic one, and one that verifies anything: parts of drafts, copies, made-up ids."""
    engine = headed(name)
    plain = finish(engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth=0))
    assert finish(engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth="auto")) == plain
    for seed in range(6):
        whim = Whim(seed)
        drafted = engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth=whim)
        assert finish(drafted) == plain, f"seed {seed}"
        assert whim.n_verified > 0


SEEDED = Sampling(temperature=0.7, top_k=20, seed=5)


@pytest.mark.parametrize("name", HEADED)
def test_a_seed_gives_the_plain_text(headed: Engines, name: str) -> None:
    engine = headed(name)
    plain = finish(engine.generate(PROMPT, SEEDED, max_tokens=N_TOKENS, depth=0))
    other = dataclasses.replace(SEEDED, seed=6)
    assert finish(engine.generate(PROMPT, other, max_tokens=N_TOKENS, depth=4)) != plain
    assert finish(engine.generate(PROMPT, SEEDED, max_tokens=N_TOKENS, depth="auto")) == plain
    for depth in (1, 4, 8):
        for exact in (False, True):
            drafted = engine.generate(PROMPT, SEEDED, max_tokens=N_TOKENS, depth=depth, exact=exact)
            assert finish(drafted) == plain
    whim = engine.generate(PROMPT, SEEDED, max_tokens=N_TOKENS, depth=Whim(0))
    assert finish(whim) == plain


@pytest.mark.parametrize("name", HEADED)
def test_penalised_text_at_every_depth(headed: Engines, name: str) -> None:
    engine = headed(name)
    plain = finish(engine.generate(PROMPT, PENALISED, max_tokens=N_TOKENS, depth=0))
    assert plain != finish(engine.generate(PROMPT, GREEDY, max_tokens=N_TOKENS, depth=0))
    for depth in DEPTHS:
        drafted = engine.generate(PROMPT, PENALISED, max_tokens=N_TOKENS, depth=depth)
        assert finish(drafted) == plain, f"depth {depth}"
        assert sum(drafted.stats.verified) > N_TOKENS / 2, "the heads did not draft"


@pytest.mark.parametrize("name", HEADED)
def test_a_seed_gives_the_plain_penalised_text(headed: Engines, name: str) -> None:
    engine = headed(name)
    sampling = dataclasses.replace(PENALISED, temperature=0.7, seed=5)
    plain = finish(engine.generate(PROMPT, sampling, max_tokens=N_TOKENS, depth=0))
    assert finish(engine.generate(PROMPT, sampling, max_tokens=N_TOKENS, depth="auto")) == plain
    for seed in range(4):
        whim = Whim(seed)
        drafted = engine.generate(PROMPT, sampling, max_tokens=N_TOKENS, depth=whim)
        assert finish(drafted) == plain
        assert whim.n_verified > 0


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize("depth", [0, 4])
def test_without_a_seed_answers_differ(headed: Engines, name: str, depth: int) -> None:
    engine = headed(name)
    sampling = dataclasses.replace(SEEDED, seed=None)
    one, other = (
        finish(engine.generate(PROMPT, sampling, max_tokens=N_TOKENS, depth=depth))
        for _ in range(2)
    )
    assert one != other


def test_the_built_in_model_under_scripted_drafters() -> None:
    """SmolLM2 in Q4_1, and a prompt of more rows than small kernels take."""
    with contextlib.closing(Model(built_in_model())) as model:
        prompt = model.tokenize(QUESTION * 4, add_special=True, parse_special=True)
        sampler = Sampler(GREEDY)
        target = Target(model, n_ctx=256, n_threads=1, hidden=HiddenSource.EMBD)
        plain = new_generation(target, NoDrafter(), prompt, depth=0, max_tokens=24, sampler=sampler)
        text = [*prompt, *finish(plain)]
        assert tiny.is_varied(plain.tokens)
        for skill, is_right in SKILLS.items():
            target.truncate(0)
            drafter = ScriptedDrafter(target, text, is_right())
            drafted = new_generation(
                target, drafter, prompt, depth=5, max_tokens=24, sampler=sampler
            )
            assert [*prompt, *finish(drafted)] == text, skill
        target.close()


def test_the_built_in_model_and_its_heads() -> None:
    """Two turns at each depth; the benchmark does it at length."""
    with Engine.open(built_in_model(), built_in_heads(), n_ctx=256, n_threads=1) as engine:
        assert engine.drafter is not None
        prompt = engine.tokenize(QUESTION * 4, add_special=True, parse_special=True)

        def talk(depth: int) -> list[int]:
            first = finish(engine.generate(prompt, GREEDY, max_tokens=16, depth=depth))
            text = [*prompt, *first, *prompt[:40]]
            return text + finish(engine.generate(text, GREEDY, max_tokens=16, depth=depth))

        plain = talk(0)
        for depth in (3, 8):
            assert talk(depth) == plain, f"depth {depth}"
