"""`mtp-chat`: its options, and the one place where expected errors end.

Heavy imports wait until they are needed: `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.chat import dispatch
from mtp_cli.chat.sampling_options import (
    DryAllowedLength,
    DryBase,
    DryMultiplier,
    DryPenaltyLastN,
    DrySequenceBreaker,
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepeatLastN,
    RepeatPenalty,
    Seed,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    XtcProbability,
    XtcThreshold,
    breakers,
)
from mtp_cli.chat.schema_options import GrammarFile, JsonSchema
from mtp_cli.conversation.levels import LEVELS, is_level
from mtp_cli.errors import MtpError
from mtp_cli.load_options import ChosenWays, with_ways
from mtp_cli.model_options import (
    CacheTypeK,
    CacheTypeV,
    DraftModel,
    GpuLayers,
    Heads,
    HfRepo,
    Model,
    Threads,
    one_model,
)
from mtp_cli.options import CACHE_PROMPT_GIB, HELP, MAX_INT32, MAX_TOKENS, Version
from mtp_cli.screen import printing, say_error

_MAX_DEPTH = 8

app = typer.Typer(context_settings=HELP, pretty_exceptions_enable=False, rich_markup_mode=None)


def _depth(text: str) -> str:
    if text == "auto" or (text.isascii() and text.isdecimal() and int(text) <= _MAX_DEPTH):
        return text
    raise typer.BadParameter(f"{text!r} is neither 'auto' nor a number from 0 to {_MAX_DEPTH}.")


def _text(text: str | None) -> str | None:
    if text is not None and any("\ud800" <= char <= "\udfff" for char in text):
        raise typer.BadParameter("not UTF-8 text.")
    return text


def _stops(texts: list[str] | None) -> list[str] | None:
    if texts is not None and "" in texts:
        raise typer.BadParameter("an empty text is everywhere; give one to stop at.")
    for text in texts or ():
        _text(text)
    return texts


def _levels(texts: list[str] | None) -> list[str] | None:
    for text in texts or ():
        if not is_level(text) and text not in ("show", "hide"):
            ways = ", ".join((*LEVELS, "a number of tokens", "show"))
            raise typer.BadParameter(f"{text!r} is none of {ways} and hide.")
    return texts


def _conversation(text: str | None) -> str | None:
    if text is None or text == dispatch.LAST or (text.isascii() and text.isdecimal()):
        return text
    raise typer.BadParameter(f"{text!r} is no ID; mtp-chat log lists them.")


def _pairs(texts: list[str] | None) -> list[str] | None:
    for text in texts or ():
        name, equals, _value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE.")
        _text(text)
    return texts


_Request = Annotated[
    str | None,
    typer.Argument(
        metavar="REQUEST",
        show_default=False,
        callback=_text,
        autocompletion=dispatch.names,
        help="Answer this and exit. Text on stdin follows it, after a blank line.",
    ),
]
_System = Annotated[
    str | None,
    typer.Option(
        "--system",
        "-s",
        metavar="TEXT",
        callback=_text,
        help="System prompt. [default: the built-in model's own; else what the chat template adds]",
    ),
]
_MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        metavar="N",
        min=-1,
        help="Tokens in an answer, at most; 0 or -1 for what the context has room for. "
        f"[default: {MAX_TOKENS}]",
    ),
]
_Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        callback=_stops,
        help="End an answer before TEXT; may be given more than once.",
    ),
]
_LoopGuard = Annotated[
    bool,
    typer.Option(
        "--no-loop-guard", help="Let an answer repeat itself for ever, as the model likes."
    ),
]
_Ctx = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_INT32,
        help="Tokens that the conversation can have. [default: 8192, or what the model was "
        "trained with if that is less]",
    ),
]
_CachePrompt = Annotated[
    bool,
    typer.Option(
        "--cache-prompt",
        help="Keep long prompts that were read on disk, and read none of them again: a file, or a "
        "conversation that goes on later.",
    ),
]
_CachePromptGib = Annotated[
    float,
    typer.Option(
        metavar="GIB",
        min=0.001,
        max=MAX_INT32,
        help="Space for them; those that were not used for longest go first.",
    ),
]
_DepthText = Annotated[
    str,
    typer.Option(
        metavar="auto|0..8",
        callback=_depth,
        help="Tokens to draft each round; 0 is plain decoding. The answer stays the model's own.",
    ),
]
_Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Verify only as many tokens together as change no bit here, and draw none of them: "
        "greedy, or with a seed, the answer is plain decoding's.",
    ),
]
_Log = Annotated[
    bool | None,
    typer.Option(
        "--log/--no-log",
        show_default=False,
        help="Keep it for mtp-chat log and --continue, or do not. [default: a conversation is "
        "kept, unless MTP_NO_LOG is set, and an answer to a REQUEST or a pipe is not]",
    ),
]
_Continue = Annotated[
    str | None,
    typer.Option(
        "--continue",
        metavar="[ID]",
        callback=_conversation,
        help="Go on with a conversation that was kept, the last one without ID (of the --model "
        "given), with its model and settings where no option gives others.",
    ),
]
_Json = Annotated[
    bool, typer.Option("--json", help="One JSON object: text, tokens, counts and times.")
]
_Raw = Annotated[
    bool, typer.Option("--raw", help="No chat template: the model continues the text as it is.")
]
_Plain = Annotated[
    bool, typer.Option("--plain", help="No Markdown styles in a terminal: answers as said.")
]
_ShowDrafts = Annotated[
    bool,
    typer.Option(
        "--show-drafts",
        help="Colours for who proposed what: drafted green, copied cyan, "
        "forced by a schema magenta.",
    ),
]
_File = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Text file that goes with the REQUEST, or with a conversation's first message; may "
        "be given more than once.",
    ),
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing on stderr but errors.")]

_TEMPLATE_PANEL = "Chat template and thinking"

_Think = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LEVEL|show|hide",
        callback=_levels,
        rich_help_panel=_TEMPLATE_PANEL,
        help="How much to think, where the chat template knows of it: off, on, minimal, low, "
        "medium, high, max or a number of tokens; show or hide what is thought. May be given "
        "twice. [default: as the template has it; shown in a terminal, left out of a pipe]",
    ),
]
_ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        callback=_text,
        rich_help_panel=_TEMPLATE_PANEL,
        help="Jinja file of another chat template, or a named one inside the GGUF. "
        "[default: the GGUF's]",
    ),
]
_TemplateVar = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        callback=_pairs,
        rich_help_panel=_TEMPLATE_PANEL,
        help="Variable for the chat template, JSON where VALUE is; may be given more than once.",
    ),
]

_EPILOG = """\b
Examples:
  mtp-chat                                      a conversation
  mtp-chat "Write a haiku about rain"           one answer
  git diff | mtp-chat "Write a commit message"  one answer about stdin
  mtp-chat -m big.gguf --heads big-mtp.gguf     your own model and heads
  mtp-chat -m hf:USER/REPO                      one of Hugging Face, downloaded
  mtp-chat -m big.gguf --draft-model small.gguf one of its family drafts

