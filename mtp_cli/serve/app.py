"""HTTP in, answers out: routes, keys, the API's errors, clients that go away.

Knows nothing of models: what answers is a `Desk`, and who runs it a `Worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtp_cli.conversation.repetition import Loop
from mtp_cli.conversation.speech import Ending
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.errors import MtpError
from mtp_cli.serve import requests
from mtp_cli.serve.answers import AnswerJob, Ask, Desk, Done, Event, Failed
from mtp_cli.serve.faults import ApiError, internal, invalid, of_validation
from mtp_cli.serve.metrics import CONTENT_TYPE, Metrics
from mtp_cli.serve.prompts import Prompt
from mtp_cli.serve.replies import END, ChatReply, CompletionReply, Reply, as_event
from mtp_cli.serve.worker import Worker

if TYPE_CHECKING:
    from mtp_cli.engine.grammar.source import Grammar

STALLED_S = 120.0  # a reader that takes nothing for as long has gone, whatever its socket says
_BYTES_A_TOKEN = 256  # of a request, JSON around the text included: no prompt that fits has more
_MIN_BODY = 1 << 20  # bytes that a request may always have: tools and images come in any size
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_Request = TypeVar("_Request", bound=requests.Request)
_Prepared = TypeVar("_Prepared")


@dataclass(frozen=True)
class House:
    """What is served, and how.

    names:    of the model, the first of which is shown
    sampling: where a request says nothing
    loop:     what counts as stuck, None for nothing
    key:      that clients must give; None for none
    hosts:    names that clients may call this server by; None for any
    body_s:   a request that has not come whole by then is half of one
    preparing: where prompts are made: one at a time, and others are served meanwhile
    """

    desk: Desk
    worker: Worker
    metrics: Metrics
    names: Sequence[str]
    created: int
    sampling: Sampling = field(default_factory=Sampling)
    loop: Loop | None = None
    key: str | None = None
    hosts: Sequence[str] | None = None
    body_s: float = 30.0
    preparing: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "prompts"))

    async def prepared(self, make: Callable[[], _Prepared]) -> _Prepared:
        """Templates and long texts take a while, in which others are served."""
        return await asyncio.get_running_loop().run_in_executor(self.preparing, make)

    @property
    def max_body(self) -> int:
        return max(_MIN_BODY, _BYTES_A_TOKEN * self.desk.engine.n_ctx)

    def knows(self, model: str | None) -> str:
        """The model's name as a client gave it; ApiError where it is another one's."""
        if not model:
            return self.names[0]
        if model not in self.names:
            raise ApiError(
                404, f"there is no model {model!r}: this server has {', '.join(self.names)}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return model


def local_names(host: str) -> Sequence[str] | None:
    """Names that a server on `host` goes by; None where it is open to more than this machine.

    A web page can let its own name lead to 127.0.0.1, and a browser then lets it talk to what
    listens there. It cannot hide the name.
    """
    return (host, *_LOCAL_NAMES) if host in _LOCAL_NAMES else None


def application(house: House) -> ASGIApp:
    worker, timelines, watch = house.worker, house.desk.timelines, house.metrics.watch
    watch("queue_length", "Requests that wait.", lambda: worker.n_waiting)
    watch("answering", "Whether a request is being answered.", lambda: worker.is_busy)
    watch("kept_conversations", "Beside the newest one.", lambda: len(timelines))
    watch("kept_bytes", "Memory that they take.", lambda: timelines.n_bytes)
    routes = [
        Route("/health", _health, methods=["GET"]),
        Route("/metrics", functools.partial(_metrics, house), methods=["GET"]),
        Route("/v1/models", functools.partial(_models, house), methods=["GET"]),
        Route("/v1/models/{name:path}", functools.partial(_model, house), methods=["GET"]),
        Route(_CHAT, functools.partial(_chat, house), methods=["POST"]),
        Route(_COMPLETIONS, functools.partial(_completions, house), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        ApiError: lambda _request, error: _refused(error),
        HTTPException: _not_there,
        Exception: lambda _request, _error: _refused(internal()),
    }
    return _Door(Starlette(routes=routes, exception_handlers=handlers), house)


def _refused(error: ApiError) -> Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _not_there(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = f"{request.method} {request.url.path} is not served here"
    return _refused(ApiError(status, said, code="unknown_url"))


class _Door:
    """Counts requests, and lets in who gives the key and calls the server by its name."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app = app
        self._house = house
        self._paths = {"/health", "/metrics", "/v1/models", _CHAT, _COMPLETIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._house.metrics.count_request(path, message["status"])
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, counted)

    def _refusal(self, request: Request) -> Response | None:
        house = self._house
        if house.hosts is not None and request.url.hostname not in house.hosts:
            said = "this server goes by the names " + ", ".join(house.hosts[1:])
            return _refused(ApiError(403, said, code="unknown_host"))
        if house.key is None or request.url.path == "/health":
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), house.key.encode())
        if scheme.lower() == "bearer" and is_right:
            return None
        said = "an API key is needed, as in: Authorization: Bearer KEY"
        return _refused(ApiError(401, said, code="invalid_api_key"))


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _metrics(house: House, _request: Request) -> Response:
    return Response(house.metrics.text(), media_type=CONTENT_TYPE)


def _listed(house: House, name: str) -> dict[str, Any]:
    fields = {"id": name, "object": "model", "created": house.created, "owned_by": "mtp-cli"}
    return {**fields, "context_length": house.desk.engine.n_ctx}


