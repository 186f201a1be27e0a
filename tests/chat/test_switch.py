"""Another model in the middle of a conversation, through a pseudo-terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.chat.chain import speaks

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

ROOT = Path(__file__).parents[2]
PROMPT = "\x1b[?2004h"  # the line editor begins to read
TEMPLATE = "{% for m in messages %}{{ m.content }}|{% endfor %}i"


def test_a_conversation_goes_on_with_another_model(tmp_path: Path) -> None:
    one = speaks(
        tmp_path / "one.gguf", ["One.", "</s>"], after="i", control=["</s>"], template=TEMPLATE
    )
    two = speaks(
        tmp_path / "two.gguf", ["Two!", "</s>"], after="i", control=["</s>"], template=TEMPLATE
    )
    chat = pexpect.spawn(
        sys.executable,
        ["-m", "mtp_cli.chat", "-m", str(one)],
        encoding="utf-8",
        timeout=60,
        cwd=str(ROOT),
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)},
    )

    def say(text: str, answer: str) -> None:
        chat.expect_exact(PROMPT)
        chat.send(text + "\r")
        chat.expect_exact(answer)

    say("hi", "One.\r\n")
    say("/model", str(one))
    say("/model /no/such.gguf", "error: /no/such.gguf")
    say("again", "One.\r\n")
    say(f"/model {two}", "two has no MTP heads")
    say("and now", "Two!\r\n")
    say("/undo", "took back: and now")
    say("/undo", "took back: again")  # what was said to the other model is still there
    say("/model", str(two))
    chat.expect_exact(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)
