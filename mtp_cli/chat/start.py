"""From checked options to a running chat: reads what there is to read, loads, then answers.

Knows which way of answering fits where stdin, stdout and stderr lead.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import typer

from mtp_cli.chat import pipe
from mtp_cli.chat.chat import Chat
from mtp_cli.conversation.attached import Attached
from mtp_cli.conversation.choice import named_template, template_file
from mtp_cli.conversation.levels import is_level
from mtp_cli.conversation.repetition import STUCK
from mtp_cli.conversation.session import Depth, Session, Settings
from mtp_cli.conversation.session import Engine as SessionEngine
from mtp_cli.conversation.speech import Ending
from mtp_cli.models import Defaults, ModelFiles, with_heads_beside
from mtp_cli.options import MAX_TOKENS
from mtp_cli.screen import is_terminal
from mtp_cli.waiting import loading

if TYPE_CHECKING:
    from mtp_cli.engine import Sampling
    from mtp_cli.engine.sampling.recommended import Recommended


@dataclass(frozen=True)
class Options:
    """The command line. sampling holds only what the user set; None is the default everywhere.

    max_tokens: 0 and less for no limit
    cache_types: what keys and values are kept in
    think: levels, "show" and "hide", of each kind the last counts; template_vars: "name=value"
    """

    request: str | None
    files: ModelFiles
    system: str | None
    max_tokens: int | None
    stops: tuple[str, ...]
    guards_loops: bool
    sampling: Mapping[str, Any]
    n_ctx: int | None
    n_threads: int | None
    n_gpu_layers: int | None
    cache_types: tuple[str, str]
    depth: Depth
    exact: bool
    json: bool
    raw: bool
    think: Sequence[str]
    chat_template: str | None
    template_vars: Sequence[str]
    attached: Sequence[Attached]
    plain: bool
    shows_drafts: bool
    quiet: bool


def start(options: Options) -> int:
    """Answer once, or converse; returns the exit status. Bad input shows before a model loads."""
    if options.raw and options.system is not None:
        raise typer.BadParameter("--system needs the chat template, and --raw does without.")
    levels = [wish for wish in options.think if is_level(wish)]
    if options.raw and (options.chat_template or options.template_vars or levels):
        raise typer.BadParameter("--raw does without the chat template that other options set.")
    template = None
    if options.chat_template is not None:
        template = template_file(options.chat_template)
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

    from mtp_cli.engine import CacheTypes, Engine  # loads llama.cpp

    files = with_heads_beside(options.files)

    with loading(files.name, sys.stderr, quiet=options.quiet) as report:
        engine = Engine.open(
            files.model,
            files.heads,
            draft_model=files.draft_model,
            n_ctx=options.n_ctx,
            n_threads=options.n_threads,
            n_gpu_layers=options.n_gpu_layers,
            cache=CacheTypes(*options.cache_types),
            on_progress=report,
        )
    with engine:
        if options.chat_template is not None and template is None:
            template = named_template(engine.metadata, options.chat_template)
        recommended = engine.recommended
        session, settings = prepared(
            engine, recommended.sampling, files.defaults, options, template
        )
        if levels:
            session.think(levels[-1])
        chat = Chat(session, settings, files, engine.n_ctx, out, sys.stderr, options.quiet)
        chat.shows_reasoning = _is_shown(options.think)
        chat.is_plain, chat.shows_drafts = options.plain, options.shows_drafts
        chat.attached = [] if request is not None else [*options.attached]
        _warn_of_length(chat, options.n_ctx, engine.n_ctx_train)
        warn_of_sampling(chat, recommended)
        return _talk(chat, options, engine.drafter, request)


def _max_tokens(options: Options) -> int | None:
    if options.max_tokens is None:
        return MAX_TOKENS
    return options.max_tokens if options.max_tokens > 0 else None


def _ending(options: Options) -> Ending:
    return Ending(options.stops, STUCK if options.guards_loops else None)


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


def prepared(
    engine: SessionEngine,
    recommended: Sampling,
    defaults: Defaults,
    options: Options,
    template: str | None = None,
) -> tuple[Session, Settings]:
    """The conversation and how it answers: by the options, by what the model is known to want
    where they say nothing, and by what its GGUF recommends for the rest.

    template: a chat template instead of the model's own
    """
    system = options.system
    if system is None and not options.raw:
        system = defaults.system
    sampling = dataclasses.replace(recommended, **{**defaults.sampling, **options.sampling})
    settings = Settings(
        sampling, _max_tokens(options), options.depth, options.exact, _ending(options)
    )
    session = Session(
        engine,
        system=system,
        raw=options.raw,
        template=template,
        variables=_variables(options.template_vars),
    )
    return session, settings


def _variables(texts: Sequence[str]) -> dict[str, Any]:
    """Values as JSON where they are JSON, as text elsewhere."""
    variables: dict[str, Any] = {}
    for text in texts:
        name, _equals, value = text.partition("=")
        try:
            variables[name] = json.loads(value)
        except (ValueError, RecursionError):
            variables[name] = value
    return variables


def _is_shown(wishes: Sequence[str]) -> bool | None:
    shown = [wish == "show" for wish in wishes if wish in ("show", "hide")]
    return shown[-1] if shown else None


def _talk(chat: Chat, options: Options, drafter: str | None, request: str | None) -> int:
    name = chat.files.name
    if drafter is None and options.depth != 0:
        chat.note(
            f"{name} has no MTP heads: plain decoding, except where text repeats itself "
            "(mtp-convert and mtp-train add heads; --draft-model lets a smaller model draft)"
        )
    if chat.session.raw and not options.raw:
        chat.note(
            f"{name} has no chat template: it continues your text, as with --raw "
            "(--chat-template gives one)"
        )
    if request is not None:
        return pipe.answer_once(chat, request, as_json=options.json, drafts=drafter is not None)

    from mtp_cli.chat.repl import converse  # loads prompt_toolkit

    if drafter is not None or options.depth == 0:
        chat.note(name if options.depth == 0 else f"{name}, drafting with {drafter}")
    chat.note("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
    converse(chat, _screen())
    return 0


def _screen() -> TextIO:
    """Where a conversation shows its prompt: stderr, since stdout is for answers alone."""
    return sys.stderr if is_terminal(sys.stderr) else sys.stdout
