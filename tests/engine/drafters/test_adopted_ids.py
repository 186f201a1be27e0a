"""Heads draft ids that their draft vocabulary lacks as a head does that has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.adopted_ids import N_ADOPTED, AdoptedIds, CompiledIds, ScoredIds
from mtp_cli.engine.drafters.base import Draft, LastingDrafter
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.files.target_tables import TargetTables
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.types import Bytes, Floats, Ids
from mtp_cli.errors import MtpError
from mtp_cli.head_file import DraftVocabulary
from tests.engine import tiny
from tests.engine.drafters.lasting import check_lasting
from tests.engine.drafters.recorder import recorder
from tests.engine.opening import opened_tables

F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0
GREEDY = Sampling(temperature=0.0)
N_DRAFT = 100
LAYERS = (1, 2, 3)
VOCABULARY = tiny.trimmed(N_DRAFT)
LACKING = np.setdiff1d(np.arange(tiny.N_VOCAB), VOCABULARY.draft_ids).tolist()
TARGET = tiny.llama(n_blocks=4)

needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")


class Head:
    """What of a head is told of adopted rows."""

    def __init__(self) -> None:
        self.output: Floats = np.zeros((0, tiny.N_EMBD), np.float32)
        self.embedding: Floats | None = self.output

    def adopt(self, embedding: Bytes | None, output: Bytes, first: int, n: int) -> None:
        self.output = self.output[:first]  # it has them already
        if first < n:
            new = gguf.quants.dequantize(output[first:n], Q8_0)
            self.output = np.concatenate([self.output, new])
        self.embedding = None
        if embedding is not None and n:
            self.embedding = gguf.quants.dequantize(embedding[:n], Q8_0)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[TargetTables]:
    found = opened_tables(TARGET.quantized(Q8_0).write(tmp_path / "target.gguf"))
    yield found
    found.close()


def rows_of(name: str, ids: Sequence[int]) -> Floats:
    found: Floats = gguf.quants.dequantize(
        gguf.quants.quantize(TARGET.tensors[name][list(ids)], Q8_0), Q8_0
    )
    return found


def places(ids: AdoptedIds, wanted: Sequence[int]) -> list[int]:
    """The adopted ids among those wanted, in the order in which they stand behind the head's."""
    own = np.array(ids.own(wanted))
    assert ids.draft_ids is not None
    found: list[int] = ids.draft_ids[np.sort(own[own >= N_DRAFT])].tolist()
    return found


def test_what_the_text_holds_is_adopted_once_in_its_order(tables: TargetTables) -> None:
    head = Head()
    ids = CompiledIds(head, tables, VOCABULARY)
    known, (a, b, c) = VOCABULARY.draft_ids[:3].tolist(), LACKING[:3]
    assert ids.own([b, *known]) == [int(VOCABULARY.surrogates[b]), 0, 1, 2]
    ids.hold([known[0], c, a, c], 10)
    ids.hold([known[1]], 14)
    ids.hold([a, b], 15)
    assert places(ids, LACKING) == [c, a, b]
    assert ids.own([c, a, b, *known]) == [N_DRAFT, N_DRAFT + 1, N_DRAFT + 2, 0, 1, 2]
    np.testing.assert_array_equal(head.output, rows_of("output.weight", [c, a, b]))
    assert head.embedding is not None
    np.testing.assert_array_equal(head.embedding, rows_of("token_embd.weight", [c, a, b]))
    assert (ids.read_next(N_DRAFT + 1, a), HeadIds().read_next(5, 7)) == (N_DRAFT + 1, 7)


