"""The options of how tokens are chosen, by llama.cpp's names.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import math
from typing import Annotated

import typer

from mtp_cli.options import MAX_INT32

_PANEL = "More ways to sample"


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number to sample with.")
    return value


def _breakers(texts: list[str] | None) -> list[str] | None:
    if texts is not None and "" in texts:
        raise typer.BadParameter("an empty text is everywhere; give one that ends repetitions.")
    return texts


def breakers(texts: list[str] | None) -> tuple[str, ...] | None:
    """Of --dry-sequence-breaker, as `Sampling` takes them; None where there is no such option."""
    if not texts:
        return None
    return () if texts == ["none"] else tuple(texts)


Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "-t",
        metavar="X",
        min=0,
        callback=_finite,
        help="0 always takes the likeliest token. [default of all sampling: what is best for the "
        "built-in model; else what the GGUF recommends, all but mirostat and another order of "
        "samplers, which a line then says; else 0.8, 40, 0.95, 0.05, nothing more]",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_INT32,
        help="Sample from the N likeliest tokens; 0 for all.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        callback=_finite,
        help="Sample from the likeliest tokens that together have probability X; 1 for all.",
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        callback=_finite,
        help="Leave out tokens less than X times as likely as the likeliest; 0 for none.",
    ),
]
RepeatPenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0.001,
        max=1000,
        callback=_finite,
        help="Divide the logits of tokens that came lately by X, multiply those below 0; "
        "1 for none.",
    ),
]
RepeatLastN = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_INT32,
        help="Tokens that count as lately, of prompt and answer, for all penalties; 0 for none. "
        "[default: what the GGUF recommends, else 64]",
    ),
]
PresencePenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=-1000,
        max=1000,
        callback=_finite,
        help="Take X off the logits of tokens that came lately; 0 for none.",
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=-1000,
        max=1000,
        callback=_finite,
        help="Take X off for each time that they came; 0 for none.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Same seed, same answer: plain decoding's, at any --depth. [default: a random one]",
    ),
]
TopNSigma = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        callback=_finite,
        rich_help_panel=_PANEL,
        help="Leave out tokens whose logit is more than X standard deviations below the best; "
        "0 for none.",
    ),
]
XtcProbability = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        callback=_finite,
        rich_help_panel=_PANEL,
        help="XTC: with probability X leave out the likeliest tokens, all that reach the "
        "threshold but the least likely of them; 0 for never.",
    ),
]
XtcThreshold = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        callback=_finite,
        rich_help_panel=_PANEL,
        help="XTC: the probability from which on a token is one of the likeliest; above 0.5 "
        "nothing is left out. [default: 0.1]",
    ),
]
DryMultiplier = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        callback=_finite,
        rich_help_panel=_PANEL,
        help="DRY: take X off the logit of a token that would go on with a repetition; "
        "0 for nothing.",
    ),
]
DryBase = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=1,
        callback=_finite,
        rich_help_panel=_PANEL,
        help="DRY: times X for each token that the repetition is longer. [default: 1.75]",
    ),
]
DryAllowedLength = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_INT32,
        rich_help_panel=_PANEL,
        help="DRY: repetitions of fewer tokens cost nothing. [default: 2]",
    ),
]
DryPenaltyLastN = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_INT32,
        rich_help_panel=_PANEL,
        help="DRY: tokens that are looked through, of prompt and answer. [default: 64]",
    ),
]
DrySequenceBreaker = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        callback=_breakers,
        rich_help_panel=_PANEL,
        help="DRY: a text that ends repetitions; may be given more than once, none alone for no "
        "such text. [default: a line break, a colon, a double quote, an asterisk]",
    ),
]
