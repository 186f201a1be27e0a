"""The clipboard of whoever sits at the terminal: by the system's own tools, else by OSC 52.

Across SSH only the terminal knows that clipboard: there it is always OSC 52.
"""

from __future__ import annotations

import base64
import os
from typing import TextIO

from mtp_cli.errors import MtpError
from mtp_cli.screen import is_dumb, is_terminal

_OSC_52_BYTES = 74_994  # of text: what terminals take of one sequence, 100,000 bytes in base64


def copy(text: str, screen: TextIO) -> str:
    """Copy, and say what became of it; MtpError where there is no way."""
    n = f"{len(text):,} characters"
    if "SSH_CONNECTION" not in os.environ and _by_system(text):
        return f"copied {n}"
    raw = text.encode()
    if not is_terminal(screen) or is_dumb():
        raise MtpError("no clipboard: xclip, xsel or wl-clipboard would give one")
    if len(raw) > _OSC_52_BYTES:
        raise MtpError(f"{n} are too many for the terminal's clipboard; xclip or xsel take them")
    screen.write(f"\x1b]52;c;{base64.b64encode(raw).decode()}\a")
    screen.flush()
    return f"copied {n}, where the terminal allows it (OSC 52)"


def _by_system(text: str) -> bool:
    import pyperclip

    try:
        pyperclip.copy(text)
    except (pyperclip.PyperclipException, OSError):
        return False
    return True
