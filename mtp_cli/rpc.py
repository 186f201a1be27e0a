"""`mtp-rpc`: lends this machine's devices to a model that runs on another one (`--rpc` there).

The server is llama.cpp's own. Owns its options, and what is said before it starts.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from mtp_cli.errors import MtpError, path_fault
from mtp_cli.options import HELP, MAX_THREADS, Version
from mtp_cli.screen import fold, say, say_error

PORT = 50052  # as llama.cpp's own rpc-server

app = typer.Typer(context_settings=HELP, pretty_exceptions_enable=False, rich_markup_mode=None)

_Host = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is every network.")
]
_Port = Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")]
_Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="What is lent, by llama.cpp's names, as CUDA0,CPU. [default: the GPUs, or the CPU]",
    ),
]
_Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MAX_THREADS, help="CPU threads. [default: its cores]"),
]
_Cache = Annotated[
    bool,
    typer.Option("--cache", help="Keep weights on disk, which clients then need not send again."),
]

_EPILOG = f"""\b
Example, two machines:
  mtp-rpc --host 192.168.1.5                    on the one that helps
  mtp-chat -m big.gguf --rpc 192.168.1.5:{PORT}  on the other

\b
Whoever reaches the port can use the server, and nothing is encrypted: keep it to networks where
you trust everybody."""


@app.command(epilog=_EPILOG)
def lend(
    host: _Host = "127.0.0.1",
    port: _Port = PORT,
    device: _Device = None,
    threads: _Threads = None,
    cache: _Cache = False,
    version: Version = False,
) -> None:
    """Lend this machine's GPU or CPU to a model on another one, by llama.cpp's RPC."""
    address = _listening_address(host, port)

    from mtp_cli.engine.backend import our_kernels, rpc  # loads llama.cpp
    from mtp_cli.engine.backend.binding import device_name
    from mtp_cli.engine.backend.cores import physical_cores

    our_kernels.install()  # as the client does: a row has the same bits here, alone or with others
    lent = rpc.lendable(device.split(",") if device else None)
    folder = _folder() if cache else None
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would wait for llama.cpp
    names = ", ".join(map(device_name, lent))
    say(fold(f"lending {names} on {host}:{port}; Ctrl-C ends it", sys.stderr), sys.stderr)
    os.dup2(2, 1)  # llama.cpp's words
    rpc.serve(address, lent, threads or physical_cores(), folder)


def _listening_address(host: str, port: int) -> str:
    """The address to listen on, with its IP; MtpError where that is not to be had."""
    try:
        ip = socket.gethostbyname(host)
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((ip, port))
    except (OSError, UnicodeError) as error:
        is_unknown = isinstance(error, (socket.gaierror, UnicodeError))
        why = (
            "no such host; --host takes an address of this machine"
            if is_unknown
            else f"{path_fault(error)} (--port gives another port)"
        )
        raise MtpError(f"cannot listen on {host}:{port}: {why}") from error
    return f"{ip}:{port}"


def _folder() -> Path:
    """Where weights are kept; MtpError where there can be none."""
    folder = Path(platformdirs.user_cache_dir("mtp-cli")) / "rpc"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MtpError(f"{folder}: {path_fault(error)}; leave out --cache") from error
    return folder


def main() -> None:
    """The entry point; the only place that catches MtpError."""
    try:
        app(prog_name="mtp-rpc")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
