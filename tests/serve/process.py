"""`mtp-serve` as a process, for clients of tests: started at any free port, ended by a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from types import TracebackType

_AT = re.compile(r"at http://(\S+):(\d+)/v1")
COMMAND = (sys.executable, "-c", "from mtp_cli.serve.cli import main; main()")


class Served:
    """A server while it runs. url: where clients begin; lines: what stands on its stderr"""

    def __init__(self, *options: str, **environment: str) -> None:
        self._options = options
        self._environment = environment
        self.lines: list[str] = []
        self._is_ready = threading.Event()

    def __enter__(self) -> Served:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "1000", **self._environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._is_ready.wait(120) or not hasattr(self, "port"):
            self.process.kill()
            raise AssertionError(f"the server did not start: {self.lines}")
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))
                found = _AT.search(line)
                if found:
                    self.host, self.port = found[1], int(found[2])
                    self._is_ready.set()
        self._is_ready.set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        status = self.process.wait(20)
        self._reader.join(5)
        return status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
