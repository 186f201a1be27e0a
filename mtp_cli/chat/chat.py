"""The chat that the loop and the slash commands share: a session, its settings, what it showed.

Knows how an answer is shown. Knows nothing of how lines are typed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from mtp_cli.chat import report
from mtp_cli.chat.colours import highlighted
from mtp_cli.chat.kept import KeptChat
from mtp_cli.chat.live import LiveLine
from mtp_cli.chat.markdown import Markdown
from mtp_cli.chat.proposed import Proposed
from mtp_cli.chat.spoken import SpokenStream
from mtp_cli.chat.terminal import interruptible, silent_keys
from mtp_cli.conversation.answer import Answer
from mtp_cli.conversation.attached import Attached, with_files
from mtp_cli.conversation.reasoning import Part
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.models import ModelFiles
from mtp_cli.screen import are_one, dim, fold, is_file, is_terminal, say
from mtp_cli.waiting import Wait

if TYPE_CHECKING:
    from mtp_cli.engine import Stats


_BAR = 16  # columns of the bar that fills while a prompt is read


@dataclass
class Chat:
    """out: where answers go, alone; err: everything else.

    history: the statistics of every answer shown, newest last.
    is_conversation: there is a prompt to type commands at
    shows_reasoning: None for the usual, which is in a terminal alone
    shows_drafts: whether colours say who proposed what, in place of what Markdown says
    is_plain: whether a terminal gets no styles at all
    attached: files that go with the next message
    switch: goes on with another model, by its name or path
    kept: where the log has the conversation, None for nowhere
    """

    session: Session
    settings: Settings
    files: ModelFiles
    n_ctx: int
    out: TextIO
    err: TextIO
    quiet: bool = False
    history: list[Stats] = field(default_factory=list)
    is_conversation: bool = False
    shows_reasoning: bool | None = None
    shows_drafts: bool = False
    is_plain: bool = False
    attached: list[Attached] = field(default_factory=list)
    switch: Callable[[str], None] | None = None
    kept: KeptChat | None = None

    @property
    def is_reasoning_shown(self) -> bool:
        return is_terminal(self.out) if self.shows_reasoning is None else self.shows_reasoning

    def note(self, text: str) -> None:
        """One dim line beside the conversation, unless all should be quiet."""
        if not self.quiet:
            self.ask_back(text)

    def ask_back(self, text: str) -> None:
        """The same where nothing else answers what was typed."""
        say(dim(fold(text, self.err), self.err), self.err)

    def ask(self, text: str) -> None:
        """Answer a message, with what is attached to it."""
        with self.preparing():
            answer = self.session.ask(with_files(text, self.attached), self.settings)
        self.attached = []
        self.show(answer)

    def preparing(self) -> Wait:
        """While a question becomes a prompt."""
        return Wait(lambda: "preparing the answer", self.err, quiet=self.quiet)

    def awaiting(self, answer: Answer) -> Wait:
        """While an answer is under way and nothing of it shows."""
        return Wait(lambda: _progress(answer), self.err, quiet=self.quiet)

    def _live(self, answer: Answer) -> LiveLine:
        """How fast an answer comes, below it: where both are on one terminal."""
        is_one = is_terminal(self.out) and are_one(self.out, self.err)
        return LiveLine(lambda: report.pace(answer.stats), self.err, quiet=self.quiet or not is_one)

    @contextlib.contextmanager
    def keeping(self, answer: Answer) -> Iterator[None]:
        """Within it an answer comes: its question is in the log before, and it is afterwards."""
        if self.kept is not None:
            self.kept.ask(self, answer)
        try:
            yield
        finally:
            self.follow()

    def follow(self) -> None:
        """Let the log have the conversation as it is now."""
        if self.kept is not None:
            self.kept.follow(self)

    def show(self, answer: Answer) -> None:
        """Stream an answer to its end, or to Ctrl-C, then say what it cost."""
        with self.keeping(answer):
            self._show(answer)

    def _show(self, answer: Answer) -> None:
        self.pass_on_notes()
        self._note_left_out(answer)
        is_seen = not is_file(self.out) or are_one(self.out, self.err)  # nobody sees a file filling
        wait = self.awaiting(answer)
        live = self._live(answer)

        def before_text() -> None:
            if is_seen:
                wait.end()
            live.take_back()

        proposed = Proposed() if self.shows_drafts else None
        is_plain = self.is_plain or self.settings.grammar is not None
        stream = SpokenStream(
            self.out,
            is_shown=self.is_reasoning_shown,
            before_text=before_text,
            after_text=live.show_below,
            styler=lambda: proposed or (None if is_plain else Markdown(highlighted)),
        )

        def hear(part: Part) -> None:
            nonlocal wait
            if proposed is not None and part.kind == "content":
                proposed.expect(answer.proposed(part))
            if stream.write(part):
                return
            live.end()
            stream.pause()
            live.end()
            if wait.is_over:
                wait = self.awaiting(answer)

        try:
            listen(answer, hear)
        finally:
            wait.end()
            live.end()
            stream.end()
            live.end()
        self._note_ending(answer)
        if answer.stats.inexact:
            self.note(
                f"--exact: rows of {_listed(answer.stats.inexact)} at once came out otherwise than "
                "alone, and had not before: text until then may differ from plain decoding's"
            )
        if not answer.tokens:  # stopped before the first of them
            return
        self.history.append(answer.stats)
        self.note(report.line(answer.stats, with_prompt=not self.is_conversation))

    def _note_left_out(self, answer: Answer) -> None:
        if answer.n_left_out:
            n = "exchange is" if answer.n_left_out == 1 else f"{answer.n_left_out} exchanges are"
            self.note(f"the context is full: the oldest {n} left out from now on")

    def pass_on_notes(self) -> None:
        """What the conversation has to say of how it puts messages to the model."""
        for note in self.session.new_notes():
            self.note(note)

    def _note_ending(self, answer: Answer) -> None:
        """Say why an answer ended where its text does not show it, and what can be done."""
        n_tokens, ways = len(answer.tokens), ["/more goes on"] if self.is_conversation else []
        is_thought = answer.is_thought
        unfinished = self._unfinished(answer)
        inside = ", inside its reasoning" if is_thought else unfinished
        if answer.finish_reason == "interrupted":
            has_begun = answer.text or answer.reasoning
            self.note(f"stopped{inside}" if has_begun else "stopped before the first word")
            return
        if is_thought and not self.is_reasoning_shown:
            ways.append("--think show shows it")
        if answer.finish_reason == "repetition":
            n = "token" if answer.speech.period == 1 else f"{answer.speech.period} tokens"
            said = f"stopped at {n_tokens} tokens{inside}: the same {n} came again and again"
            ways.append("--no-loop-guard does not stop it")
        elif answer.finish_reason == "length" and self.settings.max_tokens == n_tokens:
            said = f"cut at {n_tokens} tokens{inside}"
            ways.append("-n sets another limit")
        elif answer.finish_reason == "length":
            said = f"the context is full{inside}"
            ways = [*(ways if self.session.has_older else ()), "--ctx sets a larger one"]
        elif answer.speech.is_stopped and (unfinished or not answer.text):
            said, ways = f"stopped at a text of --stop{unfinished}", ways[: self.is_conversation]
        elif is_thought:
            said, ways = "the answer ended inside its reasoning", ways[self.is_conversation :]
        elif not answer.splitter.text:
            said, ways = "the answer is empty", []
        else:
            return
        self.note(f"{said} ({', '.join(ways)})" if ways else said)

    def _unfinished(self, answer: Answer) -> str:
        """What an answer in a form that was cut is not."""
        grammar = self.settings.grammar
        return "" if grammar is None or answer.is_whole else f", before the {grammar.kind} was done"


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, sorted(set(numbers))))


def _progress(answer: Answer) -> str:
    """How far an answer has come; asked from another thread."""
    n, n_read, n_said = answer.stats.prompt_tokens, answer.n_read, len(answer.tokens)
    if n_said:
        doing = "thinking" if answer.is_thinking else "answering"
        return f"{doing}: {n_said:,} {'token' if n_said == 1 else 'tokens'}"
    filled = _BAR * n_read // max(n, 1)
    bar = "━" * filled + "╌" * (_BAR - filled)
    return f"reading the prompt {bar} {100 * n_read // max(n, 1)}% of {n:,} tokens"


def listen(answer: Answer, hear: Callable[[Part], None]) -> None:
    """Pass an answer on as it comes. Ctrl-C ends it; a second one is a KeyboardInterrupt.

    Where `hear` fails the answer ends too, and the session takes up what came until then.
    """
    with (
        silent_keys(),
        interruptible(answer.stop),
        contextlib.closing(answer.parts()) as parts,
    ):
        for part in parts:
            hear(part)
