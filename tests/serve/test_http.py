"""Over HTTP, at a scripted engine: forms of answers, errors, keys, names, clients that go away."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from mtp_cli.serve.connection import MAX_CONNECTIONS
from tests.chat.scripted import said
from tests.serve.scripted import ServedEngine, serving, until

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def connected(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)


def call(
    url: str, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if raw is not None else {}
    with contextlib.closing(connected(url)) as connection:
        connection.request(method, path, raw, {**given, **headers})
        return result(connection)


def result(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, json.loads(response.read())


def chunks(url: str, path: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """What a stream says, without its end."""
    body = json.dumps({**fields, "stream": True})
    with contextlib.closing(connected(url)) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def test_an_answer_is_one_object() -> None:
    with serving(ServedEngine(said("Hello"))) as url:
        status, found = call(url, "POST", CHAT, HELLO)
    assert status == 200
    assert found["object"] == "chat.completion"
    assert found["model"] == "scripted"
    choice = found["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert found["usage"]["completion_tokens"] == 6
    assert found["usage"]["total_tokens"] == 6 + found["usage"]["prompt_tokens"]


def test_a_stream_says_the_same_in_pieces() -> None:
    fields = {**HELLO, "stream_options": {"include_usage": True}, "logprobs": True}
    with serving(ServedEngine(said("Hello"))) as url:
        found = chunks(url, CHAT, fields)
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in found}) == 1
    *pieces, last = found
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [piece["choices"][0] for piece in pieces[1:]]
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == "Hello"
    assert [delta["finish_reason"] for delta in deltas] == [None] * 5 + ["stop"]
    tokens = [one for delta in deltas for one in (delta["logprobs"] or {"content": []})["content"]]
    assert "".join(one["token"] for one in tokens) == "Hello"
    assert bytes(byte for one in tokens for byte in one["bytes"]) == b"Hello"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 6)
    assert all(piece["usage"] is None for piece in pieces)


def test_completions_go_on_with_a_text() -> None:
    engine = ServedEngine(said("lo"), said("lo"), said("lo"))
    fields = {"prompt": "Hel", "logprobs": 1}
    with serving(engine) as url:
        _, found = call(url, "POST", COMPLETIONS, fields)
        call(url, "POST", COMPLETIONS, {"prompt": engine.prompts[0]})
        streamed = chunks(url, COMPLETIONS, fields)
    choice = found["choices"][0]
    assert (found["object"], choice["text"]) == ("text_completion", "lo")
    assert choice["logprobs"]["tokens"] == ["l", "o"]
    assert choice["logprobs"]["text_offset"] == [0, 1]
    assert [*choice["logprobs"]["top_logprobs"][0]] == ["l"]
    assert engine.prompts[0] == engine.prompts[1] == engine.prompts[2]
    assert bytes(engine.prompts[0][1:]) == b"Hel"
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == "lo"
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("path", "fields", "kind"),
    [
        (CHAT, {"response_format": {"type": "json_object"}}, "schema"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
         "schema"),
        (COMPLETIONS, {"json_schema": {"type": "string"}}, "schema"),
        (COMPLETIONS, {"grammar": 'root ::= "a"'}, "grammar"),
        (CHAT, {"response_format": {"type": "text"}}, None),
    ],
)  # fmt: skip
def test_answers_are_kept_to_what_was_asked_for(
    path: str, fields: dict[str, Any], kind: str | None
) -> None:
    engine = ServedEngine(said("{}"))
    asked = {**(HELLO if path == CHAT else {"prompt": "x"}), **fields}
    with serving(engine) as url:
        assert call(url, "POST", path, asked)[0] == 200
    assert [grammar.kind for grammar in engine.grammars] == ([] if kind is None else [kind])
    assert [constraint is None for constraint in engine.constraints] == [kind is None]


def test_models_are_listed_by_all_their_names() -> None:
    with serving(ServedEngine(said("Hello"))) as url:
        _, found = call(url, "GET", "/v1/models")
        _, one = call(url, "GET", "/v1/models/other-name")
        status, _ = call(url, "POST", CHAT, {**HELLO, "model": "other-name"})
        assert call(url, "GET", "/v1/models/a/b")[0] == 404
    assert [model["id"] for model in found["data"]] == ["scripted", "other-name"]
    assert (one["id"], one["object"], status) == ("other-name", "model", 200)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", CHAT, b"{", 400, "invalid_json"),
        ("POST", CHAT, {}, 400, "missing_required_parameter"),
        ("POST", CHAT, {**HELLO, "model": "gpt"}, 404, "model_not_found"),
        ("POST", CHAT, b" " * 2_000_000, 413, "request_too_large"),
        ("POST", COMPLETIONS, {"prompt": "x" * 5000}, 400, "context_length_exceeded"),
        ("POST", COMPLETIONS, {"prompt": [5, 10_000_000]}, 400, "invalid_value"),
        ("POST", CHAT, {**HELLO, "grammar": "root ::= nothing"}, 400, "invalid_value"),
        ("POST", CHAT, {**HELLO, "json_schema": {"type": 5}}, 400, "invalid_value"),
        ("GET", CHAT, None, 405, "unknown_url"),
        ("GET", "/v1/nothing", None, 404, "unknown_url"),
    ],
)
def test_errors_are_the_apis_own(method: str, path: str, body: Any, status: int, code: str) -> None:
    with serving(ServedEngine()) as url:
        found = call(url, method, path, body)
    assert found[0] == status
    assert {*found[1]["error"]} == {"message", "type", "param", "code"}
    assert found[1]["error"]["code"] == code


def test_a_form_is_no_json() -> None:
    """What a page of any site can send without being asked."""
    with serving(ServedEngine()) as url:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            assert call(url, "POST", CHAT, HELLO, **{"Content-Type": kind})[0] == 415


def test_other_names_of_this_machine_are_refused() -> None:
    with serving(ServedEngine()) as url:
        assert call(url, "GET", "/v1/models", Host="evil.example")[0] == 403
        assert call(url, "GET", "/v1/models", Host="localhost:5")[0] == 200
    with serving(ServedEngine(), hosts=None) as url:
        assert call(url, "GET", "/v1/models", Host="box.example")[0] == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [("", 401), ("Bearer no", 401), ("Basic secret", 401), ("Bearer secret", 200),
     ("bearer  secret", 200), ("Bearer s\u00e9cret", 401)],
)  # fmt: skip
def test_a_key_is_asked_for(header: str, status: int) -> None:
    with serving(ServedEngine(), key="secret") as url:
        found = call(url, "GET", "/v1/models", Authorization=header)
        assert call(url, "GET", "/health") == (200, {"status": "ok"})
    assert found[0] == status
    if status == 401:
        assert found[1]["error"]["code"] == "invalid_api_key"


def test_what_was_counted_is_told() -> None:
    with serving(ServedEngine(said("Hello"))) as url:
        call(url, "POST", CHAT, HELLO)
        call(url, "GET", "/strange")
        text = metrics(url)
    assert f'mtp_requests_total{{path="{CHAT}",status="200"}} 1.0' in text
    assert 'mtp_requests_total{path="other",status="404"} 1.0' in text
    assert "mtp_answer_tokens_total 6.0" in text
    assert "mtp_rounds_total 6.0" in text
    assert 'mtp_verified_tokens_total{position="1"} 6.0' in text
    assert "mtp_queue_seconds_count 1.0" in text


class Held:
    """An engine in the middle of an answer, until it is let go."""

    def __init__(self, *more: str) -> None:
        self.engine = ServedEngine(said("Hello"), *map(said, more))
        self.is_under_way, self.may_go_on = threading.Event(), threading.Event()
        self.n_rounds = 0
        self.engine.after_round = self._wait

    def _wait(self) -> None:
        self.n_rounds += 1
        self.is_under_way.set()
        assert self.may_go_on.wait(20)


def begun(url: str, fields: dict[str, Any]) -> http.client.HTTPConnection:
    connection = connected(url)
    connection.request("POST", CHAT, json.dumps(fields), {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_stops_the_answer(stream: bool) -> None:
    held = Held("Yes")
    with serving(held.engine) as url:
        connection = begun(url, {**HELLO, "stream": stream})
        assert held.is_under_way.wait(20)
        connection.close()
        generation = held.engine.generation
        assert generation is not None
        until(lambda: generation._is_stopped, "the answer was not stopped")
        held.may_go_on.set()
        assert call(url, "POST", CHAT, HELLO)[1]["choices"][0]["message"]["content"] == "Yes"
    assert len(generation.tokens) == 1


def test_who_goes_away_in_the_queue_is_not_answered() -> None:
    held = Held("Yes")
    with serving(held.engine, queue=1) as url:
        first = begun(url, HELLO)
        assert held.is_under_way.wait(20)
        waiting = begun(url, {**HELLO, "stream": True})
        until(lambda: "mtp_queue_length 1.0" in metrics(url), "it does not wait")
        waiting.close()
        until(lambda: "mtp_queue_length 0.0" in metrics(url), "it still waits")
        held.may_go_on.set()
        assert result(first)[0] == 200
        assert call(url, "POST", CHAT, HELLO)[0] == 200
    assert len(held.engine.prompts) == 2


def metrics(url: str) -> str:
    with contextlib.closing(connected(url)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def test_a_full_queue_is_said() -> None:
    held = Held("Yes")
    with serving(held.engine, queue=1) as url:
        first = begun(url, HELLO)
        assert held.is_under_way.wait(20)
        second = begun(url, HELLO)
        until(lambda: "mtp_queue_length 1.0" in metrics(url), "it does not wait")
        status, found = call(url, "POST", CHAT, HELLO)
        held.may_go_on.set()
        texts = [result(connection)[1] for connection in (first, second)]
    assert (status, found["error"]["code"]) == (429, "queue_full")
    assert [text["choices"][0]["message"]["content"] for text in texts] == ["Hello", "Yes"]


def test_the_end_of_the_server_is_said_to_who_waits() -> None:
    held = Held("Yes")
    with serving(held.engine) as url:
        streamed = begun(url, {**HELLO, "stream": True})
        assert held.is_under_way.wait(20)
        waiting = begun(url, HELLO)
        until(lambda: "mtp_queue_length 1.0" in metrics(url), "it does not wait")
        threading.Timer(0.3, held.may_go_on.set).start()
    assert result(waiting)[0] == 503
    with contextlib.closing(streamed):
        assert b'"code":"overloaded"' in streamed.getresponse().read()


def test_an_engine_that_fails_is_an_error_of_the_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = ServedEngine()  # without an answer in its script
    with serving(engine) as url:
        status, found = call(url, "POST", CHAT, HELLO)
        streamed = chunks(url, CHAT, HELLO)
    assert (status, found["error"]["type"]) == (500, "server_error")
    assert "IndexError" not in json.dumps(found)
    assert engine.n_forgotten == 2
    assert streamed[-1]["error"]["code"] == "internal"
    assert "IndexError" in capsys.readouterr().err


def test_half_a_body_is_waited_for_a_while_only() -> None:
    with serving(ServedEngine(), body_s=0.2) as url:
        connection = connected(url)
        connection.putrequest("POST", CHAT)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b'{"mess')
        assert result(connection)[0] == 408


def test_what_is_no_http_is_told_so() -> None:
    with serving(ServedEngine()) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as raw:
            raw.sendall(b"\x80\x81\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_more_connections_than_are_served_are_closed() -> None:
    with serving(ServedEngine()) as url:
        parts = urlsplit(url)
        sockets = [
            socket.create_connection((parts.hostname, parts.port)) for _ in range(MAX_CONNECTIONS)
        ]
        one_more = socket.create_connection((parts.hostname, parts.port), timeout=20)
        with one_more, contextlib.suppress(ConnectionResetError):
            assert one_more.recv(1) == b""
        for one in sockets:
            one.close()
        assert call(url, "GET", "/health")[0] == 200
