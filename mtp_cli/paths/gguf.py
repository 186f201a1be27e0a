"""Refuses what is no GGUF, or no checkpoint folder, in a line that names what to do next.

Owns names that lead nowhere. Knows nothing of what is inside a GGUF.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from mtp_cli.errors import MtpError
from mtp_cli.paths import content, folder

MAGIC = b"GGUF"
_NOTHING = "No such file or directory"
_ADDRESS = re.compile(r"https?:/+(?P<host>[^/]+)/(?P<rest>.*)")
_HUB = re.compile(
    r"(?:hf\.co/|huggingface\.co/|hf:/+)?(?P<name>[\w.-]+/[\w.-]+?)(?P<tag>:[\w.-]+)?"
)
_FETCH_GGUF = "hf:{name}{tag} in its place downloads it"
_FETCH_CHECKPOINT = "hf download {name} --local-dir {local}"
_HUB_HOSTS = ("huggingface.co", "hf.co")


def check_gguf(path: Path) -> int:
    """The size in bytes of a file that begins as GGUFs do; MtpError on everything else."""
    try:
        if path.is_dir():
            raise MtpError(f"{path}: {folder.instead_of_gguf(path)}")
        if path.exists() and not path.is_file():
            raise MtpError(f"{path}: not a regular file")  # a pipe could keep us for ever
        with path.open("rb") as file:
            head = file.read(content.HEAD_BYTES)
            n_bytes = file.seek(0, 2)
    except FileNotFoundError:
        raise MtpError(f"{path}: {_instead_of_nothing(path, _FETCH_GGUF)}") from None
    except ValueError:
        raise MtpError(f"{str(path)!r}: not a name that a file can have") from None
    except OSError as error:
        raise MtpError(f"{path}: {error.strerror}") from error
    if head[:4] != MAGIC:
        raise MtpError(f"{path}: {content.instead_of_gguf(path, head)}")
    return n_bytes


def check_checkpoint(path: Path) -> None:
    """Raise MtpError where `path` is no folder."""
    if path.is_dir():
        return
    if not path.exists():
        raise MtpError(f"{path}: {_instead_of_nothing(path, _FETCH_CHECKPOINT)}")
    if not path.is_file():
        raise MtpError(f"{path}: expected a checkpoint folder")
    with path.open("rb") as file:
        if file.read(4) == MAGIC:
            raise MtpError(f"{path}: expected a checkpoint folder; a GGUF needs no converting")
    raise MtpError(f"{path}: expected a checkpoint folder; name the one that it lies in")


def _instead_of_nothing(path: Path, fetch: str) -> str:
    """What may be meant by a name that leads to no file. fetch: how it comes from Hugging Face."""
    name = str(path)
    address = _ADDRESS.match(name)
    if address is not None and address["host"] not in _HUB_HOSTS:
        return "an address; download the file and give its path"
    if address is not None:
        name = "/".join(address["rest"].split("/")[:2])
    hub = _HUB.fullmatch(name)
    if hub is not None and not Path(hub["name"].split("/")[0]).exists():
        how = fetch.format(
            name=hub["name"], tag=hub["tag"] or "", local=hub["name"].partition("/")[2]
        )
        return f"{_NOTHING}; if it is on Hugging Face, {how}"
    if address is None and ":" in name and "/" not in name:
        return f"{_NOTHING}, and no model that Ollama keeps here (ollama pull {name} fetches one)"
    return f"{_NOTHING}{_near(path)}"


def _near(path: Path) -> str:
    """What there is where a file was looked for."""
    parent = path.parent
    if not parent.is_dir():
        return f"; there is no folder {parent}"
    there = folder.ggufs(parent)
    names = [found.name for found in there]
    close = difflib.get_close_matches(path.name, names, n=1) or [
        name for name in names if name.lower().startswith(path.name.lower())
    ]
    if close:
        return f"; did you mean {parent / close[0]}?"
    return f"; GGUFs there: {folder.listed(names)}" if names else ""
