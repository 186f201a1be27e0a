"""Prompts in vocabularies of every kind, against the whole text read by a tokeniser for which the
tokens of the chat format have no spelling.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtp_cli.conversation.prompt import PromptReader, chat_format, prompt_ids
from mtp_cli.conversation.template import ChatTemplate, Message
from tests.engine import vocabularies
from tests.engine.vocabularies import BOS, END, EOS, IDS, LETTERS, MARK, START, TAG
from tests.engine.vocabularies import VocabularyTokenizer as Reader

Part = int | str  # a special token, or text
MARKED = (
    "{% for m in messages %}<|start|>{{ m.role }}<|mark|>{{ m.content }}<|end|>\n{% endfor %}"
    "<|start|>assistant<|mark|>"
)
PLAIN = (
    "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{{ '### assistant:\n' }}"
)
ADDED = {"add_bos_token": True, "add_eos_token": True, "add_sep_token": True}
VOCABULARIES: dict[str, Callable[..., dict[str, Any]]] = {
    "spm": functools.partial(vocabularies.spm, **ADDED),
    "spm-no-prefix": functools.partial(vocabularies.spm, add_space_prefix=False, **ADDED),
    "bpe": functools.partial(vocabularies.bpe, **ADDED),
    "ugm": functools.partial(vocabularies.ugm, **ADDED),
    "ugm-merged-spaces": functools.partial(
        vocabularies.ugm, remove_extra_whitespaces=True, **ADDED
    ),
    "wpm": functools.partial(vocabularies.wpm, **ADDED),
}


def marked(messages: Sequence[Message]) -> list[Part]:
    turns: list[Part] = []
    for m in messages:
        turns += [IDS[START], m["role"], IDS[MARK], m["content"], IDS[END], "\n"]
    return [*turns, IDS[START], "assistant", IDS[MARK]]


def plain(messages: Sequence[Message]) -> list[Part]:
    return ["".join(f"### {m['role']}:\n{m['content']}\n\n" for m in messages), "### assistant:\n"]


@dataclass(frozen=True)
class Case:
    """A vocabulary, its twin, and a format as a template and as parts."""

    reader: Reader
    twin: Reader
    source: str
    parts: Callable[[Sequence[Message]], list[Part]]

    @property
    def template(self) -> ChatTemplate:
        return ChatTemplate(self.source, bos=BOS, eos=END)

    def whole(self, messages: Sequence[Message]) -> list[int]:
        """The prompt with each text between two special tokens read at once."""
        ids = [IDS[BOS]]
        for is_text, run in itertools.groupby(self.parts(messages), lambda p: isinstance(p, str)):
            if is_text:
                text = "".join(map(str, run))
                ids += self.twin.tokenize(text, add_special=False, parse_special=True)
            else:
                ids += [part for part in run if isinstance(part, int)]
        return ids

    def prompts(self) -> PromptReader:
        return PromptReader(self.reader, chat_format(self.template.render, self.source))

    def render(self, prompts: PromptReader, messages: Sequence[Message]) -> str:
        guarded = [Message(role=m["role"], content=prompts.guard(m["content"])) for m in messages]
        return self.template.render(guarded)


@pytest.fixture(
    scope="module",
    params=[(v, f) for v in VOCABULARIES for f in ("marked", "plain")],
    ids="-".join,
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    vocabulary, form = request.param
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    source, parts = {"marked": (MARKED, marked), "plain": (PLAIN, plain)}[form]
    build = VOCABULARIES[vocabulary]
    paths = [
        vocabularies.write(folder / f"{is_twin}.gguf", build(is_twin=is_twin), source)
        for is_twin in (False, True)
    ]
    return Case(Reader(paths[0]), Reader(paths[1]), source, parts)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


SPELLED = st.sampled_from([BOS, EOS, START, END, "<unk>", "<|en<|end|>d|>", "<|", "</", "s>"])
WORDS = st.lists(st.text(LETTERS, max_size=6) | SPELLED, max_size=8).map("".join)
FORMAT_MARKS = st.lists(WORDS | st.just(MARK), max_size=4).map("".join)


def fuzz(function: Any) -> Any:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=60, deadline=None, suppress_health_check=checks)(function)


@fuzz
@given(st.data())
def test_a_conversation_reads_as_its_whole_text_does(case: Case, data: st.DataObject) -> None:
    texts = WORDS if case.source == PLAIN else FORMAT_MARKS  # elsewhere a mark is only a word
    said = [user(data.draw(texts)), assistant(data.draw(texts)), user(data.draw(texts))]
    prompts = case.prompts()
    assert prompts.read(case.render(prompts, said)) == case.whole(said)


@fuzz
@given(WORDS, WORDS)
def test_no_text_becomes_a_token_of_the_format(case: Case, asked: str, said: str) -> None:
    prompts = case.prompts()
    conversation = [user(asked), assistant(said), user(asked)]
    ids = prompts.read(case.render(prompts, conversation))
    of_format = [part for part in case.parts(conversation) if isinstance(part, int)]
    control = {IDS[text] for text in (BOS, EOS, START, END)}
    assert [i for i in ids if i in control] == [
        IDS[BOS], *(part for part in of_format if part in control)
    ]  # fmt: skip


@fuzz
@given(st.lists(WORDS, min_size=2, max_size=3), st.data())
def test_answers_keep_their_ids_and_the_text_goes_on_behind_them(
    case: Case, texts: list[str], data: st.DataObject
) -> None:
    prompts = case.prompts()
    messages: list[Message] = []
    known: list[int] = []
    for text in texts:
        messages.append(user(text))
        rendered = case.render(prompts, messages)
        prompt = prompts.read(rendered)
        assert prompt[: len(known)] == known
        said = data.draw(st.sampled_from(["the end", "a", "<b> th.", "mm"]))
        ids = [
            i for c in said for i in case.twin.tokenize(c, add_special=False, parse_special=False)
        ]
        known = [*prompt, *ids]
        messages.append(assistant(said))
        prompts.extend(rendered + prompts.guard(said), known)
    fresh = case.prompts()
    again = [*messages, user("so")]
    new = prompts.read(case.render(prompts, again))[len(known) :]
    whole = fresh.read(case.render(fresh, again))
    assert pieces(case.reader, whole).endswith(pieces(case.reader, new))


def pieces(reader: Reader, ids: Sequence[int]) -> bytes:
    return b"".join(reader.piece(i, special=True) for i in ids)


def test_nothing_follows_the_prompt_and_bos_comes_once(case: Case) -> None:
    ids = prompt_ids(case.reader, "the end")
    assert ids == case.whole([user("the end")])
    raw = PromptReader(case.reader, None)
    assert raw.read("the end")[0] == raw.read("<s>the end")[0] == IDS[BOS]
    assert raw.read("<s>the end").count(IDS[BOS]) == 1
    assert raw.read("the end")[-1] not in (IDS[EOS], IDS[END])


def test_user_defined_tokens_of_no_format_stay_tokens(case: Case) -> None:
    ids = prompt_ids(case.reader, f"a{TAG}e  d")
    assert IDS[TAG] in ids
    assert IDS["  "] in ids


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_file_that_wants_no_bos_gets_none(name: str, tmp_path: Path) -> None:
    path = vocabularies.write(tmp_path / "m.gguf", VOCABULARIES[name](add_bos_token=False), MARKED)
    assert IDS[BOS] not in prompt_ids(Reader(path), "the")


def test_a_template_that_gives_bos_behind_a_line_break_gets_no_second_one(tmp_path: Path) -> None:
    path = vocabularies.write(tmp_path / "m.gguf", VOCABULARIES["spm"](), "\n<s>" + MARKED)
    assert prompt_ids(Reader(path), "the").count(IDS[BOS]) == 1


@pytest.mark.parametrize("asked", ["the", " \n the \n", "a<b>  d", "  <|end|> x\t"])
def test_white_space_goes_with_tokens_that_strip_it(asked: str, tmp_path: Path) -> None:
    """llama.cpp has them take what follows in models that are named Phi 3."""
    vocabulary = {**vocabularies.spm(), "general.name": "Phi-3 tiny"}
    vocabulary["tokenizer.ggml.tokens"][-1] = "<|endoftext|>"  # which it expects there
    reader = Reader(vocabularies.write(tmp_path / "m.gguf", vocabulary, MARKED))
    template = ChatTemplate(MARKED, bos=BOS, eos=END)
    ids = prompt_ids(reader, asked)
    harmless = template.render([user(asked.replace("<|end|>", "x"))])
    whole = reader.tokenize(harmless, add_special=True, parse_special=True)
    n = whole.index(IDS[MARK]) + 1
    assert ids[:n] == whole[:n]
    assert ids[ids.index(IDS[END], n) :] == whole[whole.index(IDS[END], n) :]
    if asked.replace("<|end|>", "x") == asked:
        assert ids == whole
