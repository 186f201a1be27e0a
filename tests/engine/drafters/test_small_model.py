"""A small model beside the target drafts what it would say after the text that the target holds.

What it remembers is held to a model that reads the same text afresh, whatever was drafted,
rejected or taken back before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.small_model import (
    N_BATCH,
    N_FIRST,
    N_LAST,
    SmallModelDrafter,
)
from mtp_cli.engine.drafters.vocabulary_map import VocabularyMap, mapped
from mtp_cli.engine.types import MAX_DEPTH, Depth, HiddenSource
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.conftest import Files, Models
from tests.engine.drafters.lasting import check_lasting
from tests.engine.scripted import GREEDY, finish

TEXT = tiny.random_ids(1200, seed=3)
N_LONG = N_FIRST + N_LAST + 100  # more than it reads of a text it has not seen

NewDrafter = Callable[..., SmallModelDrafter]


@pytest.fixture
def new_drafter(tiny_model: Models) -> Iterator[NewDrafter]:
    drafters = []

    def make(n_ctx: int = 2048, ids: VocabularyMap | None = None) -> SmallModelDrafter:
        context = Context(
            tiny_model("llama"),
            n_ctx=n_ctx,
            n_batch=N_BATCH,
            n_outputs=1,
            n_threads=1,
            hidden=HiddenSource.NONE,
        )
        drafters.append(SmallModelDrafter(context, ids))
        return drafters[-1]

    yield make
    for drafter in drafters:
        drafter.close()


def greedy(tiny_model: Models, text: Sequence[int], n: int) -> list[int]:
    """What the model itself says next, read afresh."""
    context = Context(
        tiny_model("llama"),
        n_ctx=2048,
        n_batch=2048,
        n_outputs=1,
        n_threads=1,
        hidden=HiddenSource.NONE,
    )
    said: list[int] = []
    while len(said) < n:
        ids = [*text, *said]
        context.clear()
        context.decode(ids, 0, first_output=len(ids) - 1)
        said.append(int(context.logits()[0].argmax()))
    context.close()
    return said


@pytest.mark.parametrize("n_text", [1, 20, N_FIRST + N_LAST])
def test_it_says_what_the_model_says(
    new_drafter: NewDrafter, tiny_model: Models, n_text: int
) -> None:
    drafter = new_drafter()
    drafter.observe(TEXT[:n_text], 0, None)
    draft = drafter.draft(TEXT[n_text], 4)
    assert draft.ids == greedy(tiny_model, TEXT[: n_text + 1], 4)
    assert all(0 < p <= 1 for p in draft.probs)


def test_of_a_long_text_it_reads_the_beginning_and_the_end(
    new_drafter: NewDrafter, tiny_model: Models
) -> None:
    drafter = new_drafter()
    drafter.observe(TEXT[:N_LONG], 0, None)
    assert drafter.n_waiting == N_FIRST + N_LAST
    draft = drafter.draft(TEXT[N_LONG], 3)
    read = [*TEXT[:N_FIRST], *TEXT[N_LONG - N_LAST : N_LONG + 1]]
    assert draft.ids == greedy(tiny_model, read, 3)
    assert draft.ids != greedy(tiny_model, TEXT[: N_LONG + 1], 3), "the middle tells nothing here"


def test_what_was_drafted_and_accepted_is_not_read_again(new_drafter: NewDrafter) -> None:
    drafter = new_drafter()
    drafter.observe(TEXT[:10], 0, None)
    newest = TEXT[10]
    draft = drafter.draft(newest, 4)
    drafter.observe([newest, *draft.ids[:3]], 10, None)
    assert drafter.n_waiting == 0
    wrong = (draft.ids[3] + 1) % tiny.N_VOCAB
    drafter.draft(wrong, 1)
    drafter.observe([wrong, 7, 8], 14, None)
    assert drafter.n_waiting == 2


@pytest.mark.parametrize("seed", range(6))
def test_after_any_history_it_is_as_good_as_new(
    new_drafter: NewDrafter, tiny_model: Models, seed: int
) -> None:
    """Drafts at random, of which some stand; texts that are cut and go on otherwise."""
    random, drafter = Random(seed), new_drafter()
    text: list[int] = []
    for _ in range(25):
        new = [random.randrange(tiny.N_VOCAB) for _ in range(random.randint(1, 9))]
        drafter.observe(new, len(text), None)
        text += new
        draft = drafter.draft(random.choice(text), random.randint(0, MAX_DEPTH))
        if draft.ids and random.random() < 0.6:
            stands = draft.ids[: random.randint(0, len(draft.ids))]
            drafter.observe(stands, len(text), None)
            text += stands
        if random.random() < 0.3:
            n_past = random.randint(1, len(text))
            drafter.truncate(n_past)
            del text[n_past:]
    assert drafter.draft(5, 3).ids == greedy(tiny_model, [*text, 5], 3)


@pytest.mark.parametrize("n_past", [0, 2, N_FIRST, N_FIRST + 50, N_LONG - N_LAST + 9, N_LONG])
def test_a_long_text_can_be_cut_anywhere(
    new_drafter: NewDrafter, tiny_model: Models, n_past: int
) -> None:
    drafter = new_drafter()
    drafter.observe(TEXT[:N_LONG], 0, None)
    drafter.draft(TEXT[N_LONG], 2)
    drafter.truncate(n_past)
    other = TEXT[900:920]
    drafter.observe(other, n_past, None)
    n_left_out = N_LONG - N_LAST - N_FIRST
    read = [*TEXT[:n_past], *other]
    if n_past >= N_FIRST + n_left_out:
        del read[N_FIRST : N_FIRST + n_left_out]
    assert drafter.draft(9, 2).ids == greedy(tiny_model, [*read, 9], 2)


def test_a_full_context_goes_on_with_less(new_drafter: NewDrafter) -> None:
    n_ctx = 512
    drafter = new_drafter(n_ctx=n_ctx)
    drafter.observe(TEXT[:N_LAST], 0, None)
    for position in range(N_LAST, n_ctx + 200):
        assert len(drafter.draft(TEXT[position], 2).ids) == 2
        drafter.observe([TEXT[position]], position, None)


def test_ids_go_by_their_spelling(new_drafter: NewDrafter, tiny_model: Models) -> None:
    """The target's vocabulary is the small model's, turned round, with one token more."""
    small = tiny_model("llama").spellings()
    target = [*reversed(small), b"<|more|>"]
    ids = mapped(target, small)
    assert ids is not None
    assert ids.share == pytest.approx(1 - 1 / len(target))

    def turned(text: Sequence[int]) -> list[int]:
        return [len(small) - 1 - i for i in text]

    drafter = new_drafter(ids=ids)
    drafter.observe(turned(TEXT[:20]), 0, None)
    assert drafter.draft(turned(TEXT[20:21])[0], 3).ids == turned(greedy(tiny_model, TEXT[:21], 3))
    drafter.observe([len(target) - 1], 20, None)  # only the target has it: read as its beginning
    assert drafter.draft(turned(TEXT[21:22])[0], 1).ids == turned(
        greedy(tiny_model, [*TEXT[:20], small.index(b"<"), TEXT[21]], 1)
    )


def test_a_spelling_that_two_ids_have_stays_where_it_is() -> None:
    ids = VocabularyMap([b"a", b"b", b"b", b"c"], [b"x", b"b", b"b", b"a"])
    assert [ids.to_small(i) for i in range(4)] == [3, 1, 2, 0]
    assert ids.row(np.array([0, 1, 2, 3], np.float32)).tolist() == [3, 1, 2, -np.inf]


def test_one_vocabulary_needs_no_map() -> None:
    assert mapped([b"a", b"b"], [b"a", b"b"]) is None


@pytest.mark.parametrize("depth", [1, 4, 8, "auto"])
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=0.9, seed=5)], ids=["greedy", "seeded"]
)
def test_answers_are_plain_decodings(tiny_file: Files, depth: Depth, sampling: Sampling) -> None:
    target, small = tiny_file("llama-q8_0"), tiny_file("llama")
    with Engine.open(target, draft_model=small, n_ctx=256, n_threads=1, n_gpu_layers=0) as engine:
        assert engine.drafter == "llama.gguf, a model that drafts"
        plain = engine.generate(TEXT[:30], sampling, max_tokens=60, depth=0)
        drafted = engine.generate(TEXT[:30], sampling, max_tokens=60, depth=depth)
        expected, found = finish(plain), finish(drafted)
        assert found == expected
        if depth != "auto":
            assert sum(drafted.stats.accepted) > 0


def test_what_drafting_costs_is_learned(tiny_file: Files) -> None:
    with Engine.open(
        tiny_file("llama-q8_0"), draft_model=tiny_file("llama"), n_ctx=512, n_threads=1
    ) as engine:
        assert 0 < engine.costs().step_s() < np.inf


REFUSED = {
    "heads": ("heads", "these are heads, and no model of its own; give them with --heads"),
    "recurrent": ("qwen35", "a recurrent model cannot take back what was not accepted"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_draft_is_refused(tiny_file: Files, kind: str) -> None:
    name, message = REFUSED[kind]
    with pytest.raises(MtpError, match=message) as caught:
        Engine.open(tiny_file("llama"), draft_model=tiny_file(name), n_ctx=256, n_threads=1)
    assert str(tiny_file(name)) in str(caught.value)


def test_another_vocabulary_is_refused(tiny_file: Files, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    spec = tiny.llama()
    tokens = list(tiny.TOKENS)
    tokens[20:60] = [f"other{i}" for i in range(40)]
    spec.keys["tokenizer.ggml.tokens"] = tokens
    spec.write(path)
    with pytest.raises(MtpError, match=r"has 84% of the tokens of llama\.gguf; take a smaller"):
        Engine.open(tiny_file("llama"), draft_model=path, n_ctx=256, n_threads=1)


def test_it_is_taken_up_as_it_was_put_away(new_drafter: NewDrafter) -> None:
    drafter = new_drafter()
    drafter.observe(TEXT[:N_LONG], 0, None)
    drafter.draft(TEXT[N_LONG], 2)
    drafter.observe(TEXT[N_LONG : N_LONG + 2], N_LONG, None)

    def go_on() -> list[Draft]:
        drafts = [drafter.draft(TEXT[N_LONG + 2], 3)]
        drafter.observe(TEXT[N_LONG + 2 : N_LONG + 4], N_LONG + 2, None)
        return [*drafts, drafter.draft(TEXT[N_LONG + 4], 3)]

    check_lasting(drafter, go_on)
