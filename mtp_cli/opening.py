"""Opens a model as a command's options say, and tells the user meanwhile how far it is.

Knows the engine and one stream. Knows nothing of what the model is opened for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from mtp_cli.load_options import ChosenWays
from mtp_cli.models import ModelFiles
from mtp_cli.screen import fold, say
from mtp_cli.waiting import loading

if TYPE_CHECKING:
    from mtp_cli.engine import Engine


class Wishes(Protocol):
    """What options say of how a model is opened; None is the default everywhere."""

    @property
    def n_ctx(self) -> int | None: ...
    @property
    def n_threads(self) -> int | None: ...
    @property
    def n_gpu_layers(self) -> int | None: ...
    @property
    def cache_types(self) -> tuple[str, str]: ...
    @property
    def ways(self) -> ChosenWays: ...
    @property
    def quiet(self) -> bool: ...


def open_engine(files: ModelFiles, wishes: Wishes) -> Engine:
    """Load it; close it when done. Raises MtpError where it cannot be had like that."""
    from mtp_cli.engine import CacheTypes, Engine  # loads llama.cpp

    ways = wishes.ways()
    if not (wishes.quiet or (ways.placement.offloads and wishes.n_gpu_layers != 0)):
        _warn_of_memory(files, wishes)
    with loading(files.name, sys.stderr, quiet=wishes.quiet) as report:
        return Engine.open(
            files.model,
            files.heads,
            draft_model=files.draft_model,
            n_ctx=wishes.n_ctx,
            n_threads=wishes.n_threads,
            n_gpu_layers=wishes.n_gpu_layers,
            cache=CacheTypes(*wishes.cache_types),
            ways=ways,
            on_progress=report,
        )


def _warn_of_memory(files: ModelFiles, wishes: Wishes) -> None:
    """Before minutes are spent on loading what will not fit; other devices are tried."""
    from mtp_cli.engine.backend.cache import CacheTypes
    from mtp_cli.engine.files.gguf_header import read_shards
    from mtp_cli.engine.files.memory import Machine, estimate, shortage

    needed = estimate(
        read_shards(files.model),
        n_ctx=wishes.n_ctx,
        cache=CacheTypes(*wishes.cache_types),
        heads=files.heads,
        draft_model=files.draft_model,
    )
    line = shortage(files.name, needed, Machine.here())
    if line is not None:
        say(fold(line, sys.stderr), sys.stderr)
