"""One connection as uvicorn serves it, with what it leaves open closed.

uvicorn waits for ever for the rest of a request's head, and answers what is no HTTP in plain text.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mtp_cli.serve.faults import ApiError

HEAD_S = 20.0  # a head that has not come whole by then is half of one
MAX_CONNECTIONS = 512  # at once, of the thousand files that a process may have open


class Connection(H11Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._giving_up: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()
            return
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Give a head that has begun its time, and one that is whole no limit."""
        is_served = self.cycle is not None and not self.cycle.response_complete
        if is_served or self.conn.their_state is not h11.IDLE:
            self._wait_no_longer()
        elif self._giving_up is None:
            self._giving_up = self.loop.call_later(HEAD_S, self.transport.abort)

    def _wait_no_longer(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def send_400_response(self, msg: str) -> None:
        body = json.dumps(ApiError(400, msg.rstrip("."), code="invalid_http").body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
