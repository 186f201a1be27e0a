"""The training corpus: the target's own text, its hidden rows, and what is held out.

Owns the shard format, the split by prompt, the choice of the draft vocabulary and the batches.
Knows nothing of PyTorch, of llama.cpp or of the head's arithmetic.

A shard is an uncompressed .npz of whole sequences one after another:
    ids   (n,) int32        token ids, the chat template's included
    mask  (n,) uint8        who chose the token: a Role
    hid   (n, n_embd) f16   the target's row at that position, after its output norm
    lens  (n_sequences,)    lengths
    meta  JSON list         one object a sequence (kind, system, greedy, temp, turns, key)
    target str               fingerprint of the target that wrote it (`mtp_cli.head_file`)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from mtp_train.files import written_whole
from mtp_train.layer_rows import open_rows

HELD_OUT_SHARE = 0.03
SHORTEST_ANSWER = 4  # tokens; a shorter one has nothing to draft
OUTSIDE_WEIGHT = 0.25  # of a position whose true next token no draft id stands for


class Role(IntEnum):
    """Who chose a token."""

    GIVEN = 0  # template, prompt
    USER = 1  # the target, writing a user turn
    GREEDY = 2  # the target, answering greedily
    SAMPLED = 3  # the target, answering with a temperature


@dataclass(frozen=True)
class Sample:
    ids: npt.NDArray[np.int32]
    roles: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.float16]
    layers: tuple[npt.NDArray[np.float16], ...] = ()  # rows of the layers that a head fuses
    with_final: bool = False  # it reads the final row, too, where there is one

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, end: int) -> Sample:
        layers = tuple(rows[start:end] for rows in self.layers)
        ids, roles, rows = self.ids[start:end], self.roles[start:end], self.rows[start:end]
        return Sample(ids, roles, rows, layers, self.with_final)

    @property
    def read(self) -> npt.NDArray[np.float16]:
        """What a head reads of each position: the fused layers' rows side by side, or the final
        row. With `with_final` both; the final row is zero before an answer, where no engine has
        it."""
        if not self.layers:
            return self.rows
        if not self.with_final:
            return np.concatenate(self.layers, 1)
        # A prompt's last row chooses the answer's first token, so that its final row is there.
        is_answer = self.roles >= Role.GREEDY
        is_answer[:-1] |= is_answer[1:]
        final = np.where(is_answer[:, None], self.rows, np.float16(0))
        return np.concatenate((*self.layers, final), 1)

    @property
    def prompt(self) -> bytes:
        """Identifies the first request: the ids before the first answer, system message aside."""
        return prompt_key(self.ids[: first_answer(self.roles)])


def first_answer(roles: npt.NDArray[np.uint8]) -> int:
    """Index of the first answer token (the length if there is none)."""
    answers = np.flatnonzero(roles >= Role.GREEDY)
    return int(answers[0]) if len(answers) else len(roles)


def prompt_key(ids: npt.NDArray[np.int32]) -> bytes:
    """A name for a rendered prompt. The system message counts: it changes the answer little, so
    it is left out by hashing only what follows the last repeated opening token."""
    opening = np.flatnonzero(ids == ids[0]) if len(ids) else np.zeros(0, np.int64)
    request = ids[opening[-2] :] if len(opening) >= 2 else ids
    return hashlib.sha256(request.astype("<i4").tobytes()).digest()


def is_held_out(key: bytes) -> bool:
    return int.from_bytes(key[:4], "little") < HELD_OUT_SHARE * 2**32


@dataclass(frozen=True)
class Corpus:
    training: list[Sample]
    held_out: list[Sample]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.training))


def write_shard(
    path: Path, target: str, sequences: Sequence[Sample], meta: Sequence[dict[str, Any]]
) -> None:
    """Write one shard; it appears under its name only when complete. target: the fingerprint."""
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            ids=np.concatenate([s.ids for s in sequences]),
            mask=np.concatenate([s.roles for s in sequences]),
            hid=np.concatenate([s.rows for s in sequences]),
            lens=np.array([len(s) for s in sequences], np.int32),
            meta=np.array(json.dumps(list(meta))),
            target=np.array(target),
        )


@contextlib.contextmanager
def _loaded(path: Path) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """A shard's arrays, read when they are asked for."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as shard:
            yield shard
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not what is in it
            raise MtpError(f"{path}: cannot be read: {error.strerror}") from error
        raise MtpError(f"{path}: not a whole shard; delete it, and write its text anew") from error


