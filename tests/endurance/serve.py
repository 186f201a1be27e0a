"""Many clients at once at `mtp-serve`, broken ones among them: nothing lost, mixed up or leaked.

    python -m tests.endurance.serve --minutes 10 --clients 50

Good clients talk in two turns, whole or streamed, some reading slowly; what each is told must be
what it was told when it was alone. Broken ones leave in the middle of an answer or before it, stop
in the middle of a request's head or body, or send what is no JSON, no request of the API, no HTTP.
At the end the server has as many threads and open files as before, its memory has not grown after
the first third, and it ends by SIGTERM with exit status 0 and no word.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psutil

from tests.serve.process import Served

MOST_GROWTH = 48 << 20  # bytes, of allocators' noise
_OPTIONS = ("--ctx", "512", "--cache-ram", "64", "--queue", "256", "--threads", "2")
_MAX_TOKENS = 16
_TOPICS = ("rain", "bread", "the moon", "trains", "tea")
_PATIENCE_S = 300  # that a good client waits for an answer

Messages = list[dict[str, str]]


@dataclass
class Found:
    """What the clients saw. faults: a line each"""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Client:
    """Raw HTTP to one server, so that it can be broken anywhere."""

    def __init__(self, host: str, port: int, random: Random) -> None:
        self._host, self._port = host, port
        self.random = random

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    def head(self, n_bytes: int, path: str = "/v1/chat/completions") -> bytes:
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "Content-Type: application/json",
            f"Content-Length: {n_bytes}",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode()

    async def ask(self, fields: Mapping[str, Any], *, pause_s: float = 0) -> tuple[int, bytes]:
        """Status and body of an answer; pause_s: between small pieces, as a slow reader takes it"""
        body = json.dumps(fields).encode()
        return await self.send(self.head(len(body)) + body, pause_s=pause_s)

    async def send(self, request: bytes, *, pause_s: float = 0) -> tuple[int, bytes]:
        reader, writer = await self.open()
        with contextlib.closing(writer):
            writer.write(request)
            await writer.drain()
            answer = b""
            while part := await asyncio.wait_for(
                reader.read(64 if pause_s else 65536), _PATIENCE_S
            ):
                answer += part
                await asyncio.sleep(pause_s)
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = unchunked(body)
        return int(head.split(b" ", 2)[1]), body


def unchunked(body: bytes) -> bytes:
    """Without the sizes of chunks; what is not whole is a ValueError."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        n_bytes = int(size, 16)
        if n_bytes == 0:
            return whole
        if len(body) < n_bytes + 2:
            raise ValueError("a chunk was cut off")
        whole, body = whole + body[:n_bytes], body[n_bytes + 2 :]


def asked(messages: Messages, *, stream: bool = False) -> dict[str, Any]:
    fields = {"messages": messages, "max_completion_tokens": _MAX_TOKENS, "temperature": 0}
    return {**fields, "stream": stream}


def text_of(status: int, body: bytes, *, stream: bool) -> str:
    """What an answer says; AssertionError where it is none."""
    assert status == 200, f"{status}: {body[:200]!r}"
    if not stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert events[-1] == b"[DONE]", events[-1:]
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length"), chunks[-1]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def questions(topic: str) -> tuple[str, str]:
    return f"Tell me about {topic}.", f"And more of {topic}?"


async def talk(
    client: Client, topic: str, *, stream: bool = False, pause_s: float = 0
) -> tuple[str, str]:
    """Both answers of a conversation."""
    messages: Messages = []
    said = []
    for question in questions(topic):
        messages.append({"role": "user", "content": question})
        status, body = await client.ask(asked(messages, stream=stream), pause_s=pause_s)
        said.append(text_of(status, body, stream=stream))
        messages.append({"role": "assistant", "content": said[-1]})
    return said[0], said[1]


