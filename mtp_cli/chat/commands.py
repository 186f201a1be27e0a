"""The slash commands: one table, one function each.

Knows the chat. Knows nothing of how lines are typed.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from mtp_cli.chat import proposed, report, schema, texts
from mtp_cli.chat.chat import Chat
from mtp_cli.chat.terminal import AnswerStream
from mtp_cli.conversation.levels import LEVELS, is_level
from mtp_cli.errors import MtpError
from mtp_cli.screen import dim, width

_KEYS = (
    ("Enter", "send"),
    ("Alt-Enter", "new line; so does \\ at the end of a line, and pasting keeps lines"),
    ("Up, Ctrl-R", "earlier messages"),
    ("Ctrl-C", "stop an answer and keep what was said; at the prompt, clear the line"),
    ("Ctrl-D", "leave"),
)
_N_SIDE_BY_SIDE = 40  # columns from which on a command and its summary share a line


# What people type in other programs, and the command that does it here: asked about, not sent.
_MEANT = {
    **dict.fromkeys(("exit", "quit", "exit()", "quit()", "logout", ":q", ":q!", ":wq"), "/exit"),
    **dict.fromkeys(("help", "help()", "?", ":h", ":help"), "/help"),
}
_ALIASES = {"/?": "/help", "/bye": "/exit", "/quit": "/exit", "/regen": "/retry"}


@dataclass(frozen=True)
class Command:
    """name: with its slash; argument: as shown in the help; run: raises EOFError to leave."""

    name: str
    argument: str
    summary: str
    run: Callable[[Chat, str], None]


def dispatch(chat: Chat, line: str) -> bool:
    """Run `line` if it is a command; False when it is a message.

    A slash inside the first word makes it a path, and so a message.
    """
    if line.rstrip().lower() in _MEANT:
        word = line.rstrip()
        chat.ask_back(
            f"not sent: you may mean {_MEANT[word.lower()]}; "
            f"with a space before it, {word} goes to the model"
        )
        return True
    if not line.startswith("/"):
        return False
    name, *argument = line.split(maxsplit=1)
    if "/" in name[1:]:
        return False
    name = name.lower()
    command = _named(_ALIASES.get(name, name))
    if argument and not command.argument:  # rather than do what may have been meant otherwise
        raise MtpError(f"{command.name} takes no argument")
    command.run(chat, "".join(argument).strip())
    return True


def _named(name: str) -> Command:
    """The command called so, or the only one whose name begins so."""
    meant = [c for c in COMMANDS if c.name == name] or [
        c for c in COMMANDS if c.name.startswith(name)
    ]
    if len(meant) > 1:
        raise MtpError(f"{name} could be {' or '.join(c.name for c in meant)}")
    if not meant:
        raise MtpError(f"no command {name}; /help lists them, a space before it makes it a message")
    return meant[0]


def _help(chat: Chat, _argument: str) -> None:
    lines = [(f"{c.name} {c.argument}".strip(), c.summary) for c in COMMANDS]
    columns = width(chat.err)
    is_beside = columns >= _N_SIDE_BY_SIDE
    indent = 16 if is_beside else 2
    for left, right in (*lines, ("", ""), *_KEYS):
        wrapped = [
            dim(line, chat.err) for line in textwrap.wrap(right, max(columns - indent - 1, 8))
        ]
        if is_beside and wrapped:
            left = f"{left:15} {wrapped.pop(0)}"
        print(left, *(" " * indent + line for line in wrapped), sep="\n", file=chat.err)


def _exit(_chat: Chat, _argument: str) -> None:
    raise EOFError


def _clear(chat: Chat, _argument: str) -> None:
    chat.session.messages = []
    chat.note("a new conversation")


def _undo(chat: Chat, _argument: str) -> None:
    asked = chat.session.undo()
    if asked is None:
        raise MtpError("there is nothing to undo")
    chat.note(f"took back: {texts.shortened(asked)}")


def _retry(chat: Chat, argument: str) -> None:
    sampling = chat.settings.sampling
    if argument:
        sampling = dataclasses.replace(sampling, temperature=_temperature(argument))
    if sampling.seed is not None:  # the same seed would only give the same answer
        sampling = dataclasses.replace(sampling, seed=sampling.seed + len(chat.history))
    with chat.preparing():
        answer = chat.session.regenerate(dataclasses.replace(chat.settings, sampling=sampling))
    if sampling.temperature == 0:
        chat.note("at temperature 0 an answer repeats itself; /retry 0.8 varies it")
    chat.show(answer)


def _more(chat: Chat, _argument: str) -> None:
    with chat.preparing():
        answer = chat.session.more(chat.settings)
    chat.show(answer)


def _drafts(chat: Chat, _argument: str) -> None:
    chat.shows_drafts = not chat.shows_drafts
    chat.note(proposed.LEGEND if chat.shows_drafts else "drafts are not shown any more")


def _model(chat: Chat, argument: str) -> None:
    if not argument:
        chat.note(str(chat.files.model))
    elif chat.switch is None:
        raise MtpError("the model cannot be changed here")
    else:
        chat.switch(argument)


def _system(chat: Chat, argument: str) -> None:
    if not argument:
        _show_system(chat)
    elif argument == "off":
        _drop_system(chat)
    else:
        chat.session.system = argument
        chat.note("system prompt set")


def _show_system(chat: Chat) -> None:
    words = chat.session.own_words()
    if words:
        print(dim("the chat template's own:", chat.err), file=chat.err)
    elif not chat.session.system:
        print(dim("no system prompt", chat.err), file=chat.err)
    stream = AnswerStream(chat.err)
    stream.write(chat.session.system or words)
    stream.end()


def _drop_system(chat: Chat) -> None:
    words = chat.session.drop_system()
    if words:
        chat.note(f"the chat template puts its own words in front, whatever it is told: {words}")
    else:
        chat.note("no system prompt from now on")


def _think(chat: Chat, argument: str) -> None:
    if argument in ("show", "hide"):
        chat.shows_reasoning = argument == "show"
    elif argument:
        if not is_level(argument):
            ways = ", ".join((*LEVELS, "a number of tokens", "show"))
            raise MtpError(f"/think takes {ways} or hide, not {argument}")
        chat.session.think(argument)
        chat.pass_on_notes()
    level = chat.session.thinking or "as the chat template has it"
    chat.note(f"thinking: {level}; {'shown' if chat.is_reasoning_shown else 'hidden'}")


def _schema(chat: Chat, argument: str) -> None:
    if argument:
        grammar = None if argument == "off" else schema.either_of(argument)
        chat.settings = dataclasses.replace(chat.settings, grammar=grammar)
    grammar = chat.settings.grammar
    kept = "are free text" if grammar is None else f"keep to the {grammar.kind}"
    chat.note(f"answers {kept}{' from now on' if argument else ''}")


def _stats(chat: Chat, _argument: str) -> None:
    if not chat.history:
        raise MtpError("there are no statistics before the first answer")
    report.show_table(chat.history, chat.n_ctx, chat.err)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise MtpError(f"{text}: expected a temperature of 0 or more")
    return value


COMMANDS = (
    Command("/help", "", "this list", _help),
    Command("/exit", "", "leave, as Ctrl-D does", _exit),
    Command("/clear", "", "begin a new conversation", _clear),
    Command("/undo", "", "take back the last question and its answer", _undo),
    Command("/retry", "[T]", "answer again, at temperature T", _retry),
    Command("/more", "", "go on with an answer that was cut or stopped", _more),
    Command("/edit", "[last]", "write a message in your editor, or the last one anew", texts.edit),
    Command("/file", "FILE", "let a text file go with the next message", texts.file),
    Command("/copy", "[code]", "the last answer, or its last code, to the clipboard", texts.copy),
    Command("/drafts", "", "show in colours what was drafted; again: no more", _drafts),
    Command("/model", "[NAME]", "say which model answers, or go on with another", _model),
    Command("/system", "[TEXT]", "show the system prompt or set it; off for none", _system),
    Command("/think", "[LEVEL]", "how much to think: off, on, low, high; show or hide it", _think),
    Command("/schema", "[FILE]", "a JSON schema or .gbnf for all answers; off for none", _schema),
    Command("/save", "FILE", "write the conversation to FILE as JSON", texts.save),
    Command("/load", "FILE", "go on from a saved conversation", texts.load),
    Command("/stats", "", "what the answers so far cost", _stats),
)