def test_a_text_that_is_taken_back_takes_its_ids_along(tables: TargetTables) -> None:
    head = Head()
    ids = CompiledIds(head, tables, VOCABULARY)
    ids.hold(LACKING[:6], 20)
    ids.truncate(30)
    assert places(ids, LACKING) == LACKING[:6]
    ids.truncate(23)
    assert places(ids, LACKING) == LACKING[:3]
    assert len(head.output) == 3
    ids.hold(LACKING[4:6], 23)
    assert places(ids, LACKING) == [*LACKING[:3], *LACKING[4:6]]
    ids.truncate(0)
    assert ids.own(LACKING) == VOCABULARY.surrogates[LACKING].tolist()
    assert len(head.output) == 0


def test_where_there_is_no_room_the_newest_stay(tmp_path: Path) -> None:
    n_vocab, rng = 4 * N_ADOPTED, np.random.default_rng(5)
    table = rng.standard_normal((n_vocab, tiny.N_EMBD), np.float32)
    tensors = {**TARGET.tensors, "token_embd.weight": table, "output.weight": table}
    wide = opened_tables(replace(TARGET, tensors=tensors).write(tmp_path / "w.gguf"))
    surrogates = np.zeros(n_vocab, np.int32)
    head, few = Head(), DraftVocabulary(np.arange(1, dtype=np.int32), surrogates)
    ids = CompiledIds(head, wide, few)
    for start in range(1, n_vocab - 7, 7):
        ids.hold(range(start, start + 7), start)
        newest = range(max(1, start + 7 - N_ADOPTED // 2), start + 7)
        own = ids.own(newest)
        assert own == [*range(own[0], own[0] + len(newest))]
        assert 1 + len(head.output) == own[-1] + 1 <= 1 + N_ADOPTED
        assert ids.draft_ids is not None
        assert ids.draft_ids[own].tolist() == [*newest]
        assert np.abs(head.output[-1] - table[start + 6]).max() < 0.03
    assert ids.own([1]) == [0]
    ids.hold(range(n_vocab), 0)  # more at once than there is room for
    assert ids.own([n_vocab - 1]) == [N_ADOPTED]
    wide.close()


def test_it_is_taken_up_again_as_it_was(tables: TargetTables) -> None:
    head = Head()
    ids = CompiledIds(head, tables, VOCABULARY)
    ids.hold(LACKING[:5], 3)
    saved = ids.save()
    ids.truncate(0)
    ids.hold(LACKING[7:9], 3)
    ids.restore(saved)
    assert places(ids, LACKING) == LACKING[:5]
    ids.truncate(5)
    assert places(ids, LACKING) == LACKING[:2]


def test_without_the_file_it_drafts_in_what_it_has(tmp_path: Path) -> None:
    path = TARGET.write(tmp_path / "target.gguf")
    tables = opened_tables(path)
    ids = CompiledIds(Head(), tables, VOCABULARY)
    ids.hold(LACKING[:1], 0)
    path.write_bytes(b"")
    ids.hold(LACKING[1:2], 1)
    assert places(ids, LACKING) == LACKING[:1]
    tables.close()


def fused(n_draft: int | None) -> tiny.Spec:
    return tiny.fused_heads_for(TARGET, LAYERS, prompt_rows=40, n_draft=n_draft)


def single(n_draft: int | None) -> tiny.Spec:
    return tiny.heads_for(TARGET, hidden="pre_norm", n_draft=n_draft)


def common(n_draft: int | None) -> tiny.Spec:
    """Reads all ids and drafts in some, by `d2t`."""
    spec = single(None)
    if n_draft is None:
        return spec
    output = spec.tensors["output.weight"][VOCABULARY.draft_ids]
    integers = {"d2t": VOCABULARY.draft_ids.astype(np.int64)}
    return replace(spec, tensors={**spec.tensors, "output.weight": output}, integers=integers)


FORMS = {"fused": fused, "single": single, "common": common}


def with_tables(form: str, n_draft: int | None) -> tiny.Spec:
    """A head whose tables are the target's, as far as it has them; its block is the same for any
    n_draft."""
    spec, whole = FORMS[form](n_draft), FORMS[form](None)
    own = {name: TARGET.tensors[name] for name in ("token_embd.weight", "output.weight")}
    if n_draft is not None:
        own["output.weight"] = own["output.weight"][VOCABULARY.draft_ids]
    if n_draft is not None and form != "common":
        own["token_embd.weight"] = own["token_embd.weight"][VOCABULARY.draft_ids]
    return replace(spec, tensors={**whole.tensors, **own})


Opened = Callable[..., Engine]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    engines: list[Engine] = []

    def make(spec: tiny.Spec, n_threads: int = 1, kind: gguf.GGMLQuantizationType = Q8_0) -> Engine:
        target = TARGET.write(tmp_path / "target.gguf")
        heads = spec.quantized(kind).write(tmp_path / f"heads-{len(engines)}.gguf")
        engines.append(Engine.open(target, heads, n_ctx=256, n_threads=n_threads, n_gpu_layers=0))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def drafter_of(engine: Engine) -> LastingDrafter:
    return engine._timeline.drafter


def drafted(drafter: LastingDrafter, newest: int) -> tuple[Draft, list[Floats]]:
    """A draft, and the logits that each of its ids was chosen from."""
    propose, seen = recorder()

    return drafter.draft(newest, 4, propose=propose), seen


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_logits_of_adopted_ids_are_those_of_a_head_that_has_all(form: str, opened: Opened) -> None:
    text = [*LACKING[:30:2], *tiny.random_ids(25, seed=71), *LACKING[50:60]]
    held = list(dict.fromkeys(i for i in text if i in LACKING))
    width = tiny.N_EMBD * (len(LAYERS) if form == "fused" else 1)
    rows = np.random.default_rng(72).normal(0, 3, (len(text), width)).astype(np.float32)
    seen = []
    for n_draft in (N_DRAFT, None):
        drafter = drafter_of(opened(with_tables(form, n_draft), n_threads=2))
        drafter.observe(text[:-1], 0, rows[:-1][-32:])
        draft, logits = drafted(drafter, text[-1])
        first = logits[0]
        seen.append(first if n_draft else first[[*VOCABULARY.draft_ids, *held]])
        assert len(draft.ids) == 4
    np.testing.assert_array_equal(seen[0], seen[1])


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_an_adopted_id_that_is_drafted_is_read_next(form: str, opened: Opened) -> None:
    """Its output row made likely: the next step reads it as a head does that has all ids."""
    name, lacking = LACKING[11], [LACKING[11]]
    width = tiny.N_EMBD * (len(LAYERS) if form == "fused" else 1)
    rows = np.random.default_rng(73).normal(0, 3, (20, width)).astype(np.float32)
    text = [*tiny.random_ids(19, seed=74), name]
    seen: list[list[Floats]] = []
    for n_draft in (N_DRAFT, None):
        drafter = drafter_of(opened(with_tables(form, n_draft)))
        drafter.observe(text, 0, rows)
        seen.append([])

        def propose(
            logits: Floats,
            ids: Ids | None,
            drafted: Sequence[int],
            prob: float | None = None,
        ) -> Proposal:
            seen[-1].append(logits.copy())
            place = name if ids is None else int(np.flatnonzero(ids == name)[-1])
            forced = np.full_like(logits, -100.0)
            forced[place] = 0
            return likeliest(forced, ids, drafted)

        draft = drafter.draft(text[0], 3, propose=propose)
        assert draft.ids == 3 * lacking
    for ours, theirs in zip(*seen, strict=True):
        np.testing.assert_array_equal(ours[:N_DRAFT], theirs[VOCABULARY.draft_ids])


@pytest.mark.parametrize("form", ["fused", "single"])
def test_llama_cpps_heads_score_what_the_text_holds(
    form: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a head does that has all ids, of a text with their surrogates in it."""
    monkeypatch.setattr(compiled_head, "runnable", lambda _header, _n_ctx: None)
    text = [*LACKING[:9], *VOCABULARY.draft_ids[:12].tolist(), LACKING[3]]
    width = tiny.N_EMBD * (len(LAYERS) if form == "fused" else 1)
    rows = np.random.default_rng(76).normal(0, 3, (len(text), width)).astype(np.float32)
    wanted, seen = [*VOCABULARY.draft_ids, *LACKING[:9]], []
    for n_draft in (N_DRAFT, None):
        drafter = drafter_of(opened(with_tables(form, n_draft), kind=F32))
        drafter.observe(text[:-1], 0, rows[:-1])
        _draft, logits = drafted(drafter, text[-1])
        seen.append(logits[0] if n_draft else logits[0][wanted])
        text = VOCABULARY.draft_ids[VOCABULARY.surrogates[text]].tolist()
    assert np.abs(seen[0] - seen[1]).max() / seen[1].std() < 0.001


def test_an_adopted_id_that_llama_cpp_drafted_is_read_as_its_surrogate(
    tables: TargetTables,
) -> None:
    ids = ScoredIds(np.ones(tiny.N_EMBD, np.float32), 1e-5, tables, VOCABULARY)
    ids.hold(LACKING[:3], 0)
    surrogate = int(VOCABULARY.surrogates[LACKING[1]])
    assert ids.own(LACKING[1:2]) == [surrogate]
    assert ids.read_next(N_DRAFT + 1, LACKING[1]) == surrogate
    assert ids.read_next(5, int(VOCABULARY.draft_ids[5])) == 5


@needs_kernels
def test_heads_with_tables_of_their_own_adopt_nothing(opened: Opened) -> None:
    for form in FORMS.values():
        drafter = drafter_of(opened(form(N_DRAFT)))
        drafter.observe(LACKING[:5], 0, None)
        assert "adopted" not in drafter.save()


@needs_kernels
def test_heads_that_were_trained_to_adopt_whatever_their_tables(opened: Opened) -> None:
    for form in ("fused", "single"):
        spec = FORMS[form](N_DRAFT)
        drafter = drafter_of(opened(replace(spec, keys={**spec.keys, "mtp.adopts": True})))
        drafter.observe(LACKING[:5], 0, None)
        assert drafter.save()["adopted"].tolist() == LACKING[:5]
    wrong = replace(spec, keys={**spec.keys, "mtp.adopts": 1})
    with pytest.raises(MtpError, match=r"mtp\.adopts: expected true or false, found 1"):
        opened(wrong)


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_a_drafter_that_adopted_ids_lasts(form: str, opened: Opened) -> None:
    width = tiny.N_EMBD * (len(LAYERS) if form == "fused" else 1)
    rows = np.random.default_rng(75).normal(0, 3, (60, width)).astype(np.float32)
    drafter = drafter_of(opened(with_tables(form, N_DRAFT)))
    drafter.observe(LACKING[:20], 0, rows[:20])
    drafter.draft(LACKING[20], 4)
    assert len(drafter.save()["adopted"]) == 21

    def go_on() -> list[Draft]:
        drafter.observe(LACKING[20:40], 20, rows[20:40])
        first = drafter.draft(LACKING[40], 4)
        drafter.truncate(25)
        drafter.observe(LACKING[60:70], 25, rows[45:55])
        return [first, drafter.draft(LACKING[0], 4)]

    check_lasting(drafter, go_on)


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_answers_are_the_targets(form: str, opened: Opened) -> None:
    engine = opened(with_tables(form, N_DRAFT))
    for seed in range(3):
        prompt = [*tiny.random_ids(20, seed=seed), *LACKING[seed : seed + 20]]
        answers = []
        for depth in (0, 4):
            run = engine.generate(prompt, GREEDY, max_tokens=40, depth=depth)
            answers.append([token for tokens in run for token in tokens])
        assert answers[0] == answers[1]
        assert sum(run.stats.verified) > 0
