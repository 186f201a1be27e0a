"""Which ids may come next: masks and drafts over tiny vocabularies of several kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.engine.grammar.constrained import Constrained, restrict, restrict_by_numpy
from mtp_cli.engine.grammar.source import gbnf, json_schema
from mtp_cli.engine.grammar.vocabulary import Vocabulary
from mtp_cli.errors import MtpError
from tests.engine import vocabularies
from tests.engine.vocabularies import IDS, VocabularyTokenizer

KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "spm": vocabularies.spm,
    "bpe": vocabularies.bpe,
}
SCHEMA = {
    "type": "object",
    "properties": {"the": {"enum": ["end", "mark", "art"]}, "list": {"type": "array"}},
    "required": ["the", "list"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=KINDS)
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("vocabulary") / f"{request.param}.gguf"
    return Vocabulary(VocabularyTokenizer(vocabularies.write(path, KINDS[request.param]())))


def allowed(vocabulary: Vocabulary, constraint: Constrained, drafted: list[int]) -> list[int]:
    logits = np.zeros(len(vocabulary.pieces), np.float32)
    constraint.restrict(logits, drafted)
    return np.flatnonzero(logits == 0).tolist()


def constrained(vocabulary: Vocabulary, schema: dict[str, Any], begun: bytes = b"") -> Constrained:
    return Constrained(vocabulary.matcher(json_schema(schema)), vocabulary, begun)


def test_every_way_leads_to_a_text_of_the_schema(vocabulary: Vocabulary) -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        constraint, said = constrained(vocabulary, SCHEMA), list[int]()
        while not constraint.is_complete and len(said) < 400:
            ids = [i for i in allowed(vocabulary, constraint, []) if i not in vocabulary.ends]
            closing = [i for i in ids if vocabulary.pieces[i][-1:] in b']}"']
            said.append(int(rng.choice(closing if closing and rng.random() < 0.7 else ids)))
            assert constraint.accept(said[-1:]) == 1
        if constraint.is_complete:
            assert json.loads(vocabulary.spelled(said))["the"] in ("end", "mark", "art")


def test_what_is_forced_is_what_masks_leave(vocabulary: Vocabulary) -> None:
    constraint = constrained(vocabulary, SCHEMA)
    ids, n_certain = constraint.forced()
    assert vocabulary.spelled(ids) == b'{"the": "'
    assert 0 < n_certain <= len(ids)
    for n in range(n_certain):
        assert allowed(vocabulary, constraint, ids[:n]) == [ids[n]]
    assert constraint.n_fitting([*ids, vocabulary.longest(b"x")[0]]) == len(ids)
    assert constraint.accept(ids) == len(ids)
    constraint.accept(vocabulary.tokenize("en"))
    assert vocabulary.spelled(constraint.forced().ids) == b'd", "list": ['


def test_a_draft_changes_nothing_that_is_final(vocabulary: Vocabulary) -> None:
    one, other = constrained(vocabulary, SCHEMA), constrained(vocabulary, SCHEMA)
    text = vocabulary.tokenize('{"the": "mark", "list": [1, 2]}')
    for n, token in enumerate(text):
        one.forced()
        one.n_fitting([*text[n : n + 3], text[0]])
        one.restrict(np.zeros(len(vocabulary.pieces), np.float32), text[n : n + 2])
        assert allowed(vocabulary, one, []) == allowed(vocabulary, other, [])
        assert one.accept([token]) == other.accept([token]) == 1
    assert one.is_complete
    assert one.forced().ids == []


def test_nothing_is_taken_after_the_end(vocabulary: Vocabulary) -> None:
    constraint = constrained(vocabulary, {"const": "end"})
    text = vocabulary.tokenize('"end"')
    assert constraint.accept([*text, vocabulary.ends[0]]) == len(text)
    assert constraint.is_complete


def test_an_end_may_come_where_more_could(vocabulary: Vocabulary) -> None:
    grammar = gbnf('root ::= "the" (" end")*')
    constraint = Constrained(vocabulary.matcher(grammar), vocabulary)
    constraint.accept(vocabulary.tokenize("the"))
    assert not constraint.is_complete
    assert set(vocabulary.ends) < set(allowed(vocabulary, constraint, []))
    assert constraint.accept(vocabulary.ends[:1]) == 1


def test_control_tokens_are_no_text(vocabulary: Vocabulary) -> None:
    constraint = Constrained(vocabulary.matcher(json_schema({"type": "string"})), vocabulary)
    constraint.accept(vocabulary.tokenize('"'))
    ids = allowed(vocabulary, constraint, [])
    assert len(ids) > 50
    assert not {IDS[name] for name in ("<s>", "</s>", "<|start|>", "<|end|>")} & set(ids)


def test_it_goes_on_from_bytes(vocabulary: Vocabulary) -> None:
    constraint = constrained(vocabulary, SCHEMA, b'{"the": "ma')
    assert vocabulary.spelled(constraint.forced().ids) == b'rk", "list": ['
    with pytest.raises(MtpError, match="does not fit"):
        constrained(vocabulary, SCHEMA, b"Once upon a time")


def test_an_id_that_does_not_fit_is_an_error(vocabulary: Vocabulary) -> None:
    with pytest.raises(MtpError, match="no token that the grammar allows"):
        constrained(vocabulary, SCHEMA).accept(vocabulary.tokenize("the"))


def test_a_grammar_without_a_text(vocabulary: Vocabulary) -> None:
    with pytest.raises(MtpError, match="no text that this model can write fits the grammar"):
        vocabulary.matcher(gbnf("root ::= root"))


def test_a_vocabulary_that_ends_nothing(tmp_path: Path) -> None:
    keys = vocabularies.bpe()
    tokenizer = VocabularyTokenizer(vocabularies.write(tmp_path / "m.gguf", keys))
    tokenizer.is_eog = lambda token: False  # type: ignore[method-assign]
    with pytest.raises(MtpError, match="no token that ends an answer"):
        Vocabulary(tokenizer)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 700])
def test_compiled_code_restricts_as_numpy_does(n: int) -> None:
    rng = np.random.default_rng(n)
    mask = rng.integers(0, 2**32, n // 32 + 1, dtype=np.uint32)
    mask[::3], mask[1::5] = 0, 2**32 - 1
    ids = np.sort(rng.choice(n, n // 2, replace=False)).astype(np.int32)
    for places in (None, ids):
        row = rng.standard_normal(n if places is None else len(places)).astype(np.float32)
        other = row.copy()
        restrict(row, mask, places)
        restrict_by_numpy(other, mask, places)
        np.testing.assert_array_equal(row, other)


def test_a_value_is_recalled_closed_and_gone_on_from(vocabulary: Vocabulary) -> None:
    fields = {"the": {"type": "string"}, "end": {"type": "integer"}}
    schema = {**SCHEMA, "properties": fields, "required": ["the", "end"]}
    constraint = constrained(vocabulary, schema)
    constraint.read(vocabulary.tokenize("Say the mark 412, then end."))
    assert constraint.recalled() is None
    constraint.accept(vocabulary.tokenize('{"the": "mark'))
    found = constraint.recalled()
    assert found is not None
    assert vocabulary.spelled(found.ids) == b' 412", "end": '
    assert vocabulary.spelled(found.ids[: found.n_rest]) == b" 412"
    assert found.is_clear
    assert found.n_said == 4
    constraint.accept(found.ids)
    constraint.accept(vocabulary.tokenize("4"))
    found = constraint.recalled()
    assert found is not None
    assert vocabulary.spelled(found.ids) == b"12}"
    assert constraint.accept(found.ids) == len(found.ids)
    assert constraint.is_complete


def test_what_may_not_come_is_not_recalled(vocabulary: Vocabulary) -> None:
    constraint = constrained(vocabulary, {"enum": ["mark 7", "mark 8"]})
    constraint.read(vocabulary.tokenize("the mark 412, and end"))
    constraint.accept(vocabulary.tokenize('"mark'))
    found = constraint.recalled()
    assert found is not None
    assert vocabulary.spelled(found.ids) in (b"", b" ")
