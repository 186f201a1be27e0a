"""What a stage found, in a file that is whole after each piece of it. Knows nothing of pieces."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtp_cli.bench import recording
from mtp_cli.errors import MtpError

Found = dict[str, Any]


class Pieces:
    """The pieces of a stage, and how much of its time is left.

    seconds: that it may take, about; what is asked for when they are over is left out
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._ends = time.monotonic() + seconds
        self._found: Found = {}

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def add(self, name: str, piece: Callable[[], Found]) -> Found | None:
        """Measure a piece and write it down; where it fails, why, and the stage goes on."""
        started = time.monotonic()
        found: Found | None = None
        try:
            if self.left_s == 0:
                raise MtpError("no time was left")
            found = piece()
            content = found
        except MtpError as error:
            content = {"error": str(error)}
        except Exception:  # one piece must not cost the others, which nobody can measure again soon
            content = {"error": traceback.format_exc()}
        self._found[name] = {"took_s": time.monotonic() - started, **content}
        recording.write(self._path, self._found)
        return found
