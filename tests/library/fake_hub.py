"""A hub on this machine that speaks Hugging Face's protocol: listings, resolve, a store of files.

Large files are answered with a redirect to another port, as to a content network, where ranges are
served. What was asked is kept, and each fault of a real one can be had.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_FAULTS = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}


@dataclass
class FakeHub:
    """repositories: the files of each, by name; requests: (method, path, headers) as they came

    status:      answered to everything instead, of repositories named here
    announced:   another size for a file of that name
    corrupted:   names of files whose content comes wrong
    stalls_at:   after that many bytes of a file nothing more comes
    breaks_at:   after that many bytes the connection ends
    no_ranges:   a range is answered with the whole file
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    corrupted: set[str] = field(default_factory=set)
    stalls_at: int | None = None
    breaks_at: int | None = None
    no_ranges: bool = False
    url: str = ""
    store_url: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def files(self) -> dict[str, tuple[str, bytes]]:
        """By hash: name and content."""
        every = (item for files in self.repositories.values() for item in files.items())
        return {sha256(content): (name, content) for name, content in every}

    def asked(self, method: str, start: str) -> list[dict[str, str]]:
        """The headers of requests for paths that begin so."""
        return [headers for m, path, headers in self.requests if m == method and start in path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub and its store, each on a port of its own."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, kind)) for kind in (Hub, Store)]
    hub.url, hub.store_url = (f"http://127.0.0.1:{s.server_address[1]}" for s in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.goes_on.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(hub: FakeHub, kind: type[Handler]) -> type[Handler]:
    return type(kind.__name__, (kind,), {"hub": hub})


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        with contextlib.suppress(ConnectionError):
            self.answer(path)

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def say(self, status: int, content: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Hub(Handler):
    def answer(self, path: str) -> None:
        for repository, status in self.hub.status.items():
            if repository in path:
                self.say(status, X_Error_Code=_FAULTS.get(status, ""))
                return
        if path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"))
        elif (match := _RESOLVE.fullmatch(path)) is not None:
            self._resolve(match["repository"], match["name"])
        else:
            self.say(404)

    def _list(self, repository: str) -> None:
        files = self.hub.repositories.get(repository)
        if files is None:
            self.say(401, X_Error_Code="RepoNotFound")
            return
        siblings = [self._sibling(name, content) for name, content in files.items()]
        document = {"id": repository, "sha": COMMIT, "siblings": siblings}
        self.say(200, json.dumps(document).encode(), Content_Type="application/json")

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        size = self.hub.announced.get(name, len(content))
        if not name.endswith(".gguf"):
            return {"rfilename": name, "size": size, "blobId": "0" * 40}
        lfs = {"size": size, "sha256": sha256(content), "pointerSize": 134}
        return {"rfilename": name, "size": size, "blobId": "0" * 40, "lfs": lfs}

    def _resolve(self, repository: str, name: str) -> None:
        content = self.hub.repositories[repository].get(name)
        if content is None:
            self.say(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        digest = sha256(content)
        self.say(
            302,
            Location=f"{self.hub.store_url}/{digest}",
            X_Repo_Commit=COMMIT,
            X_Linked_Size=len(content),
            X_Linked_ETag=f'"{digest}"',
            ETag='"of the pointer"',
        )


class Store(Handler):
    def answer(self, path: str) -> None:
        name, content = self.hub.files()[path.removeprefix("/")]
        if name in self.hub.corrupted:
            content = bytes(len(content))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not self.hub.no_ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._send(content[start:])

    def _send(self, content: bytes) -> None:
        if self.hub.breaks_at is not None:
            self.wfile.write(content[: self.hub.breaks_at])
            self.close_connection = True
            return
        if self.hub.stalls_at is not None and len(content) > self.hub.stalls_at:
            self.wfile.write(content[: self.hub.stalls_at])
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.goes_on.wait()
            content = content[self.hub.stalls_at :]
        self.wfile.write(content)
