"""A head with a smaller draft vocabulary: fewer rows of its output matrix, cheaper steps.

Owns choosing the ids, the surrogates for those left out, and the plan; rows are copied byte for
byte. Follows FR-Spec (arXiv:2502.14856): the most frequent ids cover nearly all of a text. There
are two forms: ours cuts the embedding as well, so that llama.cpp runs it as it is; the common one
is `common_form.py`'s. Knows nothing of how the text came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary, HeadInfo, Ids
from mtp_convert.commands import common_form
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.independent import embedded, members, own_metadata
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.mixes import Traits
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan, PlannedTensor
from mtp_convert.gguf.reuse import AS_IT_IS, Decoded, Taken, Wanted, losses, planned
from mtp_convert.tensors.sources import load_rows

Counts = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]

_CHUNK_ROWS = 4096
_PIECE, _HELD_OUT = 64, 5  # ids in a piece of text; of so many pieces one is held out


@dataclass(frozen=True)
class Trimmed:
    """The plan, and the ids of the target that the head keeps, sorted."""

    plan: Plan
    ids: Ids

    def coverage(self, counts: Counts) -> float:
        """The share of counted text whose ids are kept."""
        return float(counts[self.ids].sum()) / max(int(counts.sum()), 1)


def parted(texts: Iterable[Sequence[int]]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Text to choose from, and every fifth piece of it held out, to see what a choice covers."""
    pieces = [text[i : i + _PIECE] for text in texts for i in range(0, len(text), _PIECE)]
    held_out = pieces[_HELD_OUT - 1 :: _HELD_OUT]
    return [piece for i, piece in enumerate(pieces, 1) if i % _HELD_OUT], held_out


def count_ids(texts: Iterable[Iterable[int]], n_vocab: int) -> Counts:
    """How often each id occurs."""
    counts = np.zeros(n_vocab, np.int64)
    for ids in texts:
        np.add.at(counts, np.fromiter(ids, np.int64), 1)
    return counts


def choose_ids(counts: Counts, size: int, allowed: Ids, always: Iterable[int]) -> Ids:
    """The `size` most frequent of the `allowed` ids, with those kept `always` first; sorted.

    Ties go to the smaller id: in a BPE vocabulary that is the more common piece.
    """
    kept = [i for i in sorted(set(always)) if i in set(allowed.tolist())][:size]
    rest = np.setdiff1d(allowed, kept)
    order = rest[np.lexsort((rest, -counts[rest]))]
    return np.sort(np.concatenate([np.array(kept, np.int64), order[: size - len(kept)]])).astype(
        np.int32
    )


def old_ids(heads: GgufModel, target: GgufModel, size: int) -> Ids:
    """The ids a head drafts in, sorted; MtpError unless it is this target's and they are more than
    size, or as many where another form is to be had.
    """
    info = common_form.info_of(heads, target)
    if info.fingerprint != target.fingerprint():
        raise MtpError(f"{heads.path}: made for {info.target_name}, not for {target.path}")
    if info.n_vocab != target.n_vocab:
        raise MtpError(f"{heads.path}: for {info.n_vocab} ids, the target has {target.n_vocab}")
    found = np.arange(info.n_vocab, dtype=np.int32)
    found = found if info.vocabulary is None else info.vocabulary.draft_ids
    given = common_form.draft_ids(heads)
    found = found if given is None else np.sort(given)
    if not 0 < size < len(found) + (given is not None):
        raise MtpError(f"{heads.path}: drafts over {len(found)} ids; {size} is no smaller number")
    return found


@dataclass(frozen=True)
class _Kept:
    """Which rows of a head's matrices stay, and how many there were.

    read:    of those with a row for each id that it reads; None: all
    drafted: of those with a row for each id that it drafts
    """

    read: Rows | None
    n_read: int
    drafted: Rows
    n_drafted: int

    @classmethod
    def of(cls, heads: GgufModel, info: HeadInfo, ids: Ids, common: bool) -> _Kept:
        given = common_form.draft_ids(heads)
        if given is not None:
            order = np.argsort(given)
            drafted = order[np.searchsorted(given[order], ids)]
            read = None if common else ids.astype(np.int64)
            return cls(read, info.n_vocab, drafted, len(given))
        old = None if info.vocabulary is None else info.vocabulary.draft_ids
        rows = ids.astype(np.int64) if old is None else np.searchsorted(old, ids)
        n_rows = info.n_vocab if old is None else len(old)
        return cls(None if common else rows, n_rows, rows, n_rows)

    def cut(self, heads: GgufModel, name: str, to: str) -> Taken:
        rows: Rows | None = self.drafted
        n_rows = self.n_drafted
        if common_form.EMBEDDING.fullmatch(to):
            rows, n_rows = self.read, self.n_read
        elif not common_form.OUTPUT.fullmatch(to):
            return Taken(heads.file, name, to)
        shape = heads.matrix(name)
        if shape[0] != n_rows:
            raise MtpError(f"{heads.path}: {name}: expected {n_rows} rows, found {shape}")
        return Taken(heads.file, name, to, rows)


