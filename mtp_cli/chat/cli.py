"""`mtp-chat`: its options, and the one place where expected errors end.

Heavy imports wait until they are needed: `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from mtp_cli.chat import dispatch
from mtp_cli.chat.options import (
    CachePrompt,
    CachePromptGib,
    ChatTemplate,
    Continue,
    Ctx,
    DepthText,
    Exact,
    File,
    Json,
    Log,
    LoopGuard,
    MaxTokens,
    Plain,
    Quiet,
    Raw,
    Request,
    ShowDrafts,
    Stop,
    System,
    TemplateVar,
    Think,
    is_on_the_line,
)
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
from mtp_cli.options import CACHE_PROMPT_GIB, HELP, Version
from mtp_cli.screen import printing, say_error

app = typer.Typer(context_settings=HELP, pretty_exceptions_enable=False, rich_markup_mode=None)


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
    context: typer.Context,
    ways: ChosenWays,
    request: Request = None,
    model: Model = None,
    hf_repo: HfRepo = None,
    heads: Heads = None,
    draft_model: DraftModel = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    no_loop_guard: LoopGuard = False,
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
    ctx: Ctx = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
    cache_prompt: CachePrompt = False,
    cache_prompt_gib: CachePromptGib = CACHE_PROMPT_GIB,
    depth: DepthText = "auto",
    exact: Exact = False,
    as_json: Json = False,
    raw: Raw = False,
    think: Think = None,
    chat_template: ChatTemplate = None,
    template_var: TemplateVar = None,
    json_schema: JsonSchema = None,
    grammar: GrammarFile = None,
    file: File = None,
    plain: Plain = False,
    show_drafts: ShowDrafts = False,
    log: Log = None,
    continue_: Continue = None,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Talk to a local model that drafts with multi-token prediction heads.

    With a REQUEST, or with text on stdin, it answers once on stdout. Otherwise it opens a
    conversation; /help lists its commands.
    """
    from mtp_cli import models

    if json_schema is not None and grammar is not None:
        raise typer.BadParameter("--json-schema and --grammar exclude each other.")
    if not cache_prompt and is_on_the_line(context, "cache_prompt_gib"):
        raise typer.BadParameter("--cache-prompt-gib is space for --cache-prompt: give both.")
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
