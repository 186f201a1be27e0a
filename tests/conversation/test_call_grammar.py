"""Every text of a grammar of calls is read back as calls that keep to their schemas."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mtp_cli.conversation.call_grammar import calls_alone
from mtp_cli.conversation.calls import Call, read
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.template import ChatTemplate
from mtp_cli.conversation.tools import Calling, calling
from mtp_cli.engine.grammar.constrained import Constrained
from mtp_cli.engine.grammar.parts import Parts
from mtp_cli.engine.grammar.source import Grammar
from mtp_cli.engine.grammar.vocabulary import Vocabulary
from mtp_cli.errors import MtpError
from tests.conversation.test_tools import AS_TEXT, HERMES, LLAMA, PYTHONIC
from tests.engine import vocabularies
from tests.engine.vocabularies import VocabularyTokenizer

_BEGUN = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{{ '<|' + m.role + '|>' + m.content }}{% for c in m.tool_calls or [] %}"
)
_END = "{% endfor %}{% endfor %}"
_NAME, _PAIRS = "{{ c.function.name }}", "{% for k, v in c.function.arguments | items %}"
_OBJECT = "{{ c.function.arguments | tojson }}"
TAGS = (
    f"{_BEGUN}<tool_call>\n<function={_NAME}>\n{_PAIRS}<parameter={{{{ k }}}}>\n{{{{ v }}}}\n"
    "</parameter>\n{% endfor %}</function>\n</tool_call>" + _END
)
PAIRS = (
    f"{_BEGUN}<tool_call>{_NAME}\n{_PAIRS}<arg_key>{{{{ k }}}}</arg_key>\n<arg_value>{{{{ v }}}}"
    "</arg_value>\n{% endfor %}</tool_call>" + _END
)
LISTED = (
    f"{_BEGUN}{{% if loop.first %}}[TOOL_CALLS][{{% else %}}, {{% endif %}}"
    f'{{"name": "{_NAME}", "arguments": {_OBJECT}, "id": "{{{{ c.id }}}}"}}'
    "{% if loop.last %}]{% endif %}" + _END
)
FORMS = {
    "Hermes": HERMES,
    "Llama": LLAMA,
    "named": AS_TEXT,
    "tags": TAGS,
    "pairs": PAIRS,
    "list": LISTED,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "mark.it": {
        "properties": {
            "the": {"type": "string", "enum": ["end", "art"]},
            "n": {"type": "integer", "minimum": 1, "maximum": 9},
            "on": {"type": "boolean"},
        },
        "required": ["the"],
        "additionalProperties": False,
    },
    "end": {
        "properties": {"say": {"type": "string"}},
        "required": ["say"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.gguf"
    return Vocabulary(VocabularyTokenizer(vocabularies.write(path, vocabularies.bpe())))


def form_of(source: str) -> Calling:
    found = calling(FittedTemplate(ChatTemplate(source, bos="", eos="")), {})
    assert found is not None
    return found


def texts(vocabulary: Vocabulary, grammar: Grammar, n: int) -> list[str]:
    """By chance, but that what has begun is soon closed."""
    rng, found = np.random.default_rng(7), list[str]()
    closers = [vocabulary.tokenize(text) for text in ('"', "\n</parameter>", "</arg_value>")]
    while len(found) < n:
        constraint, said = Constrained(vocabulary.matcher(grammar), vocabulary), list[int]()
        while not constraint.is_complete:
            ids = constraint.forced().ids
            closing = [ids for ids in closers if constraint.n_fitting(ids) == len(ids)]
            if not ids and closing and rng.random() < 0.3:
                ids = closing[int(rng.integers(len(closing)))]
            elif not ids:
                logits = np.zeros(len(vocabulary.pieces), np.float32)
                constraint.restrict(logits, ())
                ids = [int(rng.choice(np.flatnonzero(logits == 0)))]
            if ids[0] in vocabulary.ends:
                break
            said += ids
            constraint.accept(ids)
        found.append(vocabulary.spelled(said).decode(errors="replace"))
    return found


def keeps_to_schema(call: Call) -> bool:
    given = json.loads(call.arguments)
    if call.name == "end":
        return set(given) == {"say"} and isinstance(given["say"], str)
    return (
        {"the"} <= set(given) <= {"the", "n", "on"}
        and given["the"] in ("end", "art")
        and given.get("n", 1) in range(1, 10)
        and isinstance(given.get("on", True), bool)
    )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("at_most_one", [True, False])
def test_all_texts_are_calls(vocabulary: Vocabulary, name: str, at_most_one: bool) -> None:
    parts = Parts(vocabulary.tokenizer)
    grammar = calls_alone(form_of(FORMS[name]), SCHEMAS, parts, at_most_one=at_most_one)
    called = set()
    for text in texts(vocabulary, grammar, 8):
        calls = read(text, SCHEMAS)
        assert calls, text
        assert len(calls) == 1 or not at_most_one
        assert all(map(keeps_to_schema, calls)), text
        called |= {call.name for call in calls}
    assert called == set(SCHEMAS)


def accepts(vocabulary: Vocabulary, grammar: Grammar, text: str) -> bool:
    constraint = Constrained(vocabulary.matcher(grammar), vocabulary)
    ids = vocabulary.tokenize(text)
    return constraint.n_fitting(ids) == len(ids)


@pytest.mark.parametrize("name", FORMS)
def test_a_call_that_the_template_writes_fits(vocabulary: Vocabulary, name: str) -> None:
    """As it stands, and two of them as it joins them; none of a tool that is not offered."""
    form = form_of(FORMS[name])
    schema = {"properties": {"qzwkey": {"type": "string"}}, "required": ["qzwkey"]}
    both = calls_alone(form, {"qzwtool": schema, "qzwtwin": schema}, Parts(vocabulary.tokenizer))
    other = calls_alone(form, {"qzwtwin": schema}, Parts(vocabulary.tokenizer))
    start = max(form.written.find("<tool_call>"), form.written.find("[TOOL_CALLS]"))
    written = form.written[start if start >= 0 else form.written.find("{") :]
    twice = form.twice[form.twice.find(written[:12]) :]
    assert accepts(vocabulary, both, written)
    assert accepts(vocabulary, both, twice)
    assert not accepts(vocabulary, other, written)
    one = calls_alone(form, {"qzwtool": schema}, Parts(vocabulary.tokenizer), at_most_one=True)
    assert accepts(vocabulary, one, written)
    assert not accepts(vocabulary, one, twice)


def test_an_answer_in_a_schema_may_take_the_place_of_calls(vocabulary: Vocabulary) -> None:
    grammar = calls_alone(
        form_of(HERMES), SCHEMAS, Parts(vocabulary.tokenizer), or_json={"enum": ["art"]}
    )
    assert accepts(vocabulary, grammar, '"art"')
    assert accepts(vocabulary, grammar, '<tool_call>\n{"name": "end", "arguments": {"say": "x')
    assert not accepts(vocabulary, grammar, '"end"')
    assert not accepts(vocabulary, grammar, "the end")


def test_marks_that_are_tokens_are_said_as_such(vocabulary: Vocabulary) -> None:
    form = form_of(HERMES)
    written = form.written.replace("<tool_call>", "<|start|>").replace("</tool_call>", "<|end|>")
    marked = Calling(form.takes_text, ("<|start|>",), False, written, "")
    grammar = calls_alone(marked, {"end": SCHEMAS["end"]}, Parts(vocabulary.tokenizer))
    constraint = Constrained(vocabulary.matcher(grammar), vocabulary)
    mark = vocabulary.tokenizer.tokenize("<|start|>", add_special=False, parse_special=True)
    assert len(mark) == 1
    assert constraint.n_fitting(mark) == 1
    assert constraint.n_fitting(vocabulary.longest(b"<")) == 0


@pytest.mark.parametrize(
    ("source", "schema", "said"),
    [
        (PYTHONIC, {}, "the format in which the model's chat template writes calls is unknown"),
        (
            TAGS,
            {"properties": {"a": {"type": "string", "pattern": "x+"}}},
            "pattern of the argument a cannot be kept to in the model's format",
        ),
        (HERMES, {"properties": {"a": {"not": {}}}}, "tools cannot be kept to"),
        (PAIRS, {"properties": {"a": 5}}, "the schema of the argument a is no object"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(
    vocabulary: Vocabulary, source: str, schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(MtpError, match=said):
        calls_alone(form_of(source), {"f": schema}, Parts(vocabulary.tokenizer))