async def _models(house: House, _request: Request) -> Response:
    listed = [_listed(house, name) for name in house.names]
    return JSONResponse({"object": "list", "data": listed})


async def _model(house: House, request: Request) -> Response:
    return JSONResponse(_listed(house, house.knows(request.path_params["name"])))


async def _chat(house: House, http: Request) -> Response:
    asked = await _read(house, http, requests.ChatRequest)
    model = house.knows(asked.model)
    prompt = await house.prepared(functools.partial(house.desk.prompts.chat, asked))
    max_calls = 1 if asked.parallel_tool_calls is False else None
    ask = _ask(house, asked, prompt, asked.limit, asked.n_top)
    ask = dataclasses.replace(ask, max_calls=max_calls)
    if asked.must_call or (asked.offered and asked.grammars):
        grammar = await house.prepared(functools.partial(house.desk.prompts.calls, asked, prompt))
        ask = dataclasses.replace(ask, grammar=grammar)
    reply = ChatReply(model, includes_usage=asked.includes_usage)
    return await _answer(house, http, asked, ask, reply)


async def _completions(house: House, http: Request) -> Response:
    asked = await _read(house, http, requests.CompletionRequest)
    model, given = house.knows(asked.model), asked.only_prompt
    prompt = await house.prepared(functools.partial(house.desk.prompts.continued, given))
    ask = _ask(house, asked, prompt, asked.limit, asked.n_top)
    reply = CompletionReply(model, includes_usage=asked.includes_usage)
    return await _answer(house, http, asked, ask, reply)


def _ask(
    house: House,
    asked: requests.Request,
    prompt: Prompt,
    limit: int | None,
    n_top: int | None,
) -> Ask:
    sampling = dataclasses.replace(house.sampling, **asked.sampling)
    grammar = next(map(_grammar, asked.grammars), None)
    return Ask(prompt, sampling, limit, Ending(asked.stops, house.loop), n_top, grammar=grammar)


def _grammar(asked: requests.Asked) -> Grammar:
    """ApiError for a grammar or a schema that is none, or cannot be kept to."""
    from mtp_cli.engine.grammar.source import gbnf, json_schema  # loads llguidance

    try:
        source = asked.source
        return gbnf(source) if isinstance(source, str) else json_schema(source)
    except MtpError as error:
        raise invalid(asked.param, str(error)) from error


async def _read(house: House, http: Request, kind: type[_Request]) -> _Request:
    """The request that a body holds; ApiError for anything else."""
    if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError(415, "a body of Content-Type application/json is read", code="content_type")
    body = bytearray()
    try:
        with anyio.fail_after(house.body_s):
            async for part in http.stream():
                body += part
                if len(body) > house.max_body:
                    raise ApiError(413, "the body is too large", code="request_too_large")
    except (TimeoutError, ClientDisconnect):  # of whom nobody hears it
        raise ApiError(408, "the body did not come whole", code="timeout") from None
    try:
        asked = kind.model_validate_json(bytes(body))
    except ValidationError as error:
        raise of_validation(error) from error
    asked.check()
    return asked


async def _answer(
    house: House, http: Request, asked: requests.Request, ask: Ask, reply: Reply
) -> Response:
    """Wait in the queue, then answer, whole or as a stream."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def deliver(event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so has who waited
            loop.call_soon_threadsafe(events.put_nowait, event)

    client = asked.prompt_cache_key or asked.user or (http.client.host if http.client else "")
    job = AnswerJob(house.desk, ask, client, deliver)
    house.worker.submit(job)
    cancel = functools.partial(house.worker.cancel, job)
    if asked.stream:
        return _Stream(events, reply, cancel)
    return await _whole(events, reply, cancel, http.receive)


async def _whole(
    events: asyncio.Queue[Event], reply: Reply, cancel: Callable[[], None], receive: Receive
) -> Response:
    collected = asyncio.ensure_future(_collected(events))
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((collected, gone), return_when=asyncio.FIRST_COMPLETED)
        if not collected.done():
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(reply.whole(collected.result()))
    finally:
        cancel()
        for task in (collected, gone):
            task.cancel()


async def _collected(events: asyncio.Queue[Event]) -> list[Event]:
    found = [await events.get()]
    while not isinstance(found[-1], Done | Failed):
        found.append(await events.get())
    return found


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Stream(Response):
    """Server-sent events. What came meanwhile goes out together; no reader holds up the engine."""

    media_type = "text/event-stream"

    def __init__(
        self, events: asyncio.Queue[Event], reply: Reply, cancel: Callable[[], None]
    ) -> None:
        super().__init__()
        self._events = events
        self._reply = reply
        self._cancel = cancel
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._cancel()
            for task in (sending, gone):
                task.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for body in self._bodies():
                with anyio.fail_after(STALLED_S):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            with anyio.fail_after(STALLED_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # uvicorn closes what was not completed

    async def _bodies(self) -> AsyncIterator[bytes]:
        opening = b"".join(map(as_event, self._reply.opening()))
        if opening:
            yield opening
        is_over = False
        while not is_over:
            batch = [await self._events.get()]
            while not self._events.empty():
                batch.append(self._events.get_nowait())
            is_over = isinstance(batch[-1], Done | Failed)
            yield b"".join(map(self._encoded, batch)) + (END if is_over else b"")

    def _encoded(self, event: Event) -> bytes:
        if isinstance(event, Failed):
            return as_event(event.error.body())
        return b"".join(map(as_event, self._reply.chunks(event)))
