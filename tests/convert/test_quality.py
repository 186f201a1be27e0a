"""`check` measures a pair on chat prompts, and compares with what its heads' file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFReader
from typer.testing import CliRunner, Result

from mtp_cli.acceptance import KEYS, Acceptance, Record
from mtp_cli.bench import held_out
from mtp_convert.cli import WORSE, app
from mtp_convert.gguf.model import open_model
from mtp_train.measure import measure, record_of
from mtp_train.record import write_record
from tests.engine import tiny

TEMPLATE = "{% for m in messages %}{{ m.content[:40] }}{% endfor %}"
SHORT = 6  # tokens an answer


def check(target: Path, heads: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["check", str(target), "--heads", str(heads), *options])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = TEMPLATE
    return spec.write(tmp_path / "target.gguf")


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return tiny.heads_for(tiny.llama(), hidden="pre_norm").write(tmp_path / "heads.gguf")


def recorded(target: Path, heads: Path) -> Record:
    """The record that mtp-train writes, in the file."""
    answers = measure(target, heads, depth=3, max_tokens=SHORT, system="Be short.")
    record = record_of(target, answers, system="Be short.", max_tokens=SHORT)
    write_record(heads, record)
    return record


def test_a_pair_that_did_not_change_is_as_good_as_when_made(target: Path, heads: Path) -> None:
    before = {t.name: t.data.tobytes() for t in GGUFReader(heads).tensors}
    record = recorded(target, heads)
    assert {t.name: t.data.tobytes() for t in GGUFReader(heads).tensors} == before
    assert len(record.answers) == 50
    done = check(target, heads, "--all")
    assert done.exit_code == 0
    assert f"chat prompts, 50 of 50: {record.total}\n" in done.stdout
    assert f"when made, f32 target: {record.total}\n" in done.stdout
    assert "as good as when made, as far as 50 prompts tell: +0.00 tokens a round" in done.stdout
    done = check(target, heads)
    assert "chat prompts, 10 of 50" in done.stdout
    assert "as far as 10 prompts tell; --all asks more: +0.00" in done.stdout
    shown = CliRunner().invoke(app, ["inspect", str(heads)]).stdout
    assert f"accepted when made, 50 prompts, f32 target: {record.total}\n" in shown


def test_a_fall_is_a_warning_and_an_exit_status_of_its_own(target: Path, heads: Path) -> None:
    record = recorded(target, heads)
    good = Acceptance(SHORT - 1, 2, 2, (2, 1, 0))
    write_record(heads, replace(record, answers=(good,) * 50))
    done = check(target, heads)
    assert done.exit_code == WORSE
    assert "warning: worse than when made (10 prompts; --all asks more): -" in done.stdout
    assert "mtp-train fit --start" in done.stdout


def test_a_record_is_replaced_and_never_doubled(target: Path, heads: Path) -> None:
    record = recorded(target, heads)
    write_record(heads, replace(record, system=None))
    pairs = open_model(heads).file.pairs
    assert [key for key in KEYS if key not in pairs] == ["mtp.accepted.system"]


def test_a_record_of_other_prompts_is_shown_and_not_compared(target: Path, heads: Path) -> None:
    write_record(heads, replace(recorded(target, heads), prompts="others"))
    done = check(target, heads)
    assert done.exit_code == 0
    assert "when made: on other prompts (others), which do not compare" in done.stdout


def test_heads_without_a_record_say_how_to_make_one(target: Path, heads: Path) -> None:
    done = check(target, heads)
    assert done.exit_code == 0
    assert "when made: not recorded; mtp-train measure --record" in done.stdout


def test_a_target_without_a_chat_template_has_no_chat_prompts(tmp_path: Path, heads: Path) -> None:
    done = check(tiny.llama().write(tmp_path / "plain.gguf"), heads)
    assert done.exit_code == 0
    assert "chat prompts" not in done.stdout


def test_a_broken_record_is_one_line(target: Path, tmp_path: Path) -> None:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm")
    spec.keys["mtp.accepted.counts"] = [1, 2, 3]
    done = check(target, spec.write(tmp_path / "broken.gguf"))
    assert str(done.exception).endswith(
        "broken.gguf: mtp.accepted.depth: expected 1 to 8, found None"
    )


def test_the_name_of_the_set_tells_its_texts() -> None:
    assert held_out.NAME.startswith("held-out-")
    assert len(held_out.texts()) == len(set(held_out.texts())) == 50
    assert {len(group) for group in held_out.PROMPTS.values()} == {held_out.EACH}


def test_a_model_with_heads_of_its_own_keeps_a_record_too(tmp_path: Path) -> None:
    spec = tiny.mimo2()
    spec.keys["tokenizer.chat_template"] = TEMPLATE
    model = spec.write(tmp_path / "model.gguf")
    answers = measure(model, None, depth=3, max_tokens=SHORT)
    record = record_of(model, answers, system=None, max_tokens=SHORT)
    write_record(model, record)
    done = CliRunner().invoke(app, ["check", str(model)])
    assert done.exit_code == 0
    assert "as good as when made" in done.stdout
    shown = CliRunner().invoke(app, ["inspect", str(model)]).stdout
    assert f"accepted when made, 50 prompts, f32 target: {record.total}\n" in shown
