"""RPC servers on this machine's loopback, one process each, for tests that draft through them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mtp_cli.engine.backend import rpc

_PATIENCE_S = 60
needs_rpc = pytest.mark.skipif(
    rpc.address_of(b"ggml_backend_rpc_add_server") is None,
    reason="this llama.cpp was built without RPC",
)


class Server:
    """llama.cpp's own, lending the CPU with one thread; address: HOST:PORT"""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mtp_cli.rpc", "--port", port, "--threads", "1"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Until it listens."""
        host, _, port = self.address.rpartition(":")
        ends_at = time.monotonic() + _PATIENCE_S
        while not _is_open(host, int(port)):
            assert self._process.poll() is None, "it ended"
            assert time.monotonic() < ends_at, "it does not listen"
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _is_open(host: str, port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((host, port)) == 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(n: int) -> Iterator[list[Server]]:
    """So many servers that listen; each has one client at a time."""
    servers = [Server() for _ in range(n)]
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()
