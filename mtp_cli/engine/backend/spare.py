"""The spare thread of our kernels (`native/spare.h`): who wants it, and when it must have let go.

Nobody waits for it, so that it helps a decode with one thread where other programs leave it only a
part of a core (`cores.py`). Linux alone, and our kernels alone; elsewhere there is none.
"""

from __future__ import annotations

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.native import compiled
from mtp_cli.engine.tuning import TUNING


class SpareThread:
    """One decoder's wish for it: one thread is there for all that have the wish."""

    def __init__(self) -> None:
        self._library = compiled.load() if our_kernels.install() is not None else None
        self._is_wanted = False

    def use(self, is_wanted: bool) -> None:
        """From the next decode on."""
        if self._library is None or is_wanted == self._is_wanted:
            return
        self._is_wanted = is_wanted
        if is_wanted:
            self._library.mtp_spare_begin(TUNING.cores.spare_niceness)
        else:
            self._library.mtp_spare_end()

    def offer(self) -> None:
        """To be called before each decode, since another decoder may not have the wish."""
        if self._library is not None:
            self._library.mtp_spare_offer(self._is_wanted)


def settle() -> None:
    """Return when it reads no weights any more; to be called before they are freed."""
    library = compiled.load()
    if library is not None:
        library.mtp_spare_settle()


def n_taken() -> int:
    """Chunks of products that it computed in time, since the process began."""
    library = compiled.load()
    return 0 if library is None else int(library.mtp_spare_taken())
