"""From what the user gives for a model to its file: a path, an alias, a name, hf:USER/REPO.

Owns which of these is meant, and what is said where none is, or several are. Knows nothing of what
is in a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtp_cli.errors import MtpError, path_fault
from mtp_cli.library.stores import Stored, stored
from mtp_cli.paths import folder
from mtp_cli.settings import file as settings_file

HUB = "hf:"
_N_NEAR = 3
_WORD = re.compile(r"[^a-z0-9]+")


def locate(given: Path, aliases: Mapping[str, str] | None = None, *, quiet: bool = False) -> Path:
    """The file that is meant; one that nothing is known of is given back as it is.

    aliases: the user's own names for what may be given; by default those of the settings' file
    quiet:   say nothing of a download

    Raises MtpError where a name is nobody's, or that of several models, and for downloads.
    """
    text = _aliased(str(given), aliases)
    if text.startswith(HUB):
        return _fetched(text, quiet)
    try:
        path = Path(text).expanduser()
        if path.exists() or not _is_name(text):
            return path
    except (OSError, ValueError, RuntimeError) as error:
        raise MtpError(f"{text!r}: {path_fault(error)}; give another path") from None
    return _named(text)


def _aliased(text: str, aliases: Mapping[str, str] | None) -> str:
    known = settings_file.read().aliases if aliases is None else aliases
    return known.get(text, text)


def _fetched(text: str, quiet: bool) -> Path:
    from mtp_cli.library.hub import fetch  # loads huggingface_hub where something is to be fetched

    return fetch(text.removeprefix(HUB), quiet=quiet)


def _is_name(text: str) -> bool:
    """Whether a model can be called that: what begins as a path does is one."""
    return "://" not in text and not text.startswith(("/", "../", "~", "\\", "http"))


def _named(name: str) -> Path:
    models = stored()
    found = [model for model in models if name.lower() in map(str.lower, model.names)]
    distinct = {(model.name, model.path.stat().st_size): model for model in reversed(found)}
    if len(distinct) == 1:
        return next(iter(distinct.values())).path
    if found:
        raise MtpError(f"{name}: several models are called that; give one of {_told_apart(found)}")
    near = nearest(name, models)
    if not near:
        return Path(name)
    raise MtpError(
        f"{name}: no such file, and no model of that name here; did you mean "
        f"{' or '.join(near)}? mtp-chat models lists all{_on_the_hub(name)}"
    )


def _told_apart(models: Sequence[Stored]) -> str:
    names = [model.name for model in models]
    return folder.listed([m.name if names.count(m.name) == 1 else str(m.path) for m in models])


def _on_the_hub(name: str) -> str:
    is_repository = name.count("/") == 1 and not Path(name).parent.exists()
    return f"; {HUB}{name} would be downloaded" if is_repository else ""


def nearest(name: str, models: Sequence[Stored]) -> list[str]:
    """Names of models here that are like `name`: that hold it first, then the most alike."""
    names = {_plain(one): model.name for model in models for one in model.names}
    wanted = _plain(name)
    holding = [known for plain, known in names.items() if wanted and wanted in plain]
    alike = [names[plain] for plain in difflib.get_close_matches(wanted, names, n=_N_NEAR)]
    return list(dict.fromkeys([*holding, *alike]))[:_N_NEAR]


def _plain(name: str) -> str:
    return _WORD.sub("", name.lower().replace("gguf", ""))
