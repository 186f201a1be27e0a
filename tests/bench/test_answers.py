"""benchmarks/answers: what counts as a right answer, what is asked again, how shares are summed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.answers import checks
from benchmarks.answers.__main__ import earlier, jobs
from benchmarks.answers.asking import Asked, ask
from benchmarks.answers.checks import Check, code_of, has_whole_code
from benchmarks.answers.facts import FACTS
from benchmarks.answers.items import ITEMS, KINDS
from benchmarks.answers.programs import PROGRAMS
from benchmarks.answers.settings import SYSTEMS, Setting, grid
from benchmarks.answers.summary import mean_and_margin, shares
from mtp_cli import models
from tests.chat.scripted import ScriptedEngine, said

GREEDY = Setting("empty", 0.0, 0, 1.0, 0.0, 1.0)
WARM = Setting("empty", 0.8, 40, 0.95, 0.05, 1.0)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checks.says("Paris"), "It is paris, of course.", "It is in Parisian hands."),
        (checks.says("12", "twelve"), "7 + 5 = 12.", "It is 120, or 1.12, or 12.5."),
        (checks.says("1000"), "1,000 meters", "1,000,000 meters"),
        (checks.says("don't like"), "I don\u2019t like it.", "I like it."),
        (checks.says_in_order("2", "5", "9"), "9, 2, 5 sorted: 2, 5, and 9", "2, 9, 5"),
        (checks.says_in_order("fig", "pear"), "1. **fig**\n2. **pear**", "pear, fig"),
        (checks.says_rather("hot", "cold"), "Hot, not cold.", "Cold, not hot."),
        (checks.is_only("white"), "**White.**", "It is white."),
        (checks.is_upper("hello"), "HELLO!", "'hello' is HELLO"),
        (checks.matches(r"^a"), "a cat", "the cat"),
        (checks.shorter_than(3), "two words", "no less than three"),
        (checks.shorter_than(3), "one", ""),
        (checks.has_items(2), "Here:\n\n1. Ant\n2. Bee\n\nBoth fly.", "1. Ant\n2. Ant"),
        (checks.has_items(3), "They are: red, blue and green.", "They are: red, blue."),
        (checks.has_items(2, "ant bee"), "- an ant\n- a bee", "- an ant\n- a stone"),
        (checks.has_items(2), "ant\nbee\n", "ant\nbee\nfly\n"),
        (checks.is_json_with({"a": 1}), '```json\n{"a": 1, "b": 2}\n```', '{"a": 2}'),
        (checks.is_json_with({"a": 1}), '{"a": 1}', "a is 1"),
        (checks.both(checks.says("a"), checks.says("b")), "a b", "a c"),
    ],
)
def test_an_answer_right_and_one_wrong(check: Check, right: str, wrong: str) -> None:
    assert check(right)
    assert not check(wrong)


FENCED = "Here it is:\n```python\ndef f(x):\n    return {}\n```\nIt doubles."


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (FENCED.format("2 * x"), True),
        (FENCED.format("3 * x"), False),
        ("def f(x):\n    return 2 * x", True),
        ("```python\ndef f(x):\n    return 2 * x\n\nprint(f(", True),  # cut off at the limit
        (FENCED.format("2 * x").replace("```\n", "raise SystemExit\n```\n"), False),
        (FENCED.format("f(x)"), False),
        ("I cannot write code.", False),
        ("```python\nopen('left behind', 'w').write('x')\n```", False),
    ],
)
def test_code_is_right_when_it_runs_and_passes(answer: str, is_right: bool) -> None:
    assert checks.passes("assert f(4) == 8")(answer) is is_right


def test_code_that_does_not_end_is_ended() -> None:
    assert not checks.passes("assert True")("```python\nwhile True: pass\n```")


def test_an_answer_is_whole_once_its_fenced_block_is_closed() -> None:
    whole = FENCED.format("x")
    assert has_whole_code(whole)
    assert not has_whole_code(whole[: whole.rindex("```")])
    assert code_of(whole) == "def f(x):\n    return x"


def test_requests_are_many_and_do_not_tell_their_answer() -> None:
    assert [sum(item.kind == kind for item in ITEMS) for kind in KINDS] == [152, 44, 48]
    assert len({item.request for item in ITEMS}) == len(ITEMS)
    assert not [q for q, accepted in FACTS if checks.says(*accepted.split("|"))(q)]
    assert not [r for r, assertion in PROGRAMS if checks.passes(assertion)(r)]


def test_what_is_shipped_is_among_what_is_compared() -> None:
    assert models.BUILT_IN.system in SYSTEMS.values()


def test_an_answer_is_asked_with_the_setting_and_judged() -> None:
    engine = ScriptedEngine(said("Paris."), said("Lyon."))
    right, wrong = (ask(engine, WARM, seed, 0) for seed in (0, 1))
    assert (right.is_right, wrong.is_right) == (True, False)
    assert (right.request, right.answer, right.n_tokens) == (ITEMS[0].request, "Paris.", 7)
    first, second = (sampling for sampling, _, _ in engine.asked)
    assert (first.temperature, first.top_p) == (0.8, 0.95)
    assert first.seed != second.seed


def test_a_bare_request_has_no_system_turn() -> None:
    engine = ScriptedEngine(said("Paris."), said("Paris."))
    for system in ("bare", "helpful"):
        ask(engine, Setting(system, 0.0, 0, 1.0, 0.0, 1.0), 0, 0)
    bare, helpful = (b"".join(map(engine.piece, prompt)).decode() for prompt in engine.prompts)
    assert bare.startswith("user\nWhat is the capital")
    assert helpful.startswith("system\nYou are a helpful assistant.")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    known = [Asked(WARM, 0, item.request, "", 1, False) for item in ITEMS[:-1]]
    left = list(jobs([WARM], 1, known))
    assert [job.requests for job in left] == [(len(ITEMS) - 1,)]
    results = tmp_path / "answers.jsonl"
    lines = [{**of, **asdict(known[0])} for of in ({"model": "a"}, {"model": "b"})]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert earlier(results, {"model": "a"}) == known[:1]


def test_greedy_answers_have_one_seed_and_one_way() -> None:
    settings = list(grid(["empty"], [0, 0.5], [0, 40], [0.9], [0], [1]))
    assert [s.is_greedy for s in settings] == [True, False, False]
    asked = [(job.setting, job.seed) for job in jobs([GREEDY, WARM], 2, [])]
    assert {seed for setting, seed in asked if setting == GREEDY} == {0}
    assert {seed for setting, seed in asked if setting == WARM} == {0, 1}


def test_shares_are_over_seeds_and_their_interval_over_requests() -> None:
    right = {"What is 2 + 2?": (True, True), "What is 7 + 5?": (True, False)}
    answers = [
        Asked(WARM, seed, request, "", 1, is_right)
        for request, by_seed in right.items()
        for seed, is_right in enumerate(by_seed)
    ]
    assert shares(answers)[WARM] == {"What is 2 + 2?": 1.0, "What is 7 + 5?": 0.5}
    mean, margin = mean_and_margin([1.0, 0.5])
    assert mean == 0.75
    assert margin == pytest.approx(1.96 * 0.25, rel=1e-3)
    assert mean_and_margin([1.0]) == (1.0, math.inf)
