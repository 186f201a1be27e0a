"""What was found out about this machine, in a JSON file of the user's cache. Best effort.

Owns the file and the key that entries go by. Knows nothing of what the entries say.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import platformdirs

from mtp_cli.engine import tuning
from mtp_cli.engine.native import compiled
from mtp_cli.whole_file import write_whole

Value = TypeVar("Value")

_ENGINE = Path(__file__).parents[1]


class Remembered(Generic[Value]):
    """Values by the facts that they hold under (files, backends, threads).

    file:     its name in the cache's folder
    n_kept:   entries kept, the newest ones
    to_json:  a value as JSON
    from_json: what the file holds as a value again; None for what cannot be one, which is then
              found out anew and replaced
    """

    def __init__(
        self,
        file: str,
        n_kept: int,
        to_json: Callable[[Value], Any],
        from_json: Callable[[Any], Value | None],
    ) -> None:
        self._file, self._n_kept = file, n_kept
        self._to_json, self._from_json = to_json, from_json

    def get(self, facts: Sequence[object]) -> Value | None:
        return self._read().get(key_of(facts))

    def put(self, facts: Sequence[object], value: Value) -> None:
        """Without a cache the next start finds it out again."""
        self._write({**self._read(), key_of(facts): value})

    def drop(self, facts: Sequence[object]) -> None:
        """What is kept of these facts holds no more."""
        values = self._read()
        if values.pop(key_of(facts), None) is not None:
            self._write(values)

    def _write(self, values: dict[str, Value]) -> None:
        kept = {key: self._to_json(values[key]) for key in list(values)[-self._n_kept :]}
        path = self._path()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(kept), is_durable=False)

    def _read(self) -> dict[str, Value]:
        try:
            entries = json.loads(self._path().read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(entries, dict):
            return {}
        values = {key: self._from_json(entry) for key, entry in entries.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _path(self) -> Path:
        return Path(platformdirs.user_cache_dir("mtp-cli")) / self._file


def key_of(facts: Sequence[object]) -> str:
    """What tells these facts, this code and this machine from any others."""
    machine = (platform.node(), platform.machine(), platform.processor(), os.cpu_count())
    return hashlib.sha256(repr((code_digest(), *facts, machine)).encode()).hexdigest()


@functools.cache
def code_digest() -> str:
    """What tells the code that was measured, that measures, or that saved states, from any other.

    The compiled code, and the Python that chooses kernels, times them or compares their bits, and
    drafts. When any of it changes, costs and exact row counts that were found before hold no more,
    which `--exact` would believe; nor do states of drafters that were kept on disk.
    """
    digest = hashlib.sha256(compiled.digest().encode())
    folders = (_ENGINE / "backend", _ENGINE / "drafters", Path(__file__).parent)
    paths = (path for folder in folders for path in sorted(folder.glob("*.py")))
    for path in (*paths, Path(tuning.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
