"""What keeps a download from coming, in words of ours: what is wrong, and what to do next."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import cast

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mtp_cli.errors import MtpError

# The HTTP library's own: no network, no answer in time.
_HTTP_ERROR = cast("type[Exception]", HfHubHTTPError.__bases__[0])
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNAUTHORIZED, _TOO_MANY = 401, 429
_LOG_IN = "hf auth login, or HF_TOKEN"


class NoAnswer(Exception):
    """The hub cannot be asked: its text is a line as an MtpError has it."""


@contextlib.contextmanager
def in_words(repository: str, name: str) -> Iterator[None]:
    """Within it every fault of a download is an MtpError; NoAnswer where the hub says nothing."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise NoAnswer(
            f"{name}: not on this machine, and HF_HUB_OFFLINE forbids to ask the hub; unset it"
        ) from None
    except HfHubHTTPError as error:
        raise MtpError(f"{name}: {_refusal(error, repository)}") from error
    except HFValidationError:
        raise MtpError(f"{name}: no repository can be called that; expected USER/REPO") from None
    except _HTTP_ERROR as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NoAnswer(
            f"{name}: no answer from {constants.ENDPOINT} ({reason}); is there a network? The same "
            "command goes on where it ended"
        ) from None
    except OSError as error:
        raise MtpError(f"{name}: {_system(error)}") from error


def _refusal(error: HfHubHTTPError, repository: str) -> str:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return (
            f"its owners want to be asked first: {constants.ENDPOINT}/{repository} says how; then "
            f"log in ({_LOG_IN})"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"no such repository at {constants.ENDPOINT}, or a private one; check the name, or log "
            f"in ({_LOG_IN})"
        )
    if status == _UNAUTHORIZED:
        return f"the hub does not take your token; log in again ({_LOG_IN})"
    if status == _TOO_MANY:
        return f"the hub wants fewer requests; wait a few minutes, or log in ({_LOG_IN})"
    return f"the hub answers {status} ({error.response.reason_phrase}); try again later"


def _system(error: OSError) -> str:
    if error.errno in _NO_ROOM:
        return (
            f"cannot be written: {error.strerror}; HF_HOME names a folder on another disk, and the "
            "same command goes on where it ended"
        )
    where = f"{error.filename}: " if error.filename else ""
    return f"cannot be written: {where}{error.strerror or error}"
