"""One answer: a request from the command line, its material from stdin, the answer on stdout.

Knows streams. stdin and stdout are UTF-8 here whatever the locale says, so that a pipe carries the
same bytes everywhere.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TextIO

from mtp_cli.chat import report
from mtp_cli.chat.chat import Chat, listen
from mtp_cli.conversation.attached import Attached, decoded, with_files
from mtp_cli.errors import MtpError
from mtp_cli.screen import forget_unwritten, is_terminal
from mtp_cli.waiting import Wait

EXIT_INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


def read_request(
    argument: str | None,
    stdin: TextIO | None,
    err: TextIO,
    *,
    raw: bool,
    quiet: bool = False,
    files: Sequence[Attached] = (),
) -> str:
    """The files, the argument, what stdin holds, whichever are there, a blank line in between.

    raw keeps the text as it is, but for the newline that ends stdin.
    """
    material = ""
    if stdin is not None and not is_terminal(stdin):
        what = "the request" if argument is None else "what follows the request"
        text = f"reading {what} from stdin until it ends; </dev/null gives nothing"
        with Wait(lambda: text, err, quiet=quiet):
            material = _read(stdin)
    material = material.removesuffix("\n") if raw else material.strip()
    parts = [part for part in (argument, material) if part and not part.isspace()]
    if not parts and not files:
        raise MtpError(
            "nothing to answer: no REQUEST was given and stdin is empty; "
            "mtp-chat --help shows both ways to ask"
        )
    return with_files("\n\n".join(parts), files)


def _read(stdin: TextIO) -> str:
    try:
        return decoded(stdin.buffer.read(), "stdin")
    except OSError as error:
        raise MtpError(f"cannot read stdin: {error.strerror}") from error


def answer_once(chat: Chat, request: str, *, as_json: bool, drafts: bool) -> int:
    """Answer `request` on the chat's `out`; returns the exit status.

    drafts: whether something drafts, for the JSON object to name

    A reader that leaves early (`| head -1`) has what it wanted: that is no error.
    """
    try:
        with chat.preparing():
            answer = chat.session.ask(request, chat.settings)
        if as_json:
            chat.pass_on_notes()
            with chat.keeping(answer), chat.awaiting(answer):
                listen(answer, lambda _part: None)
            chat.out.write(report.as_json(answer, chat.files, drafts=drafts) + "\n")
            chat.out.flush()
        else:
            chat.show(answer)
    except BrokenPipeError:
        forget_unwritten(chat.out)
        return 0
    except OSError as error:
        forget_unwritten(chat.out)
        raise MtpError(f"cannot write the answer: {error.strerror}") from error
    return EXIT_INTERRUPTED if answer.finish_reason == "interrupted" else 0


def utf8_stdout() -> TextIO:
    """stdout for answers: UTF-8 in a pipe or file; on a terminal, what the terminal speaks."""
    out = sys.stdout
    if out is None:
        raise MtpError("stdout is closed, and there is nowhere to answer")
    if isinstance(out, io.TextIOWrapper):
        if is_terminal(out):
            out.reconfigure(errors="replace")
        else:
            out.reconfigure(encoding="utf-8", errors="replace")
    return out