@contextlib.contextmanager
def _opened(path: Path, target: str) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """A shard's arrays; MtpError when another target wrote it: a head must not learn its rows."""
    with _loaded(path) as shard:
        if "target" not in shard:
            raise MtpError(f"{path}: does not say which model wrote it; use another --folder")
        if str(shard["target"]) != target:
            raise MtpError(f"{path}: another model wrote it; use another --folder for this one")
        yield shard


def read_shard(
    path: Path, target: str, layers: Sequence[int] = (), *, with_final: bool = False
) -> Iterator[Sample]:
    """The sequences of a shard, with the rows of these layers, which lie beside it."""
    with _opened(path, target) as shard:
        ids, roles, rows = shard["ids"], shard["mask"], shard["hid"]
        ends = np.cumsum(shard["lens"])
    of_layers = tuple(open_rows(path, i, *rows.shape) for i in layers)
    whole = Sample(ids, roles, rows, of_layers, with_final)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield whole.part(start, end)


def n_tokens_of(path: Path, target: str) -> int:
    """How many tokens a shard holds."""
    with _opened(path, target) as shard:
        return int(shard["lens"].sum())


def n_tokens_in(folder: Path, target: str) -> int:
    """How many tokens the shards of a folder hold."""
    return sum(n_tokens_of(path, target) for path in sorted(folder.glob("*.npz")))


def read_corpus(
    folder: Path,
    target: str,
    exclude: Iterable[bytes] = (),
    layers: Sequence[int] = (),
    *,
    with_final: bool = False,
) -> Corpus:
    """All shards of a folder, split by prompt.

    target:  the fingerprint of the target whose rows these must be
    exclude: prompts that must not be trained on
    layers:  those whose rows the samples have beside the final ones
    with_final: see `Sample.read`
    """
    shards = sorted(folder.glob("*.npz"))
    if not shards:
        raise MtpError(f"{folder}: no shards; run `mtp-train generate` first")
    corpus, excluded = Corpus([], []), set(exclude)
    for path in shards:
        for sequence in read_shard(path, target, layers, with_final=with_final):
            if first_answer(sequence.roles) >= len(sequence) - 2 or sequence.prompt in excluded:
                continue
            held = is_held_out(sequence.prompt)
            (corpus.held_out if held else corpus.training).append(sequence)
    return corpus


def choose_vocabulary(
    sequences: Iterable[Sample], n_draft: int, embeddings: npt.NDArray[np.float32]
) -> DraftVocabulary:
    """The ids the target uses most in what it writes (lowest ids fill up what is never seen)."""
    n_vocab = len(embeddings)
    counts = np.zeros(n_vocab, np.float64)
    for sequence in sequences:
        written = sequence.ids[sequence.roles != Role.GIVEN]
        counts += np.bincount(written, minlength=n_vocab)
        counts += 0.1 * np.bincount(sequence.ids, minlength=n_vocab)
    counts -= np.arange(n_vocab) / (n_vocab * 100)
    draft_ids = np.sort(np.argsort(-counts, kind="stable")[:n_draft]).astype(np.int32)
    return make_vocabulary(draft_ids, embeddings)


