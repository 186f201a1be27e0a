"""`make chat`: the terminal belongs to the conversation, Ctrl-C included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect

ROOT = Path(__file__).parent.parent
# Like mtp-chat: an interrupt is answered, not obeyed.
_CHAT = """#!/bin/sh
trap 'echo stopped' INT
echo ready
read line || read line
echo "said $line"
"""


def test_an_interrupt_reaches_the_conversation_and_not_make(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    chat = tmp_path / "bin" / "mtp-chat"
    chat.write_text(_CHAT)
    chat.chmod(0o755)
    (tmp_path / ".installed").touch()
    command = ["--no-print-directory", "chat", f"VENV={tmp_path}", f"PYTHON={sys.executable}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    make = pexpect.spawn(
        "make", command, cwd=str(ROOT), env=environment, encoding="utf-8", timeout=20
    )
    make.expect_exact("ready")
    make.sendintr()
    make.expect_exact("stopped")
    make.sendline("hello")
    make.expect_exact("said hello")
    rest = make.read()
    make.close()
    assert "***" not in rest
    assert make.exitstatus == 0
