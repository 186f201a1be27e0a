"""How a target's conversations are framed: the ids of what its chat template puts around turns.

Knows nothing of what is said in the turns, nor of decodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtp_cli.conversation.prompt import PromptReader, chat_format
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.engine.backend.model import Model
from mtp_cli.errors import MtpError
from mtp_train import prompts

_MARK = "\x01"


class _Tokenizer:
    """A model's tokenizer, as conversations ask for it."""

    def __init__(self, model: Model):
        self._model = model
        self.metadata = model.metadata()
        self.tokenize, self.is_eog = model.tokenize, model.is_eog
        self.special_text = model.special_text
        self.kind, self.is_matched = model.types.kind, model.types.is_matched

    @property
    def first_token(self) -> int | None:
        return self._model.first_token

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self._model.piece(token, special=special)


class Framing:
    """The ids of turns in the chat template; MtpError where it cannot frame them.

    All that is given at once is read at once, as the chat reads it: a tokenizer may join what a
    template says with what a request begins with.
    """

    def __init__(self, model: Model):
        self._model = model
        tokenizer = _Tokenizer(model)
        template = tokenizer.metadata.get("tokenizer.chat_template", "")
        if not template.strip():
            raise MtpError(
                f"{model.path}: holds no chat template, by which it would write its training text; "
                "convert its chat model, or one whose tokenizer files have a template"
            )
        self._template = ChatTemplate(
            template,
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
        )
        self._reader = PromptReader(tokenizer, chat_format(self._template.render, template))
        self._before_answer = self._render([{"role": "user", "content": _MARK}])[1]
        talk: list[Message] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": _MARK},
            {"role": "user", "content": _MARK},
        ]
        self._between = self._render(talk)[1]
        self.answer = self._reader.read_on(self._before_answer)
        self.next_turn = self._reader.read_on(self._between)
        self.takes_system = self._takes_system()

    def _takes_system(self) -> bool:
        """Whether the template has a place for a system message; some refuse one."""
        try:
            return self.opening(prompts.SYSTEMS[0]) != self.opening(None)
        except MtpError:
            return False

    def opening(self, system: str | None) -> list[int]:
        """Everything before a first request; None is the template's own default."""
        return self._reader.read(self._render(self._asked(system, _MARK))[0])

    def asked(self, system: str | None, request: str) -> list[int]:
        """A first request, and everything before its answer."""
        return self._reader.read(self._template.render(self._asked(system, request)))

    def asked_on(self, request: str) -> list[int]:
        """What follows an answer: the next request, and everything before its own answer."""
        guarded = self._reader.guard(request)
        return self._reader.read_on(f"{self._between}{guarded}{self._before_answer}")

    def _asked(self, system: str | None, request: str) -> list[Message]:
        asked = [Message(role="user", content=self._reader.guard(request))]
        if system is not None:
            asked.insert(0, Message(role="system", content=self._reader.guard(system)))
        return asked

    def text(self, ids: Sequence[int]) -> str:
        pieces = (self._model.piece(token, special=False) for token in ids)
        return b"".join(pieces).decode(errors="ignore").strip()

    def _render(self, messages: list[Message]) -> list[str]:
        found = self._template.render(messages).split(_MARK)
        if len(found) != 1 + sum(message["content"] == _MARK for message in messages):
            raise MtpError(
                f"{self._model.path}: its chat template leaves a message out or repeats it; text "
                "that it frames cannot be told from the frame"
            )
        return found
