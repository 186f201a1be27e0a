"""One answer in a pipe, with a scripted engine: what is written, and which status is returned."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

import pytest

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.pipe import answer_once, read_request
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Sampling
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from tests.chat.scripted import END, ScriptedEngine, said

FILES = ModelFiles(Path("/models/tiny.gguf"), Path("/models/tiny-mtp.gguf"))


def answer(
    engine: ScriptedEngine,
    *,
    out: TextIO,
    err: TextIO,
    as_json: bool = False,
    exact: bool = False,
) -> int:
    settings = Settings(Sampling(temperature=0.0), exact=exact)
    chat = Chat(Session(engine), settings, FILES, engine.n_ctx, out, err)
    return answer_once(chat, "Hi", as_json=as_json, drafts=True)


def test_the_answer_goes_to_out_alone() -> None:
    out, err = io.StringIO(newline=""), io.StringIO()
    said_ = "\u2067\u0639\u0631\u0628\u064a\u2069 \x1b[2J\r\n.\n\n"
    assert answer(ScriptedEngine(said(said_)), out=out, err=err) == 0
    assert out.getvalue() == said_  # to the byte: what reads it decides what it shows
    assert err.getvalue() == "prompt 22 tokens, 48 tok/s\n"  # there is no /stats to ask


def test_the_mode_that_ran_is_said() -> None:
    out, err = io.StringIO(), io.StringIO()
    answer(ScriptedEngine(said("Hi")), out=out, err=err, as_json=True, exact=True)
    assert json.loads(out.getvalue())["exact"] is True


def test_json_has_the_text_unchanged_and_the_numbers_of_the_line() -> None:
    out, err = io.StringIO(), io.StringIO()
    engine = ScriptedEngine([tuple(b"\xe2\x80\xae\x1b["), tuple(b"2J\n"), (END,)])
    assert answer(engine, out=out, err=err, as_json=True) == 0
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()
    assert err.getvalue() == ""
    assert json.loads(out.getvalue()) == {
        "text": "\u202e\x1b[2J\n",
        "reasoning": "",
        "tokens": [*b"\xe2\x80\xae\x1b[2J\n", END],
        "finish_reason": "stop",
        "prompt_tokens": len(engine.prompts[0]),
        "cached_tokens": 0,
        "completion_tokens": 9,
        "prefill_s": 0.25,
        "decode_s": 0.5,
        "tokens_per_s": 16.0,
        "rounds": 3,
        "verified": [3, 3],
        "accepted": [2, 0],
        "exact": False,
        "inexact_row_counts": [],
        "times_plain": None,
        "model": "/models/tiny.gguf",
        "heads": "/models/tiny-mtp.gguf",
        "draft_model": None,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_what_was_said(as_json: bool) -> None:
    out, err = io.StringIO(), io.StringIO()
    engine = ScriptedEngine(said("Hello"))
    engine.after_round = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert answer(engine, out=out, err=err, as_json=as_json) == 130
    if as_json:
        assert json.loads(out.getvalue())["finish_reason"] == "interrupted"
        assert json.loads(out.getvalue())["text"] == "H"
    else:
        assert out.getvalue() == "H\n"
        assert err.getvalue().startswith("stopped\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_reader_that_leaves_is_no_error(as_json: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    err = io.StringIO()
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        assert answer(ScriptedEngine(said("Hello")), out=out, err=err, as_json=as_json) == 0
    assert err.getvalue() == ""


@pytest.mark.parametrize(
    ("argument", "what"), [(None, "the request"), ("Explain", "what follows the request")]
)
def test_a_stdin_that_does_not_end_is_said(argument: str | None, what: str) -> None:
    reader, writer = os.pipe()
    err = io.StringIO()

    def end_once_it_is_said() -> None:
        while not err.getvalue():
            time.sleep(0.01)
        os.write(writer, b"this")
        os.close(writer)

    ending = threading.Thread(target=end_once_it_is_said, daemon=True)
    ending.start()
    with os.fdopen(reader, encoding="utf-8") as stdin:
        request = read_request(argument, stdin, err, raw=False)
    ending.join()
    assert request.endswith("this")
    assert err.getvalue().startswith(f"reading {what} from stdin until it ends; ")


def test_an_engine_that_fails_leaves_stdout_empty() -> None:
    def fail() -> None:
        raise MtpError("the model could not be decoded")

    engine = ScriptedEngine(said("é"))  # fails when half a character is there
    engine.after_round = fail
    out = io.StringIO()
    with pytest.raises(MtpError, match="could not be decoded"):
        answer(engine, out=out, err=io.StringIO())
    assert out.getvalue() == ""


def test_a_full_disk_is_one_clear_line() -> None:
    with (
        open("/dev/full", "w", encoding="utf-8") as out,
        pytest.raises(MtpError, match="cannot write the answer: No space left on device"),
    ):
        answer(ScriptedEngine(said("Hello")), out=out, err=io.StringIO())


def test_statistics_that_cannot_be_written_cost_no_answer() -> None:
    out = io.StringIO()
    with open("/dev/full", "w", encoding="utf-8") as err:
        assert answer(ScriptedEngine(said("Hello")), out=out, err=err) == 0
    assert out.getvalue() == "Hello\n"


def test_rows_that_were_not_exact_are_reported() -> None:
    out, err = io.StringIO(), io.StringIO()
    engine = ScriptedEngine(said("Hello"))
    engine.inexact = [4, 9, 4]
    assert answer(engine, out=out, err=err) == 0
    assert out.getvalue() == "Hello\n"
    assert "rows of 4 and 9 at once came out otherwise" in " ".join(err.getvalue().split())
