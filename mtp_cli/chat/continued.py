"""`--continue`: a conversation of the log, and what the command line leaves to it.

Knows the log and the options. Knows nothing of how they are typed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtp_cli import models
from mtp_cli.chat import dispatch
from mtp_cli.chat.chat import Chat
from mtp_cli.chat.texts import shortened
from mtp_cli.conversation.exact import Exact
from mtp_cli.errors import MtpError
from mtp_cli.log.store import About, Kept, Log, path
from mtp_cli.models import ModelFiles

if TYPE_CHECKING:
    from mtp_cli.chat.loaded import Options

# Options that a conversation goes on with, and what each is where none was given.
_SETTINGS: dict[str, Any] = {
    "max_tokens": None,
    "stops": (),
    "guards_loops": True,
    "n_ctx": None,
    "raw": False,
    "think": (),
    "chat_template": None,
    "template_vars": (),
}


def find(wanted: str, files: ModelFiles | None) -> Kept:
    """The conversation with the ID wanted, or the last one, of the model where one is given."""
    file = path()
    if not file.exists():
        raise MtpError("no conversation was kept yet: there is none to go on with")
    with Log(file) as log:
        newest: int | None
        if wanted != dispatch.LAST:
            newest = int(wanted)
        else:
            newest = log.newest(None if files is None else fingerprint(files.model))
        kept = None if newest is None else log.read(newest)
    if kept is None:
        of_it = "" if files is None else f" with {files.name}"
        missing = f"no conversation{of_it} is kept"
        if newest is not None:
            missing = f"there is no conversation {newest}"
        raise MtpError(f"{missing}; mtp-chat log lists them")
    return kept


def files_of(kept: Kept, heads: Path | None, draft_model: Path | None) -> ModelFiles:
    """The files that a conversation was held with; MtpError where they are gone.

    heads, draft_model: what is to draft instead
    """
    about = kept.about
    model = Path(about.model)
    if not model.exists() and model.name == models.built_in_model().name:
        return models.find(None, heads, draft_model)  # it was installed elsewhere then
    if heads is None and draft_model is None:
        heads = None if about.heads is None else Path(about.heads)
        draft_model = None if about.draft_model is None else Path(about.draft_model)
    try:
        return models.find(model, heads, draft_model)
    except MtpError as error:
        raise MtpError(f"{error}; --model names the model to go on with") from error


def applied(options: Options, kept: Kept) -> Options:
    """The options, and where one was not given, the conversation's own."""
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in kept.about.settings.items()
        if name in _SETTINGS and getattr(options, name) == _SETTINGS[name]
    }
    return dataclasses.replace(
        options, **settings, sampling={**_sampling(kept.about), **options.sampling}
    )


def _sampling(about: About) -> dict[str, Any]:
    """What this version knows of it."""
    from mtp_cli.engine import Sampling

    known = {field.name for field in dataclasses.fields(Sampling)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in about.sampling.items()
        if name in known
    }


def resume(chat: Chat, kept: Kept, *, keeps_system: bool) -> None:
    """Let the chat go on with it: id by id with its model, else by its texts.

    keeps_system: its system prompt is the chat's from now on
    """
    messages = [*kept.conversation.messages]
    about = kept.about
    if keeps_system:
        chat.session.system = about.system
    is_same = fingerprint(chat.files.model) == about.fingerprint
    exact = _exact(kept) if is_same else None
    if exact is None:
        chat.session.messages = messages
    else:
        chat.session.resume(messages, exact)
    n = len(messages) // 2
    chat.note(f"going on with conversation {kept.place.id}: {n} answered")
    if not is_same:
        chat.note(f"it was held with {about.name}: this model reads its text anew")
    elif chat.files.name != about.name:
        chat.note(f"it was held with {about.name}")
    if messages:
        chat.note(f"the last answer: {shortened(messages[-1]['content'])}")
    if kept.unanswered is not None:
        chat.note(f"not answered: {shortened(kept.unanswered)}")


def _exact(kept: Kept) -> Exact | None:
    """None where there is none, or it was damaged: the texts are read anew then."""
    try:
        return None if kept.exact is None else Exact.from_bytes(kept.exact)
    except ValueError:
        return None


def about(options: Options) -> Callable[[Chat], About]:
    """What the log says of a chat, as it is when it is asked."""
    settings = {name: getattr(options, name) for name in _SETTINGS}

    def now(chat: Chat) -> About:
        files = chat.files
        think = (chat.session.thinking,) if chat.session.thinking else ()
        return About(
            model=str(files.model.absolute()),
            name=files.name,
            fingerprint=fingerprint(files.model),
            heads=_absolute(files.heads),
            draft_model=_absolute(files.draft_model),
            system=chat.session.system,
            sampling=dataclasses.asdict(chat.settings.sampling),
            settings={**settings, "think": think},
        )

    return now


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


@functools.cache
def fingerprint(model: Path) -> str:
    """What tells a model from others that number tokens otherwise, or are trained otherwise.

    Two number formats of one model have the same.
    """
    from mtp_cli.engine.files import gguf_header  # loads llama.cpp

    shards = gguf_header.read_shards(model)
    return f"{gguf_header.target_fingerprint(shards)}-{gguf_header.n_vocab(shards)}"
