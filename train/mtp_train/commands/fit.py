"""`mtp-train fit`: a head is trained on the corpus."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtp_cli.errors import MtpError
from mtp_train.commands import options as given
from mtp_train.commands.common import all_threads, progress_bar, target_path

if TYPE_CHECKING:
    from mtp_train.corpus import Corpus
    from mtp_train.fit import Run, Settings
    from mtp_train.recipe import Reads
    from mtp_train.target import Target

_N_HELD_OUT = 60


def fit(
    folder: given.Folder = given.DEFAULT_FOLDER,
    model: given.Model = None,
    steps: given.Steps = 2000,
    batch: given.Batch = 4096,
    vocabulary: given.Draft = None,
    ffn: given.Width = None,
    layers: given.Layers = None,
    prompt_rows: given.PromptRows = None,
    final: given.Final = None,
    start: given.Start = None,
    cooldown: given.Cooldown = False,
    device: given.Device = "auto",
    threads: given.Threads = None,
) -> None:
    """Train a head on the corpus, from the folder's checkpoint if it has one."""
    from mtp_train.preflight import check_folder
    from mtp_train.target import Target

    check_folder(folder, 0)
    target = Target(target_path(model))
    start = _start(target, start)
    if cooldown and start is None:
        raise typer.BadParameter("--cooldown goes on from a head: name it with --start")

    import torch  # which may be missing: what else is wrong shows before

    from mtp_train.allocator import keep_freed_memory
    from mtp_train.recipe import Choices, prepare, rows_to_read

    torch.set_num_threads(threads or all_threads())
    keep_freed_memory()
    reads = rows_to_read(target, folder, layers, prompt_rows, start, with_final=final)
    _add_layers(target, folder, reads.fused_layers, threads)
    corpus = _corpus(target, folder, reads)
    run = prepare(
        target,
        corpus,
        folder,
        _settings(steps, batch, start, cooldown=cooldown),
        Choices(vocabulary, ffn, *reads),
        device=device,
        start=start,
    )
    _tell(corpus, run)
    with progress_bar() as progress:
        task = progress.add_task("training", total=steps, completed=run.progress.step, note="")
        run.train(
            corpus.held_out[:_N_HELD_OUT],
            lambda at, loss: progress.update(task, completed=at.step, note=f"loss {loss:.3f}"),
            lambda at, found: progress.console.print(f"step {at.step}: {found}"),
        )


def _settings(steps: int, batch: int, start: Path | None, *, cooldown: bool) -> Settings:
    from mtp_train.fit import Settings

    if cooldown:
        settings = Settings.cooldown(steps)
    else:
        settings = Settings.going_on(steps) if start else Settings(steps)
    return replace(settings, batch_tokens=batch)


def _corpus(target: Target, folder: Path, reads: Reads) -> Corpus:
    """The folder's, but for the prompts that are measured with."""
    from mtp_train.corpus import read_corpus

    corpus = read_corpus(
        folder / "corpus",
        target.fingerprint,
        _measured_prompts(target.path),
        reads.fused_layers,
        with_final=reads.with_final,
    )
    if not corpus.training or not corpus.held_out:
        raise MtpError(
            f"{folder}: too little text to train on and to measure with; mtp-train generate writes "
            "more, with a larger --tokens"
        )
    return corpus


def _tell(corpus: Corpus, run: Run) -> None:
    from mtp_train.corpus import coverage

    covered = coverage(corpus.held_out, run.vocabulary.draft_ids)
    print(
        f"{corpus.n_tokens:,} tokens to train on, {len(corpus.held_out)} texts held out, "
        f"{covered:.1%} of their answers inside the draft vocabulary",
        file=sys.stderr,
    )


def _start(target: Target, start: Path | None) -> Path | None:
    """The heads to go on from: those named, else the model's own."""
    from mtp_train.existing import has_own_heads, read_head

    if start == given.NO_START:
        return None
    found = start or (target.path if has_own_heads(target) else None)
    if found is not None and not read_head(found, target).is_for(target):
        print(f"{found}: made for another model of the same sizes; now for this", file=sys.stderr)
    return found


def _add_layers(target: Target, folder: Path, layers: tuple[int, ...], threads: int | None) -> None:
    """Read texts again that lack the rows of some layers."""
    from mtp_train.corpus import n_tokens_of
    from mtp_train.layer_rows import missing_layers
    from mtp_train.reread import add_layers

    corpus = folder / "corpus"
    lacking = [path for path in sorted(corpus.glob("*.npz")) if missing_layers(path, layers)]
    if not lacking:
        return
    copies = sorted(folder.glob(f"target-bf16-{target.fingerprint[:16]}.gguf"))
    with progress_bar() as progress:
        n_tokens = sum(n_tokens_of(path, target.fingerprint) for path in lacking)
        task = progress.add_task("reading", total=n_tokens, note="")
        add_layers(
            copies[0] if copies else target.path,
            lacking,
            target.fingerprint,
            layers,
            eps=target.sizes.rms_eps,
            n_threads=threads or all_threads(),
            on_text=lambda n: progress.advance(task, n),
        )


def _measured_prompts(path: Path) -> list[bytes]:
    from mtp_cli.engine import Engine
    from mtp_train.measure import held_out_keys

    with Engine.open(path, n_ctx=512) as engine:
        return held_out_keys(engine)
