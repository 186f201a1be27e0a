"""The corpus: what is held out, what a batch holds, which ids a head drafts in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from mtp_train import prompts
from mtp_train.corpus import (
    OUTSIDE_WEIGHT,
    Corpus,
    Role,
    Sample,
    choose_vocabulary,
    coverage,
    epoch_pieces,
    is_held_out,
    make_batch,
    n_tokens_in,
    pieces_of,
    read_corpus,
    write_shard,
)

N_VOCAB, N_EMBD = 50, 4
TARGET, OTHER = "a" * 64, "b" * 64
OPENING = 1


def conversation(rng: np.random.Generator, n_answer: int = 12) -> Sample:
    """Opening and system, opening and request, opening and answer, as a chat template has it."""
    request = rng.integers(10, N_VOCAB, 4)
    prompt = [OPENING, 3, OPENING, *request, OPENING, 8]
    answer = rng.integers(10, 30, n_answer)
    ids = np.array([*prompt, *answer], np.int32)
    roles = np.array([Role.GIVEN] * len(prompt) + [Role.GREEDY] * n_answer, np.uint8)
    return Sample(ids, roles, rng.standard_normal((len(ids), N_EMBD)).astype(np.float16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    samples = [conversation(rng) for _ in range(300)]
    again = [Sample(s.ids, s.roles, s.rows) for s in samples[:50]]  # the same prompts once more
    for number, part in enumerate((samples, again)):
        write_shard(tmp_path / f"shard-{number}.npz", TARGET, part, [{} for _ in part])
    return tmp_path


def prompts_of(samples: list[Sample]) -> set[bytes]:
    return {sample.prompt for sample in samples}


def test_held_out_prompts_are_never_trained_on(folder: Path) -> None:
    corpus = read_corpus(folder, TARGET)
    assert corpus.held_out
    assert not prompts_of(corpus.training) & prompts_of(corpus.held_out)
    assert all(is_held_out(sample.prompt) for sample in corpus.held_out)
    assert len(corpus.training) + len(corpus.held_out) == 350


def test_excluded_prompts_are_left_out_altogether(folder: Path) -> None:
    banned = read_corpus(folder, TARGET).training[0].prompt
    corpus = read_corpus(folder, TARGET, [banned])
    assert banned not in prompts_of(corpus.training) | prompts_of(corpus.held_out)


def test_the_system_message_does_not_make_another_prompt() -> None:
    sample = conversation(np.random.default_rng(1))
    ids = np.insert(sample.ids, 1, [4, 5]).astype(np.int32)
    other = Sample(ids, np.insert(sample.roles, 1, [0, 0]), np.zeros((len(ids), N_EMBD), "f2"))
    assert other.prompt == sample.prompt


def test_shards_read_back_as_written(folder: Path) -> None:
    assert n_tokens_in(folder, TARGET) == 350 * 21
    rng = np.random.default_rng(0)
    first = conversation(rng)
    read = read_corpus(folder, TARGET)
    found = [s for s in read.training + read.held_out if s.prompt == first.prompt]
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].ids, first.ids)
    np.testing.assert_array_equal(found[0].rows, first.rows)


def test_an_empty_folder_names_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="mtp-train generate"):
        read_corpus(tmp_path, TARGET)


@pytest.mark.parametrize("read", [read_corpus, n_tokens_in])
def test_a_shard_of_another_target_is_refused(
    folder: Path, read: Callable[[Path, str], object]
) -> None:
    """Rows of the same width from another model would be learned from without a word."""
    with pytest.raises(MtpError, match=r"shard-0.npz: another model wrote it; use another --fol"):
        read(folder, OTHER)
    mixed = folder / "shard-2.npz"
    write_shard(mixed, OTHER, [conversation(np.random.default_rng(7))], [{}])
    with pytest.raises(MtpError, match=r"shard-2.npz: another model"):
        read(folder, TARGET)


@pytest.mark.parametrize("read", [read_corpus, n_tokens_in])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_shard_that_is_cut_off_is_named(
    folder: Path, read: Callable[[Path, str], object], share: float
) -> None:
    path = folder / "shard-1.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(MtpError, match=r"shard-1.npz: not a whole shard; delete it, and write"):
        read(folder, TARGET)


def test_a_shard_that_cannot_be_read_is_not_called_damaged(folder: Path) -> None:
    path = folder / "shard-1.npz"
    path.unlink()
    path.mkdir()
    with pytest.raises(MtpError, match=r"shard-1.npz: cannot be read: Is a directory$"):
        n_tokens_in(folder, TARGET)


@pytest.mark.parametrize("read", [read_corpus, n_tokens_in])
def test_a_shard_that_does_not_say_who_wrote_it_is_refused(
    folder: Path, read: Callable[[Path, str], object]
) -> None:
    path = folder / "shard-1.npz"
    with np.load(path) as shard:
        arrays = {name: shard[name] for name in shard if name != "target"}
    np.savez(path, **arrays)
    with pytest.raises(MtpError, match=r"shard-1.npz: does not say which model wrote it"):
        read(folder, TARGET)


def test_a_batch_pairs_each_token_with_the_row_before_it() -> None:
    sample = conversation(np.random.default_rng(2))
    embeddings = np.random.default_rng(3).standard_normal((N_VOCAB, 8)).astype(np.float32)
    vocabulary = choose_vocabulary([sample], 20, embeddings)
    (piece,) = pieces_of(sample, prompt_rows=1)
    assert piece.roles.tolist() == [Role.GIVEN] + [Role.GREEDY] * 12
    batch = make_batch([piece], vocabulary)
    at = 3
    assert vocabulary.draft_ids[batch.tokens[0, at]] == piece.ids[at + 1]
    np.testing.assert_array_equal(batch.before[0, at], piece.rows[at])
    np.testing.assert_array_equal(batch.rows[0, at], piece.rows[at + 1])
    assert batch.nexts[0, at] == piece.ids[at + 2]
    assert batch.weights.sum() == len(piece) - 2


def test_ids_that_a_text_holds_are_read_and_drafted_from_there_on() -> None:
    """Ids 0 to 9 are drafted; the others get places of their own, each text its own times."""
    given, greedy = Role.GIVEN, Role.GREEDY
    texts = [[1, 30, 2, 3, 30, 40, 4, 40, 41], [40, 5, 6, 7, 30, 8, 41, 9, 1]]
    roles = np.array([given] * 3 + [greedy] * 6, np.uint8)
    rows = np.zeros((9, N_EMBD), np.float16)
    samples = [Sample(np.array(ids, np.int32), roles, rows) for ids in texts]
    surrogates = np.where(np.arange(50) < 10, np.arange(50), 0).astype(np.int32)
    vocabulary = DraftVocabulary(np.arange(10, dtype=np.int32), surrogates)
    batch = make_batch(samples, vocabulary, adopts=True)
    assert batch.adopted.tolist() == [30, 40, 41]
    assert batch.tokens.tolist() == [[10, 2, 3, 10, 11, 4, 11], [5, 6, 7, 10, 8, 12, 9]]
    # Index i reads the token i + 1: what stands first is known from the start.
    assert batch.known.tolist() == [[0, 4, 7], [3, 0, 5]]
    outside = OUTSIDE_WEIGHT  # not held yet where it comes: 40 in the first text, 41 in both
    assert batch.weights.tolist() == [
        [0, 0, 1, outside, 1, 1, outside],
        [0, 0, outside, 1, outside, 1, 1],
    ]
    without = make_batch(samples, vocabulary)
    assert len(without.adopted) == 0
    assert without.tokens.tolist() == [[0, 2, 3, 0, 0, 4, 0], [5, 6, 7, 0, 8, 0, 9]]
    assert without.weights[0].tolist() == [0, 0, outside, outside, 1, outside, outside]


def talk(*parts: tuple[Role, int]) -> Sample:
    """A conversation of so many tokens from each."""
    roles = np.concatenate([np.full(n, role, np.uint8) for role, n in parts])
    ids = np.arange(len(roles), dtype=np.int32)
    rows = np.repeat(ids[:, None], N_EMBD, 1).astype(np.float16)
    return Sample(ids, roles, rows, (rows + 100, rows + 200))


def test_an_answer_comes_with_the_rows_of_the_prompt_that_the_head_reads() -> None:
    given, greedy = Role.GIVEN, Role.GREEDY
    sample = talk((given, 30), (greedy, 10), (given, 20), (greedy, 3), (given, 20), (greedy, 9))
    spans = {n: [p.ids[[0, -1]].tolist() for p in pieces_of(sample, n)] for n in (1, 8, 50, 500)}
    assert spans == {
        1: [[29, 39], [82, 91]],
        8: [[22, 39], [75, 91]],
        50: [[0, 91]],  # the second's rows reach into the first answer
        500: [[0, 91]],
    }


def test_a_head_that_fuses_reads_the_layers_side_by_side() -> None:
    sample = talk((Role.GIVEN, 3), (Role.GREEDY, 6))
    vocabulary = choose_vocabulary([sample], N_VOCAB, np.eye(N_VOCAB, dtype=np.float32))
    (piece,) = pieces_of(sample, prompt_rows=2)
    batch = make_batch([piece], vocabulary)
    assert batch.before.shape == (1, 6, 2 * N_EMBD)
    assert batch.before[0, 0].tolist() == [101] * N_EMBD + [201] * N_EMBD
    assert batch.rows[0, 0].tolist() == [2] * N_EMBD
    assert batch.weights[0].tolist() == [0, 1, 1, 1, 1, 1]


def test_a_head_that_reads_final_rows_too_reads_none_of_a_prompt() -> None:
    """But for the last one, which chooses the answer's first token."""
    sample = talk((Role.GIVEN, 3), (Role.GREEDY, 6), (Role.GIVEN, 2), (Role.GREEDY, 5))
    both = replace(sample, with_final=True)
    (piece,), (sample_piece,) = pieces_of(both, 3), pieces_of(sample, 3)
    vocabulary = choose_vocabulary([both], N_VOCAB, np.eye(N_VOCAB, dtype=np.float32))
    batch = make_batch([piece], vocabulary)
    layers, final = batch.before[0, :, : 2 * N_EMBD], batch.before[0, :, 2 * N_EMBD :]
    is_prompt = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], bool)
    np.testing.assert_array_equal(layers, make_batch([sample_piece], vocabulary).before[0])
    assert (final.any(1) == ~is_prompt).all()
    assert final[2].tolist() == [2] * N_EMBD


