"""Loads the model, listens, and ends cleanly.

What can be wrong shows in one line before the model loads, where it can.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import psutil
import uvicorn

from mtp_cli.conversation.choice import (
    named_template,
    template_file,
    template_variables,
    usual_template,
)
from mtp_cli.conversation.repetition import STUCK
from mtp_cli.conversation.session import Depth
from mtp_cli.errors import MtpError
from mtp_cli.load_options import ChosenWays
from mtp_cli.models import ModelFiles, with_heads_beside
from mtp_cli.opening import open_engine
from mtp_cli.screen import dim, fold, say
from mtp_cli.serve.answers import Desk
from mtp_cli.serve.app import House, application, local_names
from mtp_cli.serve.connection import Connection
from mtp_cli.serve.metrics import Metrics
from mtp_cli.serve.prompts import Prompts
from mtp_cli.serve.timelines import Timelines
from mtp_cli.serve.worker import Worker

if TYPE_CHECKING:
    from mtp_cli.engine import Engine

_CACHE_SHARE = 1 / 4  # of the memory that is free once the model is loaded, for conversations
_KEEP_ALIVE_S = 30
_LAST_WORDS_S = 5  # for readers of answers that the end of the server cuts off


@dataclass(frozen=True)
class Options:
    """The command line; None is the default everywhere.

    aliases:   other names of the model
    n_queued:  requests that may wait
    cache_mib: for conversations beside the one that is being answered
    template_vars: "name=value"
    """

    files: ModelFiles
    host: str
    port: int
    key: str | None
    aliases: Sequence[str]
    n_queued: int
    cache_mib: int | None
    n_ctx: int | None
    n_threads: int | None
    n_gpu_layers: int | None
    cache_types: tuple[str, str]
    ways: ChosenWays
    depth: Depth
    exact: bool
    guards_loops: bool
    chat_template: str | None
    template_vars: Sequence[str]
    quiet: bool


def serve(options: Options) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    template = template_file(options.chat_template) if options.chat_template else None
    with contextlib.closing(listening(options.host, options.port)) as listener:
        files = with_heads_beside(options.files)
        with open_engine(files, options) as engine:
            if options.chat_template and template is None:
                template = named_template(engine.metadata, options.chat_template)
            house = _house(engine, dataclasses.replace(options, files=files), template)

            def say_ready() -> None:
                for line in _opening_lines(engine, house, listener, options):
                    _note(line, options)

            run(house, listener, say_ready)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; MtpError where it cannot."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _name, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no such host"
        raise MtpError(
            f"cannot listen on {host}:{port}: {why} (--port gives another, 0 any that is free)"
        ) from error
    return listener


def _house(engine: Engine, options: Options, template: str | None) -> House:
    defaults = options.files.defaults
    sampling: dict[str, Any] = {**defaults.sampling}
    worker, metrics = Worker(options.n_queued), Metrics()
    timelines = Timelines(engine, cache_bytes(options.cache_mib))
    prompts = Prompts(
        engine,
        template or usual_template(engine.metadata),
        variables=template_variables(options.template_vars),
        system=defaults.system,
    )
    return House(
        Desk(engine, prompts, timelines, options.depth, options.exact, metrics.count_answer),
        worker,
        metrics,
        (*options.aliases, options.files.name),
        int(time.time()),
        dataclasses.replace(engine.recommended.sampling, **sampling),
        STUCK if options.guards_loops else None,
        options.key,
        local_names(options.host),
    )


def cache_bytes(mib: int | None) -> int:
    """What conversations may take beside the newest one."""
    if mib is not None:
        return mib << 20
    return int(psutil.virtual_memory().available * _CACHE_SHARE)


def _opening_lines(
    engine: Engine, house: House, listener: socket.socket, options: Options
) -> Iterator[str]:
    yield from engine.recommended.left_out
    drafts = ", without drafting" if options.depth == 0 else ""
    if not drafts and engine.drafter is None:
        drafts = ", drafting where text repeats itself"
    drafts = drafts or f", drafting with {engine.drafter}"
    address, port = listener.getsockname()[:2]
    name = f"[{address}]" if ":" in address else address
    if house.hosts is None and house.key is None:
        yield "without --api-key everyone who reaches this machine can ask"
    yield f"{house.names[0]} at http://{name}:{port}/v1{drafts}; Ctrl-C stops"


def _note(text: str, options: Options) -> None:
    if not options.quiet:
        say(dim(fold(text, sys.stderr), sys.stderr), sys.stderr)


class Server(uvicorn.Server):
    """uvicorn's, which ends what is under way when it is told to end, and then returns."""

    def __init__(self, house: House, on_ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                application(house),
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_WORDS_S,
            )
        )
        self._worker = house.worker
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does it, but that the signal is not raised again: it has been followed."""
        before = {}
        with contextlib.suppress(ValueError):  # not in the main thread
            before = {number: signal.signal(number, self._end) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of readers that it cuts off
        await anyio.to_thread.run_sync(self._worker.close)
        await super().shutdown(sockets)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(house: House, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve on a socket until a signal; on_ready: called once signals are followed."""
    house.worker.start()
    try:
        Server(house, on_ready).run([listener])
    finally:
        house.worker.close()
