"""`mtp-serve`: its options, and the one place where expected errors end.

Heavy imports wait until they are needed: `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

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
from mtp_cli.options import HELP, MAX_INT32, Version, depth_text, pairs
from mtp_cli.screen import printing, say_error
from mtp_cli.settings.command import Configured

PORT = 8080
_KEY_VARIABLE = "MTP_API_KEY"

app = typer.Typer(context_settings=HELP, pretty_exceptions_enable=False, rich_markup_mode=None)


def _key(text: str | None) -> str | None:
    if text is not None and not (text.isascii() and text.isprintable() and text.strip() == text):
        raise typer.BadParameter("a key is of printable ASCII characters, without blanks around.")
    if text == "":
        raise typer.BadParameter("an empty key; leave the option out for none.")
    return text


_Host = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is every network.")
]
_Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="0 takes any that is free.")
]
_ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar=_KEY_VARIABLE,
        show_envvar=False,
        hide_input=True,  # in what shows settings
        callback=_key,
        help=f"Key that clients must give; {_KEY_VARIABLE} in the environment does the same, and "
        "shows in no list of processes. [default: none]",
    ),
]
_Alias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Another name that requests may call the model by; may be given more than once.",
    ),
]
_Queue = Annotated[
    int, typer.Option(metavar="N", min=0, max=MAX_INT32, help="Requests that may wait.")
]
_CacheRam = Annotated[
    int | None,
    typer.Option(
        metavar="MIB",
        min=0,
        max=MAX_INT32,
        help="Memory for conversations beside the one that is being answered. "
        "[default: a quarter of what is free]",
    ),
]
_Ctx = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_INT32,
        help="Tokens that a prompt and its answer can have. [default: 8192, or what the model was "
        "trained with if that is less]",
    ),
]
_DepthText = Annotated[
    str,
    typer.Option(
        metavar="auto|0..8",
        callback=depth_text,
        help="Tokens to draft each round; 0 is plain decoding. Answers stay the model's own.",
    ),
]
_Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Verify only as many tokens together as change no bit here, and draw none of them: "
        "greedy, or with a seed, an answer is plain decoding's.",
    ),
]
_LoopGuard = Annotated[
    bool,
    typer.Option(
        "--no-loop-guard", help="Let an answer repeat itself for ever, as the model likes."
    ),
]
_ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        help="Jinja file of another chat template, or a named one inside the GGUF. "
        "[default: the GGUF's]",
    ),
]
_TemplateVar = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        callback=pairs,
        help="Variable for the chat template, JSON where VALUE is; may be given more than once.",
    ),
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing on stderr but errors.")]

_EPILOG = f"""\b
Examples:
  mtp-serve                                     the built-in model, for this machine
  mtp-serve -m big.gguf --heads big-mtp.gguf    your own model and heads
  mtp-serve --host 0.0.0.0 --api-key KEY        for other machines, too

\b
  curl http://127.0.0.1:{PORT}/v1/chat/completions \\
      -H "Content-Type: application/json" \\
      -d '{{"messages": [{{"role": "user", "content": "Hello"}}]}}'

\b
Exit status: 0 after SIGTERM or Ctrl-C, 1 an error, 2 wrong usage."""


@app.command(cls=Configured, epilog=_EPILOG)
@with_ways
def serve(
    ways: ChosenWays,
    model: Model = None,
    hf_repo: HfRepo = None,
    heads: Heads = None,
    draft_model: DraftModel = None,
    host: _Host = "127.0.0.1",
    port: _Port = PORT,
    api_key: _ApiKey = None,
    alias: _Alias = None,
    queue: _Queue = 64,
    cache_ram: _CacheRam = None,
    ctx: _Ctx = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
    depth: _DepthText = "auto",
    exact: _Exact = False,
    no_loop_guard: _LoopGuard = False,
    chat_template: _ChatTemplate = None,
    template_var: _TemplateVar = None,
    quiet: _Quiet = False,
    version: Version = False,
) -> None:
    """Serve a local model to editors and other clients of the OpenAI API."""
    from mtp_cli import models

    # What is wrong with a path shows before the rest is imported.
    files = models.find(one_model(model, hf_repo), heads, draft_model, quiet=quiet)

    from mtp_cli.serve import run

    run.serve(
        run.Options(
            files=files,
            host=host,
            port=port,
            key=api_key,
            aliases=tuple(alias or ()),
            n_queued=queue,
            cache_mib=cache_ram,
            n_ctx=ctx,
            n_threads=threads,
            n_gpu_layers=gpu_layers,
            cache_types=(cache_type_k, cache_type_v),
            ways=ways,
            depth="auto" if depth == "auto" else int(depth),
            exact=exact,
            guards_loops=not no_loop_guard,
            chat_template=chat_template,
            template_vars=tuple(template_var or ()),
            quiet=quiet,
        )
    )


def main() -> None:
    """The entry point; the only place that catches MtpError."""
    if sys.stderr is None:  # closed by the caller; print() would turn to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        with printing():
            app(prog_name="mtp-serve")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)