def plan_trim(
    heads_path: Path,
    target_path: Path,
    counts: Counts,
    size: int,
    always: Iterable[int],
    wanted: Wanted = AS_IT_IS,
    *,
    common: bool = False,
) -> Trimmed:
    """The plan for a head file over `size` ids; `counts` says which matter.

    common: in the common form, which keeps the embedding whole
    """
    heads, target = open_model(heads_path), open_model(target_path)
    info = common_form.info_of(heads, target)
    ids = choose_ids(counts, size, old_ids(heads, target, size), always)
    if common:
        common_form.check_whole(heads, info)
        metadata = common_form.metadata_of(heads, info)
    else:
        metadata = _metadata(
            heads, replace(info, vocabulary=DraftVocabulary(ids, surrogates(target, ids)))
        )
    metadata |= wanted.metadata(wanted.head)
    kept = _Kept.of(heads, info, ids, common)
    taken, tensors = [], []
    for names in _models(heads):
        cut = [kept.cut(heads, name, to) for name, to in names if name != common_form.D2T]
        if common and not any(common_form.OUTPUT.fullmatch(tensor.to) for tensor in cut):
            cut.append(Taken(heads.file, "token_embd.weight", "output.weight", kept.drafted))
        parts, made = _planned(cut, wanted, Traits.of(heads.arch, metadata))
        taken.append(parts)
        tensors.append([*made, common_form.planned_ids(ids)] if common else made)
    lost = tuple(dict.fromkeys(chain(*map(losses, taken, tensors))))
    placed = embedded(own_metadata(metadata), tensors) if heads.is_independent else tensors[0]
    return Trimmed(Plan(metadata, tuple(placed), lost), ids)


def check_common(heads_path: Path, target_path: Path, size: int, wanted: Wanted) -> None:
    """MtpError where nothing would run the head over `size` ids in the common form, whichever ids
    these are."""
    from mtp_convert.commands import computed  # loads llama.cpp

    heads, none = open_model(heads_path), np.zeros(open_model(target_path).n_vocab, np.int64)

    def planned_as(formats: Wanted) -> Plan:
        return plan_trim(heads_path, target_path, none, size, (), formats, common=True).plan

    computed.check(heads, planned_as, wanted)


def _planned(
    cut: Sequence[Taken], wanted: Wanted, traits: Traits
) -> tuple[list[Taken], list[PlannedTensor]]:
    """One model's tensors, each in its format: a fusion as it is."""
    fusion = [tensor for tensor in cut if tensor.to in head_file.FUSION]
    of_blocks = [tensor for tensor in cut if tensor.to.startswith("blk.")]
    shared = [t for t in cut if not t.to.startswith("blk.") and t.to not in head_file.FUSION]
    made = planned(shared, of_blocks, wanted, traits)
    return [*shared, *of_blocks, *fusion], [*made, *(tensor.planned(None) for tensor in fusion)]


def _metadata(heads: GgufModel, info: HeadInfo) -> dict[str, Pair]:
    """The head file's pairs, with a draft vocabulary in place of its tokenizer."""
    said = common_form.metadata_of(heads, info)
    found = {k: v for k, v in said.items() if not k.startswith("tokenizer.")}
    assert info.vocabulary is not None
    found["tokenizer.ggml.model"] = pair("no_vocab")
    found[heads.key("vocab_size")] = pair(len(info.vocabulary.draft_ids))
    return found


def _models(heads: GgufModel) -> Iterable[list[tuple[str, str]]]:
    """The tensors of each model in the file, by their names there and in the model itself."""
    names = heads.file.tensors
    if heads.is_independent:
        return members(names, heads.n_heads)
    return [[(name, name) for name in names]]


def surrogates(target: GgufModel, draft_ids: Ids) -> Ids:
    """For every id of the target the draft id with the nearest embedding, by cosine."""
    source = Decoded(target.file, "token_embd.weight")

    def unit(begin: int, end: int) -> npt.NDArray[np.float32]:
        rows = load_rows(source, begin, end)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        found: npt.NDArray[np.float32] = rows / np.maximum(norms, 1e-12)
        return found

    drafts = np.concatenate([unit(i, i + 1) for i in draft_ids.tolist()])
    found = np.empty(target.n_vocab, np.int32)
    for begin in range(0, target.n_vocab, _CHUNK_ROWS):
        end = min(begin + _CHUNK_ROWS, target.n_vocab)
        found[begin:end] = (unit(begin, end) @ drafts.T).argmax(axis=1)
    found[draft_ids] = np.arange(len(draft_ids))
    return found
