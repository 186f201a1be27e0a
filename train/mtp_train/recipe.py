"""Puts a run together: target, corpus, draft vocabulary and starting weights.

Owns the choices that are made once, at the start of a run, and kept with its checkpoint. The
only module that knows both the GGUF's arrays and PyTorch's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gguf import GGMLQuantizationType

from mtp_cli.engine.files.target_tables import compared, stands_for
from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from mtp_train.corpus import Corpus, Sample, choose_vocabulary, make_vocabulary
from mtp_train.existing import HeadFile, read_head, write_like
from mtp_train.export import check_shapes, write_head
from mtp_train.fit import Checkpoint, Run, Settings, read_checkpoint
from mtp_train.head import Head
from mtp_train.layer_rows import chosen_layers, unit_rows
from mtp_train.mark import mark_of
from mtp_train.shape import HeadShape
from mtp_train.tables import Tables
from mtp_train.target import Target

# The target's output norm makes its logits sharp; a head that still guesses needs flat ones.
START_NORM_SCALE = 0.3
N_DRAFT = 8192
PROMPT_ROWS = 256  # of a prompt's end that a head reads, unless told
FUSION_ROWS = 30_000  # positions that a fusion's start is fitted on: over ten a weight's column
FUSION_RIDGE = 1e-4  # of a row's mean square, so that values that never change do no harm

QUANTIZED = {
    "token_embd": GGMLQuantizationType.Q8_0,
    "output": GGMLQuantizationType.Q8_0,
    "block": GGMLQuantizationType.Q8_0,
}
EXACT = dict.fromkeys(QUANTIZED, GGMLQuantizationType.F32)


@dataclass(frozen=True)
class Choices:
    """What a head is to be, where the target does not say it.

    n_draft:      how many of the ids that the target wrote most are drafted; None: the ones of the
                  head that the run starts from, which saw more text than the corpus may have, or
                  N_DRAFT
    n_ff:         width of the FFN; None: the target's
    fused_layers: layers whose input rows are fused; none: the final row is read
    prompt_rows:  how many rows of a prompt's end the head reads
    with_final:   it reads the final row, too, where the target answers
    """

    n_draft: int | None = None
    n_ff: int | None = None
    fused_layers: tuple[int, ...] = ()
    prompt_rows: int = 1
    with_final: bool = False


class Reads(NamedTuple):
    """Which rows of the target a head reads; the fields are HeadShape's."""

    fused_layers: tuple[int, ...] = ()
    prompt_rows: int = 1
    with_final: bool = False

    @classmethod
    def of(cls, shape: HeadShape) -> Reads:
        return cls(shape.fused_layers, shape.prompt_rows, shape.with_final)


def rows_to_read(
    target: Target,
    folder: Path,
    layers: str | None,
    prompt_rows: int | None,
    start: Path | None,
    *,
    with_final: bool | None = None,
) -> Reads:
    """The rows that a run's head reads: those of the folder's checkpoint, else what is asked for,
    else those of the head it starts from, else the usual ones."""
    saved = read_checkpoint(folder, target.fingerprint)
    if saved is not None:
        return Reads.of(saved.shape)
    if start is not None and layers is None:
        found = Reads.of(read_head(start, target).shape)
    else:
        found = Reads(chosen_layers(target, layers), PROMPT_ROWS, target.gives_final_rows)
    if not found.fused_layers:
        return Reads()
    asked = found.with_final if with_final is None else with_final
    return Reads(found.fused_layers, prompt_rows or found.prompt_rows, asked)


def head_shape(target: Target, n_draft: int, choices: Choices) -> HeadShape:
    """A head like one of the target's own layers."""
    s = target.sizes
    return HeadShape(
        s.n_embd,
        s.n_head,
        s.n_head_kv,
        s.head_dim,
        choices.n_ff or s.n_ff,
        n_draft,
        s.rms_eps,
        s.rope_base,
        choices.fused_layers,
        choices.prompt_rows,
        with_final=choices.with_final,
    )


