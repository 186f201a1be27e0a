"""The progress bar, on a pseudo-terminal: for slow loads only, and gone when they are done."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pexpect
import pytest

from mtp_cli.chat.loading import progress_bar

# pexpect forks, which Python 3.12 and later warn of wherever a library has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

SCRIPT = """
import sys, time
from mtp_cli.chat.loading import progress_bar
with progress_bar(sys.stderr, quiet={quiet}) as report:
    for step in range({steps}):
        time.sleep(0.05)
        report(step / {steps})
print("loaded")
"""


def load(steps: int, *, quiet: bool = False) -> pexpect.spawn:
    return pexpect.spawn(
        sys.executable,
        ["-c", SCRIPT.format(steps=steps, quiet=quiet)],
        cwd=str(Path(__file__).parents[2]),
        encoding="utf-8",
        timeout=30,
        dimensions=(24, 40),
    )


def test_a_slow_load_shows_how_far_it_is() -> None:
    child = load(20)
    child.expect("loading .* [1-9][0-9]%")
    child.expect("loaded\r\n")
    assert child.before is not None
    assert child.before.endswith("\x1b[2K")  # the bar's line is cleared


@pytest.mark.parametrize(("steps", "quiet"), [(3, False), (10, True)])
def test_a_quick_load_and_a_quiet_one_show_nothing(steps: int, quiet: bool) -> None:
    child = load(steps, quiet=quiet)
    child.expect("loaded\r\n")
    assert child.before == ""


def test_ctrl_c_ends_a_load_at_once() -> None:
    child = load(10_000)
    child.expect("loading")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.wait()
    assert child.signalstatus == signal.SIGINT
    assert "Traceback" not in (child.before or "")


def test_without_a_terminal_there_is_no_bar() -> None:
    screen = io.StringIO()
    with progress_bar(screen, quiet=False) as report:
        report(0.5)
    assert screen.getvalue() == ""
