"""What may reach a screen beside answers: safe text, dim notes, lines folded to its width.

Knows streams. Knows nothing of models or conversations; all commands use it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import TextIO

from mtp_cli.errors import MtpError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a user can mend

# What a terminal obeys. Controls become their visible pictures; what has none becomes U+FFFD, and
# so do the two overrides, which let characters appear in another order than they were said in.
# Isolates and embeddings only set the direction of a run, and end with its line: they stay, as
# right-to-left text needs them. A carriage return would let a line overwrite itself: it is
# dropped, so that CRLF text still reads well. Newline and tab stay.
_C0_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_C1 = range(0x80, 0xA0)
_BIDI_OVERRIDES = (0x202D, 0x202E)
_VISIBLE: dict[int, int | None] = {
    **_C0_PICTURES,
    0x0D: None,
    0x7F: 0x2421,
    **dict.fromkeys((*_C1, *_BIDI_OVERRIDES), 0xFFFD),
}


def visible(text: str) -> str:
    """`text` with nothing in it that a terminal would obey, character by character."""
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """`text` safe for a terminal and on one line."""
    return visible(" ".join(text.split()))


def cells(text: str) -> int:
    """Columns that `text` takes on a terminal; it has neither tabs nor controls."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # loads tables, which few lines of ours need

    return max(wcswidth(text), 0)


def cut(text: str, columns: int) -> str:
    """As much of the beginning as there is room for: a line that wraps cannot be taken back."""
    while cells(text) > max(columns, 0):
        text = text[:-1]
    return text


def say(text: str, err: TextIO) -> None:
    """Print a line beside the answer, which is no worse where that line cannot be written."""
    try:
        print(text, file=err, flush=True)
    except OSError:
        forget_unwritten(err)


def say_error(error: Exception, err: TextIO) -> None:
    """One line; a terminal that is too narrow for it gets it broken between words."""
    say(fold(f"error: {error}", err), err)


def forget_unwritten(stream: TextIO) -> None:
    """Drop what a failed write left behind, or every later flush fails on it again.

    The interpreter's last one too, which would then change the exit status.
    """
    fd = stream.fileno()
    kept = os.dup(fd)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), fd)
            stream.flush()
    finally:
        os.dup2(kept, fd)
        os.close(kept)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Within it a full disk under stdout is an MtpError.

    What was printed is written by its end: at the interpreter's own it would be too late to tell.
    """
    try:
        try:
            yield
        finally:
            _write_out()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        forget_unwritten(sys.stdout)
        raise MtpError(f"cannot write the output: {error.strerror}") from error


def _write_out() -> None:
    """Write what stdout still holds; a reader that has left needs none of it."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        forget_unwritten(sys.stdout)


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def are_one(first: TextIO, second: TextIO) -> bool:
    """Whether both lead to the same place, as after `>log 2>&1`."""
    with contextlib.suppress(OSError, ValueError):
        return os.path.samestat(os.fstat(first.fileno()), os.fstat(second.fileno()))
    return False


def is_file(stream: TextIO) -> bool:
    with contextlib.suppress(OSError, ValueError):  # it has no descriptor, or none any more
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    return False


def dim(text: str, stream: TextIO) -> str:
    """`text`, dimmed where the stream is a terminal that shows it."""
    return f"\x1b[2m{text}\x1b[0m" if shows_styles(stream) else text


def shows_styles(stream: TextIO | None) -> bool:
    """Whether it is a terminal where text can be dim, bold or coloured."""
    return is_terminal(stream) and "NO_COLOR" not in os.environ and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal obeys nothing, as an editor's shell window."""
    return os.environ.get("TERM") == "dumb"


def width(stream: TextIO) -> int:
    """Columns of the terminal behind `stream`, 80 where there is none to ask."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def fold(text: str, stream: TextIO) -> str:
    """`text` safe, on as many lines as a terminal is too narrow for; elsewhere on one."""
    safe = one_line(text)
    if not is_terminal(stream):
        return safe
    columns = width(stream)
    lines: list[str] = []
    for word in safe.split(" "):
        if lines and cells(f"{lines[-1]} {word}") < columns:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
