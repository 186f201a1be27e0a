"""The one class of expected errors. Knows nothing of where they are shown.

    Exception
      +-- MtpError      something a user can mend: a bad file, a full context, a missing head

The command-line modules catch it in one place, print its single line on stderr and exit with 1.
Anything else that escapes is a bug and keeps its traceback.
"""


class MtpError(Exception):
    """An expected error; its text is one line that names the thing and what was expected."""
