"""From checked options to a running chat: reads what there is to read, loads, then answers.

Knows which way of answering fits where stdin, stdout and stderr lead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from mtp_cli import models
from mtp_cli.chat import kept, pipe
from mtp_cli.chat.chat import Chat
from mtp_cli.chat.loaded import Loaded, Options, load
from mtp_cli.conversation.choice import template_file
from mtp_cli.conversation.levels import is_level
from mtp_cli.models import with_heads_beside
from mtp_cli.screen import is_terminal

if TYPE_CHECKING:
    from mtp_cli.engine.sampling.recommended import Recommended


def start(options: Options) -> int:
    """Answer once, or converse; returns the exit status. Bad input shows before a model loads."""
    given_system = options.system
    if options.before is not None:
        from mtp_cli.chat import continued  # loads SQLite

        options = continued.applied(options, options.before)
    _check(options)
    request = None
    if options.request is not None or not is_terminal(sys.stdin):
        request = pipe.read_request(
            options.request,
            sys.stdin,
            sys.stderr,
            raw=options.raw,
            quiet=options.quiet,
            files=options.attached,
        )
    elif options.json:
        raise typer.BadParameter("--json needs a REQUEST, or text on stdin.")
    elif not is_terminal(_screen()):
        raise typer.BadParameter("a conversation needs a terminal; give a REQUEST.")
    out = pipe.utf8_stdout()
    files = with_heads_beside(options.files)
    with contextlib.ExitStack() as open_models:
        loaded = open_models.enter_context(load(options, files))
        n_ctx = loaded.engine.n_ctx
        chat = Chat(loaded.session, loaded.settings, files, n_ctx, out, sys.stderr, options.quiet)
        chat.shows_reasoning = _is_shown(options.think)
        chat.is_plain, chat.shows_drafts = options.plain, options.shows_drafts
        chat.attached = [] if request is not None else [*options.attached]
        chat.switch = functools.partial(_switch, options, chat, open_models)
        _warn(chat, options, loaded)
        if options.before is not None:
            continued.resume(chat, options.before, keeps_system=given_system is None)
        with keeping(chat, options, is_pipe=request is not None):
            if request is None:
                return _talk(chat, options, loaded)
            is_drafting = loaded.engine.drafter is not None
            return pipe.answer_once(chat, request, as_json=options.json, drafts=is_drafting)


@contextlib.contextmanager
def keeping(chat: Chat, options: Options, *, is_pipe: bool) -> Iterator[None]:
    """Within it the log has the chat, where that is wanted: one that it had goes on there."""
    usually = not is_pipe or options.before is not None
    if kept.is_wanted(options.log, usually=usually):
        from mtp_cli.chat import continued
        from mtp_cli.log import store  # loads SQLite

        chat.kept = kept.KeptChat(store.path(), continued.about(options), options.before)
    try:
        yield
    finally:
        if chat.kept is not None:
            chat.kept.close()


def _check(options: Options) -> None:
    if options.raw and options.system is not None:
        raise typer.BadParameter("--system needs the chat template, and --raw does without.")
    has_level = any(map(is_level, options.think))
    if options.raw and (options.chat_template or options.template_vars or has_level):
        raise typer.BadParameter("--raw does without the chat template that other options set.")
    if options.chat_template is not None:
        template_file(options.chat_template)


def _switch(options: Options, chat: Chat, open_models: contextlib.ExitStack, name: str) -> None:
    """Go on with another model, which is loaded before the one in use is closed."""
    files = with_heads_beside(models.find(Path(name), quiet=options.quiet))
    loaded = load(options, files)
    open_models.close()
    open_models.enter_context(loaded)
    old, new = chat.session, loaded.session
    if old.system != chat.files.defaults.system and not new.raw:
        new.system = old.system
    new.messages = list(old.messages)
    chat.session = new
    chat.settings = dataclasses.replace(loaded.settings, grammar=chat.settings.grammar)
    chat.files, chat.n_ctx = files, loaded.engine.n_ctx
    _warn(chat, options, loaded)
    _introduce(chat, options, loaded)


def _warn(chat: Chat, options: Options, loaded: Loaded) -> None:
    """What does not go with the model as one might expect."""
    engine, name = loaded.engine, chat.files.name
    _warn_of_length(chat, options.n_ctx, engine.n_ctx_train)
    warn_of_sampling(chat, engine.recommended)
    if engine.drafter is None and options.depth != 0:
        chat.note(
            f"{name} has no MTP heads: plain decoding, except where text repeats itself "
            "(mtp-convert and mtp-train add heads; --draft-model lets a smaller model draft)"
        )
    if chat.session.raw and not options.raw:
        chat.note(
            f"{name} has no chat template: it continues your text, as with --raw "
            "(--chat-template gives one)"
        )


def _warn_of_length(chat: Chat, n_ctx: int | None, n_ctx_train: int) -> None:
    if n_ctx is not None and 0 < n_ctx_train < n_ctx:
        chat.note(
            f"{chat.files.name} was trained with a context of {n_ctx_train} tokens and may write "
            f"nonsense beyond them: --ctx {n_ctx_train} stays within"
        )


def warn_of_sampling(chat: Chat, recommended: Recommended) -> None:
    """What the file recommends for sampling and does not get."""
    for line in recommended.left_out:
        chat.note(line)
    unfollowed = recommended.unfollowed(chat.settings.sampling)
    if unfollowed:
        chat.note(f"{chat.files.name} recommends what is not followed here: {unfollowed}")


def _is_shown(wishes: Sequence[str]) -> bool | None:
    shown = [wish == "show" for wish in wishes if wish in ("show", "hide")]
    return shown[-1] if shown else None


def _talk(chat: Chat, options: Options, loaded: Loaded) -> int:
    from mtp_cli.chat.repl import converse  # loads prompt_toolkit

    _introduce(chat, options, loaded)
    chat.note("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
    converse(chat, _screen())
    return 0


def _introduce(chat: Chat, options: Options, loaded: Loaded) -> None:
    name, drafter = chat.files.name, loaded.engine.drafter
    if drafter is not None or options.depth == 0:
        chat.note(name if options.depth == 0 else f"{name}, drafting with {drafter}")


def _screen() -> TextIO:
    """Where a conversation shows its prompt: stderr, since stdout is for answers alone."""
    return sys.stderr if is_terminal(sys.stderr) else sys.stdout
