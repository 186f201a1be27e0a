"""The options of `mtp-chat` beside the model and how it samples, and which values they take.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from mtp_cli.chat import dispatch
from mtp_cli.conversation.levels import LEVELS, is_level
from mtp_cli.options import MAX_INT32, MAX_TOKENS, depth_text, pairs, utf8


def _stops(texts: list[str] | None) -> list[str] | None:
    if texts is not None and "" in texts:
        raise typer.BadParameter("an empty text is everywhere; give one to stop at.")
    for text in texts or ():
        utf8(text)
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


def is_on_the_line(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, and its value is no default or setting."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


Request = Annotated[
    str | None,
    typer.Argument(
        metavar="REQUEST",
        show_default=False,
        callback=utf8,
        autocompletion=dispatch.names,
        help="Answer this and exit. Text on stdin follows it, after a blank line.",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        "-s",
        metavar="TEXT",
        callback=utf8,
        help="System prompt. [default: the built-in model's own; else what the chat template adds]",
    ),
]
MaxTokens = Annotated[
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
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        callback=_stops,
        help="End an answer before TEXT; may be given more than once.",
    ),
]
LoopGuard = Annotated[
    bool,
    typer.Option(
        "--no-loop-guard", help="Let an answer repeat itself for ever, as the model likes."
    ),
]
Ctx = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_INT32,
        help="Tokens that the conversation can have. [default: 8192, or what the model was "
        "trained with if that is less]",
    ),
]
CachePrompt = Annotated[
    bool,
    typer.Option(
        "--cache-prompt",
        help="Keep long prompts that were read on disk, and read none of them again: a file, or a "
        "conversation that goes on later.",
    ),
]
CachePromptGib = Annotated[
    float,
    typer.Option(
        metavar="GIB",
        min=0.001,
        max=MAX_INT32,
        help="Space for them, with --cache-prompt; those that were not used for longest go first.",
    ),
]
DepthText = Annotated[
    str,
    typer.Option(
        metavar="auto|0..8",
        callback=depth_text,
        help="Tokens to draft each round; 0 is plain decoding. The answer stays the model's own.",
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Verify only as many tokens together as change no bit here, and draw none of them: "
        "greedy, or with a seed, the answer is plain decoding's.",
    ),
]
Log = Annotated[
    bool | None,
    typer.Option(
        "--log/--no-log",
        show_default=False,
        help="Keep it for mtp-chat log and --continue, or do not. [default: a conversation is "
        "kept, unless MTP_NO_LOG is set, and an answer to a REQUEST or a pipe is not]",
    ),
]
Continue = Annotated[
    str | None,
    typer.Option(
        "--continue",
        metavar="[ID]",
        callback=_conversation,
        help="Go on with a conversation that was kept, the last one without ID (of the --model "
        "given), with its model and settings where no option gives others.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object: text, tokens, counts and times.")
]
Raw = Annotated[
    bool, typer.Option("--raw", help="No chat template: the model continues the text as it is.")
]
Plain = Annotated[
    bool, typer.Option("--plain", help="No Markdown styles in a terminal: answers as said.")
]
ShowDrafts = Annotated[
    bool,
    typer.Option(
        "--show-drafts",
        help="Colours for who proposed what: drafted green, copied cyan, "
        "forced by a schema magenta.",
    ),
]
File = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Text file that goes with the REQUEST, or with a conversation's first message; may "
        "be given more than once.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing on stderr but errors.")]

_TEMPLATE_PANEL = "Chat template and thinking"

Think = Annotated[
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
ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        callback=utf8,
        rich_help_panel=_TEMPLATE_PANEL,
        help="Jinja file of another chat template, or a named one inside the GGUF. "
        "[default: the GGUF's]",
    ),
]
TemplateVar = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        callback=pairs,
        rich_help_panel=_TEMPLATE_PANEL,
        help="Variable for the chat template, JSON where VALUE is; may be given more than once.",
    ),
]