def make_vocabulary(
    draft_ids: npt.NDArray[np.int32], embeddings: npt.NDArray[np.float32]
) -> DraftVocabulary:
    """The draft ids, and for every other id the one whose embedding points most alike."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-9)
    nearest = [
        np.argmax(unit[i : i + 4096] @ unit[draft_ids].T, 1) for i in range(0, len(unit), 4096)
    ]
    surrogates = np.concatenate(nearest).astype(np.int32)
    surrogates[draft_ids] = np.arange(len(draft_ids), dtype=np.int32)
    return DraftVocabulary(draft_ids, surrogates)


def coverage(sequences: Iterable[Sample], draft_ids: npt.NDArray[np.int32]) -> float:
    """Share of answer tokens inside the draft vocabulary."""
    answers = np.concatenate([s.ids[s.roles >= Role.GREEDY] for s in sequences])
    return float(np.isin(answers, draft_ids).mean())


@dataclass(frozen=True)
class Batch:
    """Padded positions of some sequences. Index i: token x_i, the row before it, what follows.

    tokens:  (batch, n) int64 draft ids of x_i; from n_draft on, places in `adopted`
    before:  (batch, n, ...) float16, what the head reads of position i-1, see `Sample.read`
    rows:    (batch, n, n_embd) float16, the target's row of position i
    nexts:   (batch, n) int64 target ids of x_{i+1}
    weights: (batch, n) float32, how much the prediction of x_{i+1} counts
    roles:   (batch, n) uint8, the role of x_{i+1}
    adopted: (n_adopted,) int32 target ids of these texts that the draft vocabulary lacks, see
             `mtp_cli.engine.drafters.adopted_ids`
    known:   (batch, n_adopted) int32, the index from which on a sequence holds each; n for never
    """

    tokens: npt.NDArray[np.int64]
    before: npt.NDArray[np.float16]
    rows: npt.NDArray[np.float16]
    nexts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    roles: npt.NDArray[np.uint8]
    adopted: npt.NDArray[np.int32]
    known: npt.NDArray[np.int32]


def make_batch(
    pieces: Sequence[Sample], vocabulary: DraftVocabulary, *, adopts: bool = False
) -> Batch:
    """adopts: ids outside the draft vocabulary that a text holds are drafted from there on"""
    n = max(map(len, pieces)) - 2
    n_embd = pieces[0].rows.shape[1]
    n_read = n_embd * (max(len(pieces[0].layers), 1) + pieces[0].with_final)
    inside = np.zeros(len(vocabulary.surrogates), bool)
    inside[vocabulary.draft_ids] = True
    places, adopted = vocabulary.surrogates, np.zeros(0, np.int32)
    if adopts:
        texts = np.unique(np.concatenate([piece.ids[:-1] for piece in pieces]))
        adopted = texts[~inside[texts]]
        places = places.copy()
        places[adopted] = len(vocabulary.draft_ids) + np.arange(len(adopted))
    batch = Batch(
        np.zeros((len(pieces), n), np.int64),
        np.zeros((len(pieces), n, n_read), np.float16),
        np.zeros((len(pieces), n, n_embd), np.float16),
        np.zeros((len(pieces), n), np.int64),
        np.zeros((len(pieces), n), np.float32),
        np.zeros((len(pieces), n), np.uint8),
        adopted,
        np.full((len(pieces), len(adopted)), n, np.int32),
    )
    for b, piece in enumerate(pieces):
        m = len(piece) - 2
        batch.tokens[b, :m] = places[piece.ids[1:-1]]
        batch.before[b, :m] = piece.read[:m]
        batch.rows[b, :m] = piece.rows[1:-1]
        batch.nexts[b, :m] = piece.ids[2:]
        batch.roles[b, :m] = piece.roles[2:]
        known = inside[piece.ids[2:]]
        if len(adopted):
            at = np.flatnonzero(~inside[piece.ids[:-1]])
            columns = places[piece.ids[at]] - len(vocabulary.draft_ids)
            np.minimum.at(batch.known[b], columns, np.maximum(at - 1, 0))
            known |= _is_held(piece.ids[2:], adopted, batch.known[b])
        counts = np.where(known, 1.0, OUTSIDE_WEIGHT)
        # An answer's first token comes with the prompt: nobody drafts it.
        drafted = (piece.roles[1:-1] >= Role.GREEDY) & (piece.roles[2:] >= Role.GREEDY)
        batch.weights[b, :m] = np.where(drafted, counts, 0.0)
    return batch


def _is_held(
    nexts: npt.NDArray[np.int32], adopted: npt.NDArray[np.int32], known: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """(n,): whether x_{i+1} is an adopted id that the text holds at index i."""
    column = np.searchsorted(adopted, nexts).clip(0, len(adopted) - 1)
    held: npt.NDArray[np.bool_] = (adopted[column] == nexts) & (
        known[column] <= np.arange(len(nexts))
    )
    return held


def pieces_of(sample: Sample, prompt_rows: int) -> list[Sample]:
    """Each answer with the rows of what stands before it that the head reads: `prompt_rows` of
    them, at least the last one. Answers whose rows overlap come as one."""
    at = np.flatnonzero(sample.roles >= Role.GREEDY)
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    spans: list[tuple[int, int]] = []
    for run in runs:
        if len(run) < SHORTEST_ANSWER:
            continue
        start = max(0, int(run[0]) - max(prompt_rows, 1))
        if spans and start < spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, int(run[-1]) + 1))
    return [sample.part(*span) for span in spans]


def epoch_pieces(
    samples: Sequence[Sample], n_batch_tokens: int, prompt_rows: int, seed: int, epoch: int
) -> list[list[Sample]]:
    """One pass over the sequences in groups of about n_batch_tokens padded positions, each of
    similar lengths; the same for the same seed and epoch."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(samples))
    pieces = [piece for i in order for piece in pieces_of(samples[i], prompt_rows)]
    groups: list[list[Sample]] = []
    pool = 512
    for i in range(0, len(pieces), pool):
        group: list[Sample] = []
        for piece in sorted(pieces[i : i + pool], key=len):
            if group and len(piece) * (len(group) + 1) > n_batch_tokens:
                groups.append(group)
                group = []
            group.append(piece)
        groups.append(group)
    return [groups[i] for i in rng.permutation(len(groups))]
