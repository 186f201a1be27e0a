"""The one class of expected errors. Knows nothing of where they are shown.

    Exception
      +-- MtpError      something a user can mend: a bad file, a full context, a missing head

The command-line modules catch it in one place, print its single line on stderr and exit with 1.
Anything else that escapes is a bug and keeps its traceback.
"""

import contextlib
import json
from collections.abc import Iterator


class MtpError(Exception):
    """An expected error; its text is one line that names the thing and what was expected."""


@contextlib.contextmanager
def advised(advice: str) -> Iterator[None]:
    """Within it errors that say what is wrong also say what to do next."""
    try:
        yield
    except MtpError as error:
        raise MtpError(f"{error}; {advice}") from error


def json_fault(error: ValueError | RecursionError) -> str:
    """What keeps a text from being JSON, in words of ours: where, for whoever can mend it."""
    if isinstance(error, UnicodeDecodeError):
        return f"not valid JSON: not UTF-8 at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON at line {error.lineno}, column {error.colno}"
    return "not valid JSON"


def path_fault(error: Exception) -> str:
    """What keeps a path from leading to a file: the system's word for it, else one of ours."""
    if isinstance(error, OSError):
        return error.strerror or "the system does not say why"
    if isinstance(error, RuntimeError):  # "~nobody"
        return "no such user, and so no home folder"
    return "no file can have such a name"


def missing_key(error: Exception) -> str:
    """The key that a failed look-up names, to go on a line; nothing for other failures."""
    return f": {error.args[0]}" if isinstance(error, KeyError) and error.args else ""
