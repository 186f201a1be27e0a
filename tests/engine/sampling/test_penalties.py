"""Penalties, against llama.cpp's own sampler of them: on one row, and in a text that is drafted.

Here texts are greedy. How often sampled ones come is `test_penalised_distribution.py`'s, and
`test_lossless.py` runs real contexts.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.drafters import Drafter, NoDrafter
from mtp_cli.engine.sampling.penalties import Penalties
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import Floats, Ids
from tests.engine.sampling.test_sampler import reference
from tests.engine.scripted import (
    N_VOCAB,
    SKILLS,
    ScriptedDrafter,
    ScriptedTarget,
    StubbornDrafter,
    TableDrafter,
    finish,
    new_generation,
)

N_ROW = 300
OFF = (
    Penalties(64, 1.0, 0.0, 0.0),
    Penalties(0, 1.5, 0.5, 0.5),
    Penalties(-1, 1.5, 0.5, 0.5),
)
EACH = {
    "repeat": Penalties(64, 1.3, 0.0, 0.0),
    "reward": Penalties(64, 0.7, -0.2, -0.1),
    "freq": Penalties(64, 1.0, 0.4, 0.0),
    "present": Penalties(64, 1.0, 0.0, 0.6),
    "all": Penalties(20, 1.2, 0.3, 0.5),
    "the last": Penalties(1, 1.9, 0.3, 0.5),
    "most": Penalties(10**6, 1.05, 0.01, 1.5),
}


def llama_cpp(penalties: Penalties, logits: Floats, before: Sequence[int]) -> Floats:
    """A row as `llama_sampler_init_penalties` leaves it, shown the ids one by one."""
    given = penalties.last_n, penalties.repeat, penalties.freq, penalties.present
    sampler = lib.llama_sampler_init_penalties(len(logits), *given)
    for token in before:
        lib.llama_sampler_accept(sampler, token)
    data = (lib.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit = token, logit
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(sampler, ctypes.byref(array))
    lib.llama_sampler_free(sampler)
    return np.array([entry.logit for entry in data], np.float32)


def row(seed: int, n: int = N_ROW) -> Floats:
    logits = (4 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)
    logits[[3, 5]] = 0.0, -np.inf
    return logits


def text(n: int) -> list[int]:
    """With repetitions, and the special places of `row`."""
    return [3, 5, 3, *np.random.default_rng(n).integers(0, 12, n).tolist()] if n else []


@pytest.mark.parametrize("n_before", [0, 7, 90])
@pytest.mark.parametrize("name", EACH)
def test_a_row_is_penalised_as_llama_cpp_does(name: str, n_before: int) -> None:
    logits, before = row(1), text(n_before)
    expected = llama_cpp(EACH[name], logits, before)
    with EACH[name].on(logits, before):
        np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert np.any(expected != row(1)) == bool(before)
    assert np.array_equal(logits, row(1))


def test_a_row_is_what_it_was_even_after_an_error() -> None:
    logits = row(2)
    with pytest.raises(KeyboardInterrupt), EACH["all"].on(logits, text(9)):
        raise KeyboardInterrupt
    assert np.array_equal(logits, row(2))


@pytest.mark.parametrize("penalties", OFF)
def test_penalties_that_are_off_look_at_nothing(penalties: Penalties) -> None:
    assert penalties.n_before == 0
    logits = row(3)
    logits.flags.writeable = False
    with penalties.on(logits, text(9)):
        assert np.array_equal(logits, llama_cpp(penalties, logits, text(9)))


@pytest.mark.parametrize("ids", [[0, 1, 3, 5, 8, 299], [2, 7, 250], [0], [299]])
def test_a_trimmed_row_is_penalised_by_the_targets_ids(ids: list[int]) -> None:
    names = np.array(ids, np.int32)
    expected = llama_cpp(EACH["all"], row(4), text(30))[names]
    trimmed = row(4)[names]
    with EACH["all"].on(trimmed, text(30), names):
        np.testing.assert_allclose(trimmed, expected, rtol=1e-6)
    assert np.array_equal(trimmed, row(4)[names])


def strong(sampling: Sampling) -> Sampling:
    return Sampling(
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        seed=6,
        penalty_last_n=9,
        penalty_repeat=1.4,
        penalty_freq=0.8,
        penalty_present=0.5,
    )


@pytest.mark.parametrize("top_k", [0, 5, 40])
def test_penalties_come_before_the_truncation(top_k: int) -> None:
    """So an id can leave the top k for another one, or join it."""
    sampling = strong(Sampling(0.9, top_k, 0.95, 0.02))
    for seed in range(5):
        logits = row(seed, 1500)
        before = np.argsort(-logits)[:7].tolist() * 2
        expected = reference(llama_cpp(sampling.penalties, logits, before), sampling)
        found = Sampler(sampling).candidates(logits, before)
        assert set(found.ids.tolist()) == set(expected)
        for token, probability in zip(found.ids.tolist(), found.probs, strict=True):
            assert probability == pytest.approx(expected[token], rel=1e-4)
        plain = Sampler(sampling).candidates(logits)
        assert set(found.ids.tolist()) != set(plain.ids.tolist())


# A text that is drafted

# Every id is likely to come again at once, and a few ids to come next.
TABLE = (2 * np.random.default_rng(81).standard_normal((N_VOCAB, N_VOCAB))).astype(np.float32)
TABLE += 8 * np.eye(N_VOCAB, dtype=np.float32)
GREEDY = strong(Sampling(temperature=0))
PROMPT = [5, 6, 7, 5, 6]
N_TOKENS = 60


def next_logits(ids: Sequence[int]) -> Floats:
    row: Floats = TABLE[ids[-1]]
    return row


def greedy(prompt: Sequence[int], penalties: Penalties, n: int = N_TOKENS) -> list[int]:
    """What follows the prompt, by llama.cpp's penalties."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(llama_cpp(penalties, next_logits(ids), ids).argmax()))
    return ids[len(prompt) :]