def device_named(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_head(target: Target, shape: HeadShape, vocabulary: DraftVocabulary, seed: int) -> Head:
    """A head at its starting weights: a random block, the target's tables."""
    torch.manual_seed(seed)
    token_embd = torch.tensor(target.token_embd[vocabulary.draft_ids])
    output = torch.tensor(target.output[vocabulary.draft_ids])
    scale = None if shape.row_is_final else torch.tensor(1 / target.output_norm)
    head = Head(shape, token_embd, output, scale)
    head.start_from({"head_norm": START_NORM_SCALE * torch.tensor(target.output_norm)})
    return head


def take_over(
    head: Head,
    target: Target,
    vocabulary: DraftVocabulary,
    found: HeadFile,
    samples: Sequence[Sample] = (),
) -> None:
    """Overwrite a head with the one in a head file; ids that one did not draft in keep the
    target's own output rows. Where only the new head fuses, it starts from what comes nearest to
    the row that the old one read, on these samples."""
    weights: Mapping[str, np.ndarray] = found.weights
    if head.shape.fused_layers and "fuse" not in weights:
        norm = np.ones(head.shape.n_fused, np.float32)
        fuse = fusion_like_final_rows(samples, 1 / target.output_norm)
        weights = {**weights, "fuse": fuse, "fuse_norm": norm}
    if head.shape.with_final and "final_norm" not in weights:
        weights = {**weights, "final_norm": head.final_norm.detach().numpy()}
    output = head.output.detach().cpu().numpy().copy()
    _, ours, theirs = np.intersect1d(vocabulary.draft_ids, found.draft_ids, return_indices=True)
    if "output" in weights:  # else the target's own
        output[ours] = weights["output"][theirs]
    weights = {**weights, "output": output}
    check_shapes(target, vocabulary, head.shape, weights)
    head.start_from({name: torch.tensor(value) for name, value in weights.items()})


def fusion_like_final_rows(
    samples: Sequence[Sample], row_scale: np.ndarray, n_rows: int = FUSION_ROWS
) -> np.ndarray:
    """The fusion that comes nearest to the final row, which a head without fusion reads:
    (n_embd, n_fused), by least squares over about n_rows positions, each row at its root mean
    square.

    row_scale: (n_embd,) what turns a post-norm row into the head's input row
    """
    n_embd = samples[0].rows.shape[1]
    n_fused = n_embd * len(samples[0].layers)
    squares, products = np.zeros((n_fused, n_fused)), np.zeros((n_fused, n_embd))
    n_seen = 0
    for sample in samples:
        # A text's first row is an outlier in most models, and its last was never asked for.
        part = sample.part(1, len(sample) - 1)
        rows = np.concatenate(part.layers, 1).astype(np.float32)
        wanted = unit_rows(part.rows * row_scale, 1e-9).astype(np.float32)
        squares += rows.T @ rows
        products += rows.T @ wanted
        n_seen += len(rows)
        if n_seen >= n_rows:
            break
    squares += np.eye(n_fused) * n_seen * FUSION_RIDGE
    return np.linalg.solve(squares, products).T.astype(np.float32)


def prepare(
    target: Target,
    corpus: Corpus,
    folder: Path,
    settings: Settings,
    choices: Choices,
    *,
    device: str,
    start: Path | None = None,
) -> Run:
    """A run at its start, or where its folder's checkpoint left it; that one keeps its settings but
    for the number of steps.

    start: a head file whose weights the run starts from; random ones without
    """
    saved = read_checkpoint(folder, target.fingerprint)
    found = read_head(start, target) if saved is None and start is not None else None
    form = _form_of(found, choices) if saved is None else saved.form
    kept = None if form is None else found or read_head(form, target)
    if saved is not None:
        vocabulary, shape = _vocabulary_of(saved, kept, target), saved.shape
        settings = replace(saved.settings, steps=settings.steps)
    elif kept is not None:
        vocabulary = kept.vocabulary
        shape = replace(kept.shape, prompt_rows=choices.prompt_rows)
        if not kept.trains_output:
            settings = replace(settings, output_lr=0.0)
    else:
        vocabulary = _chosen_vocabulary(target, corpus, choices, found)
        shape = head_shape(target, len(vocabulary.draft_ids), choices)
    head = new_head(target, shape, vocabulary, settings.seed)
    if kept is not None:
        head.token_embd.copy_(torch.tensor(kept.token_embd))
    if found is not None:
        take_over(head, target, vocabulary, found, corpus.training)
    run = Run(
        folder,
        target.fingerprint,
        settings,
        head.to(device_named(device)),
        corpus.training,
        vocabulary,
        torch.tensor(target.output[vocabulary.draft_ids]).bfloat16().to(head.output.device),
        form,
        Tables(target.token_embd, target.output) if _adopts(target, kept) else None,
    )
    if saved is not None:
        run.resume(saved)
    return run


def _adopts(target: Target, kept: HeadFile | None) -> bool:
    """Whether a head will draft in ids that only the text holds, as a file of this form or a new
    one: what the engine asks, too."""
    if kept is None or (kept.info is not None and kept.info.adopts):
        return True
    return _has_tables_of(target, kept)


def _has_tables_of(target: Target, head: HeadFile) -> bool:
    """Whether the target's rows stand for the head's, as they must where it is to draft in ids
    that its draft vocabulary lacks."""
    places = compared(len(head.draft_ids))
    ids = head.draft_ids[places]
    if not stands_for(target.token_embd[ids], head.token_embd[places]):
        return False
    return "output" not in head.weights or stands_for(
        target.output[ids], head.weights["output"][places]
    )


def _form_of(found: HeadFile | None, choices: Choices) -> Path | None:
    """The file in whose form a run's head is written: that of its start, unless another vocabulary,
    width or other rows are asked for. MtpError where only that form can be written."""
    if found is None:
        return None
    is_kept = choices.n_draft is None and choices.n_ff in (None, found.shape.n_ff)
    rows = choices.fused_layers, choices.with_final
    if is_kept and rows == (found.shape.fused_layers, found.shape.with_final):
        return found.path.resolve()
    if not found.shape.is_plain:
        raise MtpError(
            f"{found.path}: these heads keep their form; leave out --vocabulary, --ffn and --layers"
        )
    return None


def _vocabulary_of(saved: Checkpoint, kept: HeadFile | None, target: Target) -> DraftVocabulary:
    return kept.vocabulary if kept else make_vocabulary(saved.draft_ids, target.token_embd)


def _chosen_vocabulary(
    target: Target, corpus: Corpus, choices: Choices, found: HeadFile | None
) -> DraftVocabulary:
    if found is not None and choices.n_draft is None:
        return make_vocabulary(found.draft_ids, target.token_embd)
    n_draft = choices.n_draft or N_DRAFT
    return choose_vocabulary(corpus.training, n_draft, target.token_embd)


def export(
    target: Target, folder: Path, path: Path, *, average: Path | None = None, exact: bool = False
) -> int:
    """Write the folder's checkpoint as a head file, or in the form of the heads that it started
    from; returns its bytes.

    average: a head file, as a rule the one that the run started from; every weight is the mean of
             both (model soups, Wortsman 2022). MtpError where ids or shapes differ
    """
    saved = read_checkpoint(folder, target.fingerprint)
    if saved is None:
        raise MtpError(f"{folder}: no checkpoint to export")
    weights: Mapping[str, np.ndarray] = {
        name: tensor.float().numpy() for name, tensor in saved.head.items()
    }
    kept = None if saved.form is None else read_head(saved.form, target)
    vocabulary = _vocabulary_of(saved, kept, target)
    if average is not None:
        other = read_head(average, target)
        if not other.is_for(target):
            raise MtpError(f"{average}: these heads were made for another model")
        if not np.array_equal(other.draft_ids, saved.draft_ids):
            raise MtpError(f"{average}: these heads draft in other ids than {folder}'s")
        if Reads.of(other.shape) != Reads.of(saved.shape):
            raise MtpError(f"{average}: these heads read other rows than {folder}'s")
        check_shapes(target, vocabulary, saved.shape, other.weights)
        means = {name: (weights[name] + value) / 2 for name, value in other.weights.items()}
        weights = {**weights, **means}
    if kept is not None:
        write_like(path, kept, target, saved.shape.prompt_rows, weights, mark_of(folder))
    else:
        write_head(path, target, vocabulary, saved.shape, weights, EXACT if exact else QUANTIZED)
    return path.stat().st_size
