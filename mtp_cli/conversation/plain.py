"""Text as its characters: ids among which no token of the chat format is.

Knows nothing of messages. What counts is what the file says of a token, and what the template
spells: an HTML tag or a run of spaces that is a token by itself is text, and stays that token.
"""

from __future__ import annotations

from mtp_cli.conversation.tokenizer import Speller, Tokenizer

# As `mtp-convert` writes it: "first" or "always"; without it llama.cpp adds its space.
_KEY_SPACE_SCHEME = "tokenizer.ggml.space_prefix_scheme"
_NEIGHBOURS = (".", "a", "1", "-", "\u00e9", "\u8a9e", "\x02")  # tried in this order


class PlainText:
    """Tokenises text of which nothing is control.

    chat_format: the template and what it renders. A user-defined token that is spelled there
                 belongs to the format, unless it is a word or white space
    """

    def __init__(self, tokenizer: Tokenizer, chat_format: str) -> None:
        self._tokenizer = tokenizer
        self._chat_format = chat_format
        self._speller = Speller(tokenizer)
        self._scheme = tokenizer.metadata.get(_KEY_SPACE_SCHEME)
        alone = b"".join(tokenizer.piece(token) for token in self._literal("x"))
        self._adds_space = alone != b"x"

    @property
    def margin(self) -> str:
        """What stands in front of a text's first word, " " or ""."""
        return " " if self._adds_space else ""

    @property
    def is_spaced_once(self) -> bool:
        """Whether a text gets a space in front only where nothing stands before it."""
        return self._scheme == "first"

    def is_control(self, token: int) -> bool:
        """Whether the token must come from the template alone."""
        kind = self._tokenizer.kind(token)
        if kind == "control" or self._tokenizer.is_eog(token):
            return True
        spelling = self._speller.spelling(token)
        is_mark = len(spelling) > 1 and not spelling.isspace() and not spelling.isalnum()
        return kind == "user-defined" and is_mark and spelling in self._chat_format

    def ids(self, text: str, *, continues: bool) -> list[int]:
        """The ids of `text`; continues: it goes on from a text and begins none."""
        continues = continues or (self._scheme is not None and text.startswith(" "))
        ids: list[int] = []
        waiting = [text]
        while waiting:
            part = waiting.pop()
            found = self._continued(part) if continues else self._literal(part)
            pieces = self._broken(part, found)
            if pieces:
                waiting += reversed(pieces)
            elif part:
                ids += found
                continues = True
        return ids

    def _broken(self, text: str, ids: list[int]) -> list[str]:
        """`text` in parts, cut inside every spelling of a control token that is among `ids`."""
        for token in set(filter(self.is_control, ids)):
            spelling = self._speller.spelling(token)
            for form in (spelling, spelling.lstrip(" ")):
                if len(form) > 1 and form in text:
                    return self._cut(text, form)
        return []

    def _cut(self, text: str, spelling: str) -> list[str]:
        at = self._first_border(spelling)
        first, *rest = text.split(spelling)
        parts = [first]
        for part in rest:
            parts[-1] += spelling[:at]
            parts.append(spelling[at:] + part)
        return parts

    def _first_border(self, spelling: str) -> int:
        """Where the tokeniser itself would cut the spelling, were it no token."""
        text = ""
        for token in self._continued(spelling[:-1]):
            text += self._tokenizer.piece(token).decode(errors="replace")
            if text and spelling.startswith(text):
                return len(text)
        return 1

    def _continued(self, text: str) -> list[int]:
        """`text` without the space that some tokenisers put before the first word."""
        if self._adds_space:
            for neighbour in _NEIGHBOURS:
                before = self._literal(neighbour)
                both = self._literal(neighbour + text)
                if both[: len(before)] == before and len(both) > len(before):
                    return both[len(before) :]
        return self._literal(text)

    def _literal(self, text: str) -> list[int]:
        return self._tokenizer.tokenize(text, add_special=False, parse_special=False)
