"""Real clients at a real server: the openai package, llm, curl. The built-in model answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from mtp_cli import models
from tests.serve.process import Served

MODEL = models.find().name
KEY = "a-key"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--ctx", "1024", "--alias", "small", MTP_API_KEY=KEY) as running:
        yield running
        assert running.end() == 0
    assert len(running.lines) == 1


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as opened:
        yield opened


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["small", MODEL]
    assert client.models.retrieve(MODEL).owned_by == "mtp-cli"


def test_openai_gets_an_answer_and_streams_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    text = whole.choices[0].message.content
    assert text is not None
    assert "Paris" in text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 1


def test_a_seed_gives_the_same_answer_again(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        given = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me about the sea."}],
            temperature=1,
            seed=seed,
            max_completion_tokens=24,
            stop=["zzz"],
        )
        return given.choices[0].message.content

    assert answer(5) == answer(5) != answer(6)


def test_openai_reads_log_probabilities(client: openai.OpenAI) -> None:
    given = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=6,
        logprobs=True,
        top_logprobs=3,
    )
    logprobs = given.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(one.token for one in logprobs.content) == given.choices[0].message.content
    for one in logprobs.content:
        assert one.logprob == max(other.logprob for other in one.top_logprobs) <= 0
        assert len(one.top_logprobs) == 3


def test_openai_gets_what_a_schema_asks_for(client: openai.OpenAI) -> None:
    colours = ["red", "green", "blue"]
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": colours}, "count": {"type": "integer", "minimum": 1, "maximum": 9}
        },
        "required": ["colour", "count"],
        "additionalProperties": False,
    }  # fmt: skip
    given = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Which colour has grass, and how many are there?"}],
        temperature=0,
        response_format={
            "type": "json_schema", "json_schema": {"name": "answer", "schema": schema}
        },
    )  # fmt: skip
    choice = given.choices[0]
    found = json.loads(choice.message.content or "")
    assert {*found} == {"colour", "count"}
    assert found["colour"] in colours
    assert found["count"] in range(1, 10)
    assert choice.finish_reason == "stop"


def test_openai_completes_a_text(client: openai.OpenAI) -> None:
    given = client.completions.create(
        model=MODEL, prompt="One, two, three,", temperature=0, max_tokens=4, logprobs=1
    )
    assert "four" in given.choices[0].text
    assert given.choices[0].finish_reason == "length"
    logprobs = given.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or ()) == given.choices[0].text


def test_openai_knows_what_went_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "x"}])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=MODEL, prompt="word " * 3000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as several:
        client.completions.create(model=MODEL, prompt="x", n=2)
    assert several.value.param == "n"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_openai_leaves_a_stream_early(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count to 500."}], stream=True
    ) as stream:
        next(iter(stream))
    again = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0
    )
    assert "Paris" in (again.choices[0].message.content or "")


@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_llm_talks_through_its_extra_models(
    served: Served, tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: local\n  model_name: small\n  api_base: {served.url}\n  api_key_name: local\n"
    )
    (tmp_path / "keys.json").write_text(json.dumps({"local": KEY}))
    asked = [sys.executable, "-m", "llm", "-m", "local", "-o", "temperature", "0", *more, QUESTION]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_gets_an_answer(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    done = subprocess.run(
        ["curl", "-sN", f"{served.url}/chat/completions", "-H", f"Authorization: Bearer {KEY}",
         "-H", "Content-Type: application/json", "-d", json.dumps({**body, "stream": True})],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("data: {")
    assert done.stdout.endswith("data: [DONE]\n\n")
    assert "Paris" in done.stdout
