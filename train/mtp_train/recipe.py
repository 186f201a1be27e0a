"""Puts a run together: target, corpus, draft vocabulary and starting weights.

Owns the choices that are made once, at the start of a run, and kept with its checkpoint. The
only module that knows both the GGUF's arrays and PyTorch's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType

from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from mtp_train.corpus import Corpus, choose_vocabulary, make_vocabulary
from mtp_train.export import check_shapes, read_head, write_head
from mtp_train.fit import Run, Settings, read_checkpoint
from mtp_train.head import Head, HeadShape
from mtp_train.target import Target

# The target's output norm makes its logits sharp; a head that still guesses needs flat ones.
START_NORM_SCALE = 0.3
N_DRAFT = 8192

QUANTIZED = {
    "token_embd": GGMLQuantizationType.Q8_0,
    "output": GGMLQuantizationType.Q8_0,
    "block": GGMLQuantizationType.Q8_0,
}
EXACT = dict.fromkeys(QUANTIZED, GGMLQuantizationType.F32)


def head_shape(target: Target, n_draft: int, n_ff: int | None) -> HeadShape:
    """A head like one of the target's own layers."""
    s = target.sizes
    return HeadShape(
        s.n_embd,
        s.n_head,
        s.n_head_kv,
        s.head_dim,
        n_ff or s.n_ff,
        n_draft,
        s.rms_eps,
        s.rope_base,
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
    head = Head(shape, token_embd, output)
    head.start_from({"head_norm": START_NORM_SCALE * torch.tensor(target.output_norm)})
    return head


def take_over(head: Head, target: Target, vocabulary: DraftVocabulary, path: Path) -> None:
    """Overwrite a head with the one in a head file; ids that one did not draft in keep the
    target's own output rows."""
    ids, weights = read_head(path, target)
    output = head.output.detach().cpu().numpy().copy()
    _, ours, theirs = np.intersect1d(vocabulary.draft_ids, ids, return_indices=True)
    output[ours] = weights["output"][theirs]
    weights = {**weights, "output": output}
    check_shapes(target, vocabulary, vars(head.shape), weights)
    head.start_from({name: torch.tensor(value) for name, value in weights.items()})


def prepare(
    target: Target,
    corpus: Corpus,
    folder: Path,
    settings: Settings,
    *,
    n_draft: int | None,
    n_ff: int | None,
    device: str,
    start: Path | None = None,
) -> Run:
    """A run at its start, or where its folder's checkpoint left it; that one keeps its settings but
    for the number of steps.

    n_draft: how many of the ids that the target wrote most are drafted; None: the ones of `start`,
             which saw more text than the corpus may have, or N_DRAFT
    start:   a head file whose weights the run starts from; random ones without
    """
    saved = read_checkpoint(folder, target.fingerprint)
    if saved is None:
        if start is not None and n_draft is None:
            vocabulary = make_vocabulary(read_head(start, target)[0], target.token_embd)
        else:
            vocabulary = choose_vocabulary(corpus.training, n_draft or N_DRAFT, target.token_embd)
        shape = head_shape(target, len(vocabulary.draft_ids), n_ff)
    else:
        vocabulary = make_vocabulary(saved.draft_ids, target.token_embd)
        shape = saved.shape
        settings = replace(saved.settings, steps=settings.steps)
    head = new_head(target, shape, vocabulary, settings.seed)
    if saved is None and start is not None:
        take_over(head, target, vocabulary, start)
    run = Run(
        folder,
        target.fingerprint,
        settings,
        head.to(device_named(device)),
        corpus.training,
        vocabulary,
        torch.tensor(target.output[vocabulary.draft_ids]).bfloat16().to(head.output.device),
        torch.tensor(1 / target.output_norm).to(head.output.device),
    )
    if saved is not None:
        run.resume(saved)
    return run


def export(
    target: Target, folder: Path, path: Path, *, average: Path | None = None, exact: bool = False
) -> int:
    """Write the folder's checkpoint as a head file; returns its bytes.

    average: a head file, as a rule the one that the run started from; every weight is the mean of
             both (model soups, Wortsman 2022). MtpError where ids or shapes differ
    """
    saved = read_checkpoint(folder, target.fingerprint)
    if saved is None:
        raise MtpError(f"{folder}: no checkpoint to export")
    weights: Mapping[str, np.ndarray] = {
        name: tensor.float().numpy() for name, tensor in saved.head.items()
    }
    vocabulary = make_vocabulary(saved.draft_ids, target.token_embd)
    if average is not None:
        ids, others = read_head(average, target)
        if not np.array_equal(ids, saved.draft_ids):
            raise MtpError(f"{average}: these heads draft in other ids than {folder}'s")
        check_shapes(target, vocabulary, vars(saved.shape), others)
        weights = {**weights, **{name: (weights[name] + others[name]) / 2 for name in others}}
    write_head(path, target, vocabulary, vars(saved.shape), weights, EXACT if exact else QUANTIZED)
    return path.stat().st_size
