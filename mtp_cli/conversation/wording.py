"""How messages are put to a model, through a chat template or as they are, and its answers read.

Owns the guard around texts, and the one choice between a template and none. Knows nothing of turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtp_cli.conversation.front import own_words
from mtp_cli.conversation.prompt import PromptReader, chat_format, quoted
from mtp_cli.conversation.reasoning import Splitter
from mtp_cli.conversation.speech import Heard, heard
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.conversation.templated import Templated
from mtp_cli.conversation.tokenizer import Tokenizer
from mtp_cli.errors import MtpError


class Wording:
    """The wording of one conversation.

    source:    of the chat template; None for texts that follow one another as they are, and may
               spell control tokens
    variables: the user's, for the template
    prompts:   turns what is rendered into ids
    """

    def __init__(
        self, tokenizer: Tokenizer, source: str | None, variables: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._template = None
        self.prompts = PromptReader(tokenizer, None)
        if source is not None:
            compiled = ChatTemplate(
                source, bos=tokenizer.special_text("bos"), eos=tokenizer.special_text("eos")
            )
            self._template = Templated(tokenizer, compiled, variables)
            self.prompts = PromptReader(
                tokenizer, chat_format(self._template.preview, self._template.format)
            )

    @property
    def level(self) -> str | None:
        """How much the model is told to think; None: as the template has it."""
        return self._template.level if self._template else None

    def think(self, level: str | None) -> None:
        """Tell the model how much to think from now on; MtpError where the template refuses."""
        if self._template is None:
            raise MtpError(
                "how much to think is told through a chat template, and here is none "
                "(--chat-template gives one)"
            )
        self._template.think(level)

    def new_notes(self) -> list[str]:
        """What a user should know of how the messages were put to the model; each is told once."""
        return self._template.new_notes() if self._template else []

    def own_words(self, system: str | None) -> str:
        """What the template puts in front of a conversation with this system prompt."""
        if self._template is None:
            return ""
        try:
            return own_words(self._template.preview, self.prompts.without_control, system)
        except MtpError as error:
            return "" if system is None else str(error)

    def render(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            return "".join(self.prompts.guard(message["content"]) for message in messages)
        return self._template.render(self._put(messages))

    def splitter(self, messages: Sequence[Message]) -> Splitter:
        """What tells apart the parts of an answer to `messages`."""
        if self._template is None:
            return Splitter()
        return self._template.splitter(self._put(messages))

    def heard(self, messages: Sequence[Message], answer: Message) -> Splitter:
        """One that has heard this answer to `messages`."""
        if self._template is not None:
            return self._template.heard(self._put(messages), answer)
        splitter = Splitter()
        splitter.feed(answer["content"])
        return splitter

    def hear(self, token: int) -> Heard:
        return heard(self._tokenizer, token, marks_control=self._template is not None)

    def guard_said(self, text: str) -> str:
        """What an answer says is none of its marks, which templates look for in content."""
        marks = self._template.reasoning_marks if self._template else ()
        return quoted(self.prompts.guard(text), marks)

    def _put(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as they go to the template."""
        return [self._guarded(message) for message in messages]

    def _guarded(self, message: Message) -> Message:
        guard = self.guard_said if message["role"] == "assistant" else self.prompts.guard
        guarded = Message(role=message["role"], content=guard(message["content"]))
        if "reasoning" in message:
            guarded["reasoning"] = guard(message["reasoning"])
        return guarded