class Load:
    """alone: what each topic's conversation said when nobody else asked"""

    def __init__(self, alone: Mapping[str, tuple[str, str]], found: Found) -> None:
        self._alone = alone
        self._found = found

    async def good(self, client: Client) -> None:
        topic, stream = client.random.choice(_TOPICS), client.random.random() < 0.5
        self._compare(topic, await talk(client, topic, stream=stream))

    async def slow(self, client: Client) -> None:
        topic = client.random.choice(_TOPICS)
        self._compare(topic, await talk(client, topic, stream=True, pause_s=0.02))

    def _compare(self, topic: str, said: tuple[str, str]) -> None:
        self._found.counts["answers"] += 2
        if said != self._alone[topic]:
            self._found.faults.append(f"{topic}: {said!r}, alone {self._alone[topic]!r}")

    async def leaves(self, client: Client) -> None:
        """In the middle of a stream, or while it waits for the whole."""
        stream = client.random.random() < 0.7
        question = f"Count, {client.random.random()}."
        body = json.dumps(asked([{"role": "user", "content": question}], stream=stream)).encode()
        reader, writer = await client.open()
        writer.write(client.head(len(body)) + body)
        await writer.drain()
        if stream:
            await reader.read(client.random.randrange(1, 2000))
        await asyncio.sleep(client.random.random() * 0.3)
        if client.random.random() < 0.5:
            writer.transport.abort()
        writer.close()
        await asyncio.sleep(client.random.random())

    async def half(self, client: Client) -> None:
        """Part of a head or of a body, and silence."""
        body = json.dumps(asked([{"role": "user", "content": "Hello"}])).encode()
        request = client.head(len(body)) + body
        _reader, writer = await client.open()
        writer.write(request[: client.random.randrange(len(request))])
        await writer.drain()
        await asyncio.sleep(client.random.random() * 3)
        writer.close()

    async def garbage(self, client: Client) -> None:
        """What is no JSON, no request, or no HTTP: each is told so, and nothing breaks."""
        bodies = (
            b"{", b"\xff\xfe", b"[]", b'{"messages": []}', b'{"messages": [{"role": "wizard"}]}',
            b'{"messages": [{"role": "user", "content": "\\ud800"}]}', b"[" * 100_000,
            b'{"messages": [{"role": "user", "content": "' + b"word " * 4000 + b'"}]}',
            b'{"messages": [{"role": "user", "content": "x"}], "n": 2}',
        )  # fmt: skip
        body = client.random.choice(bodies)
        status, told = await client.send(client.head(len(body)) + body)
        self._refused(body, status, told)
        noise = bytes(client.random.randrange(128, 256) for _ in range(40)) + b"\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            self._refused(noise, *await client.send(noise))
        await asyncio.sleep(client.random.random())

    def _refused(self, sent: bytes, status: int, told: bytes) -> None:
        try:
            fields = json.loads(told)["error"]
            assert 400 <= status < 500
            assert {*fields} == {"message", "type", "param", "code"}
        except (AssertionError, ValueError, KeyError):
            self._found.faults.append(f"{sent[:60]!r}: {status} {told[:200]!r}")

    def kinds(self) -> Sequence[tuple[str, Callable[[Client], Awaitable[None]]]]:
        """As often as they come: of fifty, thirty are good and two of these slow."""
        one = {
            "good": self.good, "slow": self.slow, "leaves": self.leaves, "half": self.half,
            "garbage": self.garbage,
        }  # fmt: skip
        more = ["good"] * 27 + ["slow"] + ["leaves"] * 9 + ["half"] * 4 + ["garbage"] * 4
        Random(0).shuffle(more)
        return [(name, one[name]) for name in (*one, *more)]


async def clients(
    served: Served, alone: Mapping[str, tuple[str, str]], found: Found, n: int, seconds: float
) -> None:
    """n clients at once, each of one kind and each again and again."""
    load, end = Load(alone, found), time.monotonic() + seconds

    async def one(i: int) -> None:
        kinds = load.kinds()
        name, act = kinds[i % len(kinds)]
        client = Client(served.host, served.port, Random(i))
        while time.monotonic() < end:
            await once(name, act, client)

    async def once(name: str, act: Callable[[Client], Awaitable[None]], client: Client) -> None:
        try:
            await act(client)
            found.counts[name] += 1
        except Exception as error:
            found.faults.append(f"{name}: {type(error).__name__}: {error}")
            await asyncio.sleep(0.5)

    await asyncio.gather(*map(one, range(n)))


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    n_threads: int
    n_files: int
    n_bytes: int


def held(process: psutil.Process) -> Held:
    return Held(process.num_threads(), process.num_fds(), process.memory_info().rss)


async def watch(process: psutil.Process, resident: list[int]) -> None:
    while True:
        resident.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


async def settled(process: psutil.Process, before: Held) -> Held:
    """What is held once all clients have gone and the last answer has ended."""
    for _ in range(60):
        after = held(process)
        if after.n_files <= before.n_files and after.n_threads <= before.n_threads:
            break
        await asyncio.sleep(0.5)
    return after


async def endured(served: Served, n: int, seconds: float) -> tuple[Found, list[int]]:
    """What the clients saw and what leaked, and the server's memory meanwhile."""
    found, resident, process = Found(), list[int](), psutil.Process(served.process.pid)
    first = Client(served.host, served.port, Random(0))
    alone = {topic: await talk(first, topic) for topic in _TOPICS}
    # Threads that are made when they are needed, up to a number: those are no leak.
    await clients(served, alone, found, n, min(5.0, seconds))
    await asyncio.sleep(2)
    before = held(process)
    watching = asyncio.ensure_future(watch(process, resident))
    await clients(served, alone, found, n, seconds)
    watching.cancel()
    after = await settled(process, before)
    if after.n_files > before.n_files or after.n_threads > before.n_threads:
        found.faults.append(f"held before: {before}, after: {after}")
    growth = max(resident) - max(resident[: len(resident) // 3 + 1])
    if growth > MOST_GROWTH:
        found.faults.append(f"memory grew by {growth >> 20} MB")
    again = {topic: await talk(first, topic) for topic in _TOPICS}
    if again != alone:
        found.faults.append("answers to one client alone are others than before")
    return found, resident


def run(n: int, seconds: float) -> tuple[Found, list[int]]:
    """The whole of it, the server's end included."""
    with Served(*_OPTIONS) as served:
        found, resident = asyncio.run(endured(served, n, seconds))
        status = served.end()
        said = [line for line in served.lines if not line.startswith("preparing ")]  # if it is slow
        if status != 0 or len(said) != 1:
            found.faults.append(f"ended with {status} and said {served.lines}")
    return found, resident


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.serve", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=50)
    options = parser.parse_args()
    found, resident = run(options.clients, 60 * options.minutes)
    print(", ".join(f"{name} {n}" for name, n in sorted(found.counts.items())))
    print(f"memory {resident[0] >> 20} MB at first, at most {max(resident) >> 20} MB")
    for fault in found.faults:
        print(f"FAULT {fault}")
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