def test_prompt_tokens_carry_no_loss_and_padding_neither() -> None:
    rng = np.random.default_rng(4)
    long, short = conversation(rng, 20), conversation(rng, 5)
    vocabulary = choose_vocabulary([long, short], N_VOCAB, np.eye(N_VOCAB, dtype=np.float32))
    batch = make_batch([long, short], vocabulary)
    # All but an answer's first token, which comes with the prompt.
    assert batch.weights[0].sum() == 19
    assert batch.weights[1].sum() == 4
    assert (batch.weights[1, 12:] == 0).all()


def test_the_vocabulary_is_what_the_target_writes_most() -> None:
    rng = np.random.default_rng(5)
    samples = [conversation(rng) for _ in range(30)]
    embeddings = rng.standard_normal((N_VOCAB, 8)).astype(np.float32)
    vocabulary = choose_vocabulary(samples, 22, embeddings)
    assert set(range(10, 30)) <= set(vocabulary.draft_ids.tolist())
    assert coverage(samples, vocabulary.draft_ids) == 1.0
    outside = next(i for i in range(N_VOCAB) if i not in vocabulary.draft_ids)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    nearest = int(np.argmax(unit[vocabulary.draft_ids] @ unit[outside]))
    assert vocabulary.surrogates[outside] == nearest


