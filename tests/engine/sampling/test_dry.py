"""DRY, beside llama.cpp's own sampler with the built-in model's vocabulary."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.sampling.dry import Dry
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import Floats
from mtp_cli.models import built_in_model

DEFAULTS = Sampling(dry_multiplier=0.8)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.open(built_in_model(), None, n_ctx=256) as opened:
        yield opened


def dry(engine: Engine, **options: object) -> Dry:
    sampling = Sampling(**{"dry_multiplier": 0.8, **options})  # type: ignore[arg-type]
    return sampling.dry(lambda token: engine.piece(token, special=True))


def llama_cpp(engine: Engine, by: Dry, logits: Floats, before: Sequence[int]) -> Floats:
    """A row as `llama_sampler_init_dry` leaves it, shown the ids one by one."""
    breakers = (ctypes.c_char_p * len(by.breakers))(*by.breakers)
    sampler = lib.llama_sampler_init_dry(
        engine._model.vocab,
        *(by.multiplier, by.base, by.allowed_length, by.last_n, breakers, len(by.breakers)),
    )
    for token in before:
        lib.llama_sampler_accept(sampler, token)
    data = (lib.llama_token_data * len(logits))()
    for token, logit in enumerate(logits.tolist()):
        data[token].id, data[token].logit = token, logit
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(sampler, ctypes.byref(array))
    lib.llama_sampler_free(sampler)
    return np.array([entry.logit for entry in data], np.float32)


def row(engine: Engine) -> Floats:
    n = engine.n_vocab
    return (4 * np.random.default_rng(3).standard_normal(n)).astype(np.float32)


TEXTS = [
    "",
    "the cat sat on the mat and the cat sat on the",
    "one two three four one two three four one two three",
    "He said: one two three\none two three",  # a newline between the two
    'say "one two three" and "one two three',
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa a a a a a a a a a a a a a a",
    "a: b c d e. a: b c d e. a: b c d",
]
OPTIONS: list[dict[str, object]] = [
    {},
    {"dry_allowed_length": 1},
    {"dry_allowed_length": 4, "dry_base": 3.0},
    {"dry_allowed_length": 0, "dry_base": 1.0},
    {"dry_penalty_last_n": 7},
    {"dry_sequence_breakers": ()},
    {"dry_sequence_breakers": ("three",)},
    {"dry_base": 1.2, "dry_multiplier": 2.5, "dry_penalty_last_n": 500},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_row_is_penalised_as_llama_cpp_does(engine: Engine, options: dict[str, object]) -> None:
    by, changed = dry(engine, **options), 0
    for text in TEXTS:
        before = engine.tokenize(text, add_special=False, parse_special=False)
        logits = row(engine)
        expected = llama_cpp(engine, by, logits, before)
        with by.on(logits, before):
            np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
        changed += int(np.sum(expected != row(engine)))
        assert np.array_equal(logits, row(engine))
    assert changed > 0


def test_random_texts_of_few_words(engine: Engine) -> None:
    rng = np.random.default_rng(8)
    words = engine.tokenize("a b c : d", add_special=False, parse_special=False)
    by = dry(engine, dry_allowed_length=1)
    for _ in range(60):
        before = rng.choice(words, size=int(rng.integers(0, 80))).tolist()
        logits = row(engine)
        expected = llama_cpp(engine, by, logits, before)
        with by.on(logits, before):
            np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)


def test_it_looks_at_a_heads_ids_by_the_targets_names() -> None:
    by = Sampling(dry_multiplier=1.0, dry_allowed_length=1).dry(lambda token: b"x")
    ids = np.array([2, 5, 9], np.int32)
    logits = np.zeros(3, np.float32)
    with by.on(logits, [5, 9, 5], ids):
        assert logits.tolist() == [0, 0, -1]
    with by.on(logits, [5, 7, 5], ids):  # the head has no 7
        assert logits.tolist() == [0, 0, 0]


def test_off_it_costs_nothing_and_looks_at_nothing() -> None:
    assert Sampler(Sampling()).n_before == 0
    assert Sampler(DEFAULTS).n_before == 64
    assert Sampler(Sampling(dry_multiplier=0.8, dry_penalty_last_n=0)).n_before == 0


def test_drafting_changes_no_answer_that_it_penalises(engine: Engine) -> None:
    prompt = engine.tokenize("List: one, two, one, two,", add_special=True, parse_special=False)
    sampling = Sampling(temperature=0.0, dry_multiplier=2.0)
    answers = [
        engine.generate(prompt, sampling, max_tokens=48, depth=depth) for depth in (0, "auto")
    ]
    texts = []
    for answer in answers:
        for _ in answer:
            pass
        texts.append(list(answer.tokens))
    assert texts[0] == texts[1]
