"""What several commands need: the target's file, the processor's cores, a bar on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

# Imported when it is needed, so that help comes without numpy.
if TYPE_CHECKING:
    from rich.progress import Progress


def target_path(model: Path | None) -> Path:
    from mtp_cli import models

    return models.find(model).model


def all_threads() -> int:
    from mtp_cli.engine.backend.cores import physical_cores

    return physical_cores()


def n_written(corpus: Path, target: Path) -> int:
    """Tokens that are there already."""
    from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
    from mtp_train.corpus import n_tokens_in

    return n_tokens_in(corpus, target_fingerprint(read_shards(target))) if corpus.is_dir() else 0


def progress_bar() -> Progress:
    from rich import progress as bars
    from rich.console import Console

    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