def test_an_epoch_is_a_function_of_its_seed_and_covers_every_answer() -> None:
    rng = np.random.default_rng(6)
    corpus = Corpus([conversation(rng) for _ in range(40)], [])
    one, same, other = (epoch_pieces(corpus.training, 100, 1, 7, epoch) for epoch in (0, 0, 1))
    assert [[len(p) for p in group] for group in one] == [[len(p) for p in g] for g in same]
    assert [[len(p) for p in group] for group in one] != [[len(p) for p in g] for g in other]
    assert sum(len(group) for group in one) == 40
    assert all(len(group) * max(map(len, group)) <= 100 for group in one if len(group) > 1)


def test_templates_give_varied_prompts_without_holes() -> None:
    rng = random.Random(0)
    material = ["A text of some length about nothing. " * 4]
    written = [prompts.prompt(rng, material) for _ in range(500)]
    assert len(set(written)) > 400
    assert not any("{" in text and "}" in text and "{text}" in text for text in written)
    assert prompts.prompt(random.Random(3)) == prompts.prompt(random.Random(3))


def test_half_of_what_is_asked_about_is_out_of_the_targets_own_texts() -> None:
    rng = random.Random(0)
    material = ["Lichens survive wherever nothing else survives. " * 3]
    words = ("lichens", "survive", "wherever", "nothing", "survives")
    poems = [
        text for text in (prompts.prompt(rng, material) for _ in range(2000)) if "poem" in text
    ]
    share = sum(any(word in text for word in words) for text in poems) / len(poems)
    assert 0.3 < share < 0.7
