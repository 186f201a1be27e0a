"""From checked options to a model that answers: what is loaded, asked and sampled how.

Knows nothing of streams.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import platformdirs

from mtp_cli.conversation.attached import Attached
from mtp_cli.conversation.choice import named_template, template_file, template_variables
from mtp_cli.conversation.levels import is_level
from mtp_cli.conversation.repetition import STUCK
from mtp_cli.conversation.session import Depth, Session, Settings
from mtp_cli.conversation.session import Engine as SessionEngine
from mtp_cli.conversation.speech import Ending
from mtp_cli.load_options import ChosenWays
from mtp_cli.models import Defaults, ModelFiles
from mtp_cli.opening import open_engine
from mtp_cli.options import MAX_TOKENS
from mtp_cli.screen import fold, say

if TYPE_CHECKING:
    from mtp_cli.engine import Engine, Sampling
    from mtp_cli.engine.grammar.source import Grammar
    from mtp_cli.log.store import Kept


@dataclass(frozen=True)
class Options:
    """The command line. sampling holds only what the user set; None is the default everywhere.

    max_tokens: 0 and less for no limit
    cache_types: what keys and values are kept in
    kept_prompt_bytes: that prompts on disk may take; 0 to keep none
    ways: devices, adapters and rope
    think: levels, "show" and "hide", of each kind the last counts; template_vars: "name=value"
    log: whether the log is to have it; None: a conversation's alone
    before: the conversation of the log to go on with
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
    kept_prompt_bytes: int
    ways: ChosenWays
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
    log: bool | None = None
    before: Kept | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True)
class Loaded:
    """An open model and a conversation with it; closed at the end of `with`."""

    engine: Engine
    session: Session
    settings: Settings

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.engine.close()


def load(options: Options, files: ModelFiles) -> Loaded:
    """Open the files and begin a conversation; MtpError, with nothing left open, where one of the
    options does not fit them."""
    template = None if options.chat_template is None else template_file(options.chat_template)
    engine = open_engine(files, options)
    try:
        if options.chat_template is not None and template is None:
            template = named_template(engine.metadata, options.chat_template)
        session, settings = prepared(
            engine, engine.recommended.sampling, files.defaults, options, template
        )
        levels = [wish for wish in options.think if is_level(wish)]
        if levels:
            session.think(levels[-1])
        if options.kept_prompt_bytes:
            _keep_prompts(engine, options)
    except BaseException:
        engine.close()
        raise
    return Loaded(engine, session, settings)


def _keep_prompts(engine: Engine, options: Options) -> None:
    def on_problem(line: str) -> None:
        if not options.quiet:
            say(fold(line, sys.stderr), sys.stderr)

    folder = Path(platformdirs.user_cache_dir("mtp-cli")) / "prompts"
    engine.keep_prompts(folder, max_bytes=options.kept_prompt_bytes, on_problem=on_problem)


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
        sampling,
        _max_tokens(options),
        options.depth,
        options.exact,
        _ending(options),
        options.grammar,
    )
    session = Session(
        engine,
        system=system,
        raw=options.raw,
        template=template,
        variables=template_variables(options.template_vars),
    )
    return session, settings


def _max_tokens(options: Options) -> int | None:
    if options.max_tokens is None:
        return MAX_TOKENS
    return options.max_tokens if options.max_tokens > 0 else None


def _ending(options: Options) -> Ending:
    return Ending(options.stops, STUCK if options.guards_loops else None)