def generated(
    new_drafter: Callable[[ScriptedTarget], Drafter],
    depth: int,
    target: ScriptedTarget | None = None,
    prompt: Sequence[int] = PROMPT,
) -> tuple[list[int], list[int], list[int]]:
    """The greedy text; how often each place of a draft was verified, and accepted."""
    target = target or ScriptedTarget(next_logits=next_logits)
    generation = new_generation(
        target,
        new_drafter(target),
        prompt,
        depth=depth,
        max_tokens=N_TOKENS,
        sampler=Sampler(GREEDY),
    )
    return finish(generation), generation.stats.verified, generation.stats.accepted


def test_the_text_depends_on_the_ids_just_before() -> None:
    text = greedy(PROMPT, GREEDY.penalties)
    assert len(set(greedy(PROMPT, OFF[0]))) == 1
    assert len(set(text)) > 10
    assert any(a == b for a, b in itertools.pairwise(text))


@pytest.mark.parametrize("skill", SKILLS)
def test_scripted_drafters_at_every_depth(skill: str) -> None:
    expected = greedy(PROMPT, GREEDY.penalties)
    assert generated(lambda target: NoDrafter(), 0)[0] == expected
    for depth in range(1, 9):
        found, _, accepted = generated(
            lambda target: ScriptedDrafter(target, PROMPT + expected, SKILLS[skill]()), depth
        )
        assert found == expected, f"depth {depth}"
        assert any(accepted) == (skill != "useless")


@pytest.mark.parametrize("depth", range(1, 9))
def test_a_drafter_that_repeats_itself(depth: int) -> None:
    """The row after k drafted ids counts them, right or wrong: each of these is penalised."""
    first = greedy(PROMPT, GREEDY.penalties)[1]
    found, _, accepted = generated(lambda target: StubbornDrafter(target, [first] * depth), depth)
    assert found == greedy(PROMPT, GREEDY.penalties)
    assert accepted[0] > 0


@pytest.mark.parametrize("depth", [1, 3, 8])
@pytest.mark.parametrize("ids", [None, range(0, N_VOCAB), range(1, N_VOCAB, 2)])
def test_heads_are_penalised_likewise(depth: int, ids: Sequence[int] | None) -> None:
    """Heads that say what the target says draft what it chooses, within what they can say."""
    names: Ids | None = None if ids is None else np.array(ids, np.int32)
    found, drafted, accepted = generated(lambda t: TableDrafter(t, TABLE, names), depth)
    assert found == greedy(PROMPT, GREEDY.penalties)
    if ids is None or len(ids) == N_VOCAB:
        assert accepted == drafted
    else:
        assert 0.2 < accepted[0] / drafted[0] < 1


def test_the_next_turn_counts_the_ids_it_need_not_decode() -> None:
    target = ScriptedTarget(next_logits=next_logits)
    expected = greedy(PROMPT, GREEDY.penalties)
    first, _, _ = generated(lambda t: TableDrafter(t, TABLE), 3, target)
    prompt = [*PROMPT, *first, 9]
    second, _, _ = generated(lambda t: TableDrafter(t, TABLE), 3, target, prompt)
    assert first == expected
    assert second == greedy(prompt, GREEDY.penalties)
