"""Prompts that were read, kept on disk for the next time: what the target remembers of them, and
what drafts for it.

Owns the folder, which files are of use, and which go. Knows nothing of models: whoever asks says
what tells its memory from others'.

Reading goes from the beginning in parts of n_batch ids, and how rows are grouped can show in their
last bits. So of a kept prompt that goes on otherwise only whole parts are of use: what is read
after them is then grouped as if all had been read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtp_cli.engine.prefix import n_common_array
from mtp_cli.engine.saved_file import Damaged, read_ids, read_saved, size_of, write_saved
from mtp_cli.engine.types import N_OUTPUTS, Ids, Saved
from mtp_cli.whole_file import TEMPORARY

N_WORTH_KEEPING = 256  # ids: fewer are read again about as soon as they are found
_SUFFIX = ".prompt"
_STALE_S = 3600.0  # after which a file that is still being written belongs to a program that ended


@dataclass(frozen=True)
class Found:
    """A kept prompt, and how many of its ids a new one can go on from."""

    path: Path
    n: int


class KeptPrompts:
    """What one setting of one model has read.

    folder:    made where it is not there
    key:       what is common to all that can use each other's states
    n_batch:   ids that are read at once
    can_shorten: whether a state can lose its last ids; else a prompt is found whole or not at all
    max_bytes: that the folder's files may take, those of other keys among them
    on_problem: told why something could not be kept
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        *,
        n_batch: int,
        can_shorten: bool,
        max_bytes: int,
        on_problem: Callable[[str], None],
    ) -> None:
        self._folder, self._key = folder, key
        self._n_batch, self._can_shorten = n_batch, can_shorten
        self._max_bytes, self._on_problem = max_bytes, on_problem
        self._writer: threading.Thread | None = None

    def find(self, wanted: Sequence[int], n_live: int) -> Found | None:
        """What spares reading more of `wanted` than the n_live ids that are in memory."""
        self.finish()
        ids = np.fromiter(wanted, np.int32, len(wanted))
        found = [Found(path, self._n_of_use(kept, ids)) for path, kept in self._own()]
        best = max(found, key=lambda one: one.n, default=None)
        return best if best is not None and best.n >= n_live + N_WORTH_KEEPING else None

    def _n_of_use(self, kept: Ids, wanted: Ids) -> int:
        n = n_common_array(kept, wanted)
        if n == len(kept) == len(wanted):
            return n
        # Heads read rows of the prompt's end, which come from reading it.
        n = min(n, len(wanted) - N_OUTPUTS)
        return n - n % self._n_batch if self._can_shorten and n > 0 else 0

    def read(self, found: Found) -> Saved | None:
        """None, and the file is gone, where it is damaged."""
        try:
            saved = read_saved(found.path, self._key)
        except (OSError, Damaged):
            with contextlib.suppress(OSError):
                found.path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(found.path)  # the last ones used stay longest
        return saved

    def keep(self, saved: Saved) -> None:
        """Write it, while the caller goes on."""
        self.finish()
        self._writer = threading.Thread(target=self._write, args=(saved,))
        self._writer.start()

    def finish(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _write(self, saved: Saved) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ids = np.array(saved.ids, np.int32)
            if self._make_room(size_of(saved)):
                write_saved(self._path(ids), self._key, saved)
                self._drop_beginnings(ids)
        except OSError as error:
            why = error.strerror or error
            self._on_problem(f"--cache-prompt: {self._folder}: {why}; the prompt is not kept")

    def _drop_beginnings(self, ids: Ids) -> None:
        """The prompts that the one just written goes on from."""
        for path, kept in self._own():
            is_beginning = self._can_shorten and len(kept) < len(ids)
            if is_beginning and n_common_array(kept, ids) == len(kept):
                path.unlink(missing_ok=True)

    def _path(self, ids: Ids) -> Path:
        name = hashlib.sha256(ids.data).hexdigest()
        return self._folder / f"{self._key[:16]}-{name[:16]}{_SUFFIX}"

    def _own(self) -> Iterator[tuple[Path, Ids]]:
        """The prompts of this key, of files that can be read."""
        for path in sorted(self._folder.glob(f"{self._key[:16]}-*{_SUFFIX}")):
            with contextlib.suppress(OSError, Damaged):
                yield path, read_ids(path, self._key)

    def _make_room(self, n_bytes: int) -> bool:
        """For a file of so many bytes, the ones go first that were not used for longest."""
        for path in self._folder.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()
        files = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process has just removed it
                stat = path.stat()
                files.append((stat.st_mtime_ns, stat.st_size, path))
        n_held = sum(size for _when, size, _path in files)
        for _when, size, path in sorted(files):
            if n_held + n_bytes <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            n_held -= size
        return n_bytes <= self._max_bytes
