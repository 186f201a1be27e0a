"""`mtp-train generate`: the target writes its training text."""

from __future__ import annotations

import sys

from mtp_train.commands import options as given
from mtp_train.commands.common import all_threads, n_written, progress_bar, target_path


def generate(
    folder: given.Folder = given.DEFAULT_FOLDER,
    model: given.Model = None,
    tokens: given.Tokens = 1_000_000,
    slots: given.Slots = 128,
    seed: given.Seed = 1,
    bf16: given.Bf16 = False,
    layers: given.Layers = None,
    threads: given.Threads = None,
) -> None:
    """Have the target write its training text, with its hidden rows, until there is enough."""
    from mtp_cli import models
    from mtp_cli.waiting import loading
    from mtp_train.batching import bf16_copy
    from mtp_train.files import remove_abandoned
    from mtp_train.generate import Generator, Settings
    from mtp_train.layer_rows import chosen_layers
    from mtp_train.preflight import check_writing
    from mtp_train.target import Target

    corpus, path = folder / "corpus", target_path(model)
    have = n_written(corpus, path)
    check_writing(path, folder, n_tokens=max(0, tokens - have), bf16=bf16)
    corpus.mkdir(parents=True, exist_ok=True)
    for place in (folder, corpus):
        remove_abandoned(place)
    if have >= tokens:
        print(f"{corpus}: {have:,} tokens", file=sys.stderr)
        return
    if bf16:
        path = bf16_copy(path, folder)
    settings = Settings(
        tokens - have,
        n_slots=slots,
        seed=seed + 1000 * have,
        layers=chosen_layers(Target(path), layers),
        system=models.defaults(target_path(model)).system,
    )
    with loading(path.name, sys.stderr, quiet=False):
        generator = Generator(path, corpus, settings, threads or all_threads())
    with progress_bar() as progress:
        task = progress.add_task("writing", total=tokens, completed=have, note="")
        generator.run(lambda n: progress.update(task, completed=have + n))
    generator.close()