\b
The answer goes to stdout, everything else to stderr. A terminal gets control
characters in an answer as symbols; a pipe or file gets the text as it was said.
Exit status: 0 an answer, 1 an error, 2 wrong usage, 130 stopped by Ctrl-C."""


@app.command(cls=dispatch.OrCommand, epilog=_EPILOG)
@with_ways
def chat(
    ways: ChosenWays,
    request: _Request = None,
    model: Model = None,
    hf_repo: HfRepo = None,
    heads: Heads = None,
    draft_model: DraftModel = None,
    system: _System = None,
    max_tokens: _MaxTokens = None,
    stop: _Stop = None,
    no_loop_guard: _LoopGuard = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repeat_penalty: RepeatPenalty = None,
    repeat_last_n: RepeatLastN = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    top_n_sigma: TopNSigma = None,
    xtc_probability: XtcProbability = None,
    xtc_threshold: XtcThreshold = None,
    dry_multiplier: DryMultiplier = None,
    dry_base: DryBase = None,
    dry_allowed_length: DryAllowedLength = None,
    dry_penalty_last_n: DryPenaltyLastN = None,
    dry_sequence_breaker: DrySequenceBreaker = None,
    ctx: _Ctx = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
    cache_prompt: _CachePrompt = False,
    cache_prompt_gib: _CachePromptGib = CACHE_PROMPT_GIB,
    depth: _DepthText = "auto",
    exact: _Exact = False,
    as_json: _Json = False,
    raw: _Raw = False,
    think: _Think = None,
    chat_template: _ChatTemplate = None,
    template_var: _TemplateVar = None,
    json_schema: JsonSchema = None,
    grammar: GrammarFile = None,
    file: _File = None,
    plain: _Plain = False,
    show_drafts: _ShowDrafts = False,
    log: _Log = None,
    continue_: _Continue = None,
    quiet: _Quiet = False,
    version: Version = False,
) -> None:
    """Talk to a local model that drafts with multi-token prediction heads.

    With a REQUEST, or with text on stdin, it answers once on stdout. Otherwise it opens a
    conversation; /help lists its commands.
    """
    from mtp_cli import models

    if json_schema is not None and grammar is not None:
        raise typer.BadParameter("--json-schema and --grammar exclude each other.")
    # What is wrong with a path shows before the rest is imported.
    given, before = one_model(model, hf_repo), None
    if continue_ is None or given is not None:
        files = models.find(given, heads, draft_model, quiet=quiet)
    if continue_ is not None:
        from mtp_cli.chat import continued  # loads SQLite

        before = continued.find(continue_, None if given is None else files)
        if given is None:
            files = continued.files_of(before, heads, draft_model)

    from mtp_cli.chat.loaded import Options
    from mtp_cli.chat.schema import chosen
    from mtp_cli.chat.start import start
    from mtp_cli.conversation.attached import attach

    sampling = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "penalty_repeat": repeat_penalty,
        "penalty_last_n": repeat_last_n,
        "penalty_present": presence_penalty,
        "penalty_freq": frequency_penalty,
        "seed": seed,
        "top_n_sigma": top_n_sigma,
        "xtc_probability": xtc_probability,
        "xtc_threshold": xtc_threshold,
        "dry_multiplier": dry_multiplier,
        "dry_base": dry_base,
        "dry_allowed_length": dry_allowed_length,
        "dry_penalty_last_n": dry_penalty_last_n,
        "dry_sequence_breakers": breakers(dry_sequence_breaker),
    }
    options = Options(
        request=request,
        files=files,
        system=system,
        max_tokens=max_tokens,
        stops=tuple(stop or ()),
        guards_loops=not no_loop_guard,
        sampling={name: value for name, value in sampling.items() if value is not None},
        n_ctx=ctx,
        n_threads=threads,
        n_gpu_layers=gpu_layers,
        cache_types=(cache_type_k, cache_type_v),
        kept_prompt_bytes=int(cache_prompt_gib * (1 << 30)) if cache_prompt else 0,
        ways=ways,
        depth="auto" if depth == "auto" else int(depth),
        exact=exact,
        json=as_json,
        raw=raw,
        think=tuple(think or ()),
        chat_template=chat_template,
        template_vars=tuple(template_var or ()),
        attached=tuple(attach(Path(name)) for name in file or ()),
        plain=plain,
        shows_drafts=show_drafts,
        quiet=quiet,
        log=log,
        before=before,
        grammar=chosen(json_schema, grammar),
    )
    raise typer.Exit(start(options))


def main() -> None:
    """The entry point; the only place that catches MtpError."""
    if sys.stderr is None:  # closed by the caller; print() would turn to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        with printing():
            app(prog_name="mtp-chat")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)
