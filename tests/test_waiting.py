"""What is awaited is said: on a terminal in a line that goes again, elsewhere in plain lines."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from mtp_cli.waiting import Wait
from tests.chat.window import window

# pexpect forks, which Python 3.12 and later warn of wherever a library has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

ROOT = Path(__file__).parents[1]
_LIMIT_S = 20.0  # for what takes no time at all on an idle machine


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + _LIMIT_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_terminal_shows_one_line_kept_up_to_date_and_taken_back() -> None:
    n = 10
    with window() as opened:
        wait = Wait(lambda: f"reading: {n}%", opened.screen, quiet=False, shown_s=0)
        until(lambda: "reading: 10% … 0 s" in opened.so_far)
        n = 20
        until(lambda: "reading: 20% … 1 s" in opened.so_far)
        wait.end()
        wait.end()
        raw = opened.raw()
    assert raw.endswith("\r\x1b[K")
    assert raw.count("reading: 10% … 0 s") == 1  # what has not changed is not written again
    assert "\n" not in raw


def test_a_line_too_long_for_the_window_is_cut() -> None:
    with window(18) as opened:
        wait = Wait(lambda: "examining 日本語.gguf", opened.screen, quiet=False, shown_s=0)
        until(lambda: "examining" in opened.so_far)
        wait.end()
        assert opened.shown().replace("\r", "") == "examining  … 0 s"  # a half of 日 has no place


def test_elsewhere_plain_lines_follow_one_another() -> None:
    log = io.StringIO()
    wait = Wait(lambda: "reading\x1b[2J", log, quiet=False, said_s=0, again_s=0.01)
    until(lambda: log.getvalue().count("\n") >= 2)
    wait.end()
    assert set(log.getvalue().splitlines()) == {"reading␛[2J"}


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_wait_and_a_short_one_say_nothing(quiet: bool) -> None:
    seen = threading.Event()

    def describe() -> str:
        seen.set()
        return "reading"

    first_s = 0 if quiet else 60
    with window() as opened:
        with Wait(describe, opened.screen, quiet=quiet, shown_s=first_s):
            assert not seen.wait(0.05)
        assert opened.raw() == ""


def test_a_full_disk_costs_nothing() -> None:
    with open("/dev/full", "w", encoding="utf-8") as err:
        described = []

        def describe() -> str:
            described.append("reading")
            return "reading"

        with Wait(describe, err, quiet=False, said_s=0, again_s=0.01):
            until(lambda: len(described) > 2)


LOAD = """
import sys, time
from mtp_cli.waiting import loading
with loading("big.gguf", sys.stderr, quiet=False) as report:
    for step in range({steps}):
        time.sleep(0.05)
        if step > 20:
            report(step / {steps})
print("loaded")
"""


def load(steps: int) -> pexpect.spawn:
    return pexpect.spawn(
        sys.executable,
        ["-c", LOAD.format(steps=steps)],
        cwd=str(ROOT),
        encoding="utf-8",
        timeout=30,
        dimensions=(24, 40),
    )


def test_a_slow_load_shows_what_is_done_and_how_far_it_is() -> None:
    child = load(60)
    child.expect_exact("examining big.gguf …")
    child.expect("loading big.gguf: [1-9][0-9]%")
    child.expect("loaded\r\n")
    assert child.before is not None
    assert child.before.endswith("\r\x1b[K")


def test_ctrl_c_ends_a_load_at_once() -> None:
    child = load(10_000)
    child.expect("loading")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.wait()
    assert child.signalstatus == signal.SIGINT
    assert "Traceback" not in (child.before or "")
