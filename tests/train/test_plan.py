"""A run's plan: hours divided, said beforehand, kept in the folder; and its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mtp_cli.acceptance import Acceptance
from mtp_cli.errors import MtpError
from mtp_cli.models import built_in_model
from mtp_train.fit import Settings
from mtp_train.forecast import LOGGED, REPORT_TOKENS, STEPS_PER_TOKEN, Pace, answering, expected
from mtp_train.measure import n_answered
from mtp_train.plan import Plan, check_hours, lines, plan_of
from mtp_train.preflight import default_output
from mtp_train.report import Report, group_of, read_curve, write_report
from tests.engine import tiny

HERE = Pace(tokens=1_500_000, steps=1_200, answered=360_000)
SLOW = Pace(tokens=40_000, steps=300, answered=9_000)  # two hours of answers


@pytest.mark.parametrize("hours", [1.0, 3.0, 8.0])
def test_hours_are_spent_on_text_and_on_passes_over_it(hours: float) -> None:
    tokens, steps = HERE.divided(hours)
    writing_and_training = tokens / HERE.tokens + steps / HERE.steps
    assert writing_and_training == pytest.approx(0.95 * hours - 0.05, rel=0.01)  # 18,000 answered
    assert HERE.hours(tokens, steps) == pytest.approx(0.95 * hours, rel=0.01)
    assert steps == pytest.approx(STEPS_PER_TOKEN * tokens, rel=0.01)


def test_text_that_is_there_leaves_its_hours_to_training() -> None:
    tokens, steps = HERE.divided(3.0, n_written=1_000_000)
    assert tokens > HERE.divided(3.0)[0]
    assert HERE.hours(tokens - 1_000_000, steps) == pytest.approx(0.95 * 3, rel=0.01)
    # With more text than the hours allow four passes over, all of them go to training.
    assert HERE.divided(1.0, n_written=50_000_000) == (50_000_000, int(0.9 * 1_200))


def test_the_reports_answers_are_known_beforehand() -> None:
    """Each once at a fixed depth, and the first of a kind twice in each of two ways."""
    assert n_answered({"one": ("a", "b"), "two": ("c",)}, 200) == 200 * (3 + 2 * 2 * 2)
    assert REPORT_TOKENS == 200 * (50 + 10 * 2 * 2)


def test_what_the_report_takes_is_put_aside() -> None:
    assert SLOW.report_hours == 2.0
    tokens, steps = SLOW.divided(8.0)
    assert tokens / SLOW.tokens + steps / SLOW.steps == pytest.approx(0.95 * 8 - 2, rel=0.01)
    check_hours(3.0, SLOW, 2.9)
    line = r"--hours 2: too few: the report at the end alone takes up to 2\.0 hours here; name more"
    with pytest.raises(MtpError, match=line):
        check_hours(2.0, SLOW, 1.9)


def test_hours_that_would_not_do_are_not_spoken_of() -> None:
    assert "after 3 and 8 hours at" in lines(SLOW, Plan(1_000, 10), 1_000, 1, 1)[2]
    slower = replace(SLOW, answered=4_500)
    assert "after 8 hours at" in lines(slower, Plan(1_000, 10), 1_000, 1, 1)[2]
    assert len(lines(replace(SLOW, answered=900), Plan(1_000, 10), 1_000, 1, 1)) == 2


def test_answers_are_tried_on_this_machine(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert answering(spec.write(tmp_path / "model.gguf"), 1, seconds=0.1) > 0


def test_what_to_expect_is_what_logged_runs_reached() -> None:
    assert [expected(tokens) for tokens, _ in LOGGED] == ["0.45", "0.50", "0.54", "0.58"]
    assert expected(1.1e6) in ("0.47", "0.48")
    assert (expected(1e5), expected(1e8)) == ("at most 0.45", "at least 0.58")


def test_what_a_run_will_take_is_said_in_three_lines() -> None:
    said = lines(HERE, Plan(1_000_000, 2_000), 750_000, 3_200_000_000, 4_700_000_000)
    assert said[0] == "here: 1,500,000 tokens of text or 1,200 steps an hour"
    assert said[1] == (
        "this run: 1,000,000 tokens of text, 2,000 steps; about 2.2 hours, up to 3 minutes of them "
        "for the report at the end; 3.2 GB of memory, 4.7 GB of disk"
    )
    assert said[2].startswith("first drafts accepted after 1, 3 and 8 hours at this pace")
    assert said[2].count("0.") == 3


def resumed(folder: Path, said: list[str]) -> Plan:
    model = tiny.llama().write(folder / "model.gguf")
    return plan_of(
        model,
        folder,
        Plan(5, 6),
        1.0,
        bf16=False,
        device="cpu",
        n_threads=1,
        n_written=0,
        say=said.append,
    )


def test_a_run_that_goes_on_keeps_its_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"tokens": 70000, "steps": 80}')
    said: list[str] = []
    assert resumed(tmp_path, said) == Plan(70_000, 80)
    assert said == ["going on: 70,000 tokens of text, 80 steps in all"]


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": 1}'])
def test_a_plan_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(MtpError, match=r"plan\.json: cannot be read; delete it"):
        resumed(tmp_path, [])


def test_the_head_goes_where_the_chat_finds_it(tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "some.gguf")
    assert default_output(model) == tmp_path / "some-mtp.gguf"
    assert default_output(built_in_model()) == Path(f"{built_in_model().stem}-mtp.gguf")


def test_a_report_holds_the_same_numbers_as_text_and_as_json(tmp_path: Path) -> None:
    entry = {"step": 100, "seconds": 1800.0, "forced": [0.5, 0.4], "tokens_per_round": 1.9}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry) + "\n")
    counts = Acceptance(n_tokens=19, rounds=10, drafted=10, accepted=(6, 3))
    groups = {name: group_of(counts, 20.0, 30.0) for name in ("all", "summary")}
    report = Report("a target", 1_234, groups, read_curve(tmp_path))
    written = write_report(tmp_path, report)
    assert [path.name for path in written[:2]] == ["report.json", "report.txt"]
    data = json.loads(written[0].read_text())
    np.testing.assert_allclose(data["groups"]["all"]["accepted"], [0.6, 0.5])
    assert data["curve"] == [
        {"step": 100, "hours": 0.5, "forced": [0.5, 0.4], "tokens_per_round": 1.9}
    ]
    text = written[1].read_text()
    assert "trained on 1,234 tokens" in text
    assert "all                0.600 0.500          1.90   20.0      30.0" in text
    for path in written[2:]:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_what_takes_less_than_an_hour_is_said_in_minutes() -> None:
    assert "; about 12 minutes, " in lines(HERE, Plan(75_000, 120), 75_000, 1, 1)[1]


@pytest.mark.parametrize(("steps", "every"), [(2, 1), (17, 4), (400, 100), (2000, 100)])
def test_a_short_runs_curve_has_four_points_too(steps: int, every: int) -> None:
    assert Settings(steps).steps_between_points == every


def test_a_run_without_a_log_has_an_empty_curve(tmp_path: Path) -> None:
    assert read_curve(tmp_path) == []
