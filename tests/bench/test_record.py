"""benchmarks/record.py: what runs, what is not run again, and what is kept, with made-up runs."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer

from benchmarks.document.results import read_all, read_result
from benchmarks.record import Execute, chosen, is_recorded, record, show
from benchmarks.steps import STEPS, Places, Step
from mtp_cli.errors import MtpError
from tests.bench import made_up

NAMES = [step.name for step in STEPS]
TWO = chosen(["few-rows", "ttft"], [])


def app_of(function: Callable[..., None]) -> typer.core.TyperCommand:
    """The command line that a function makes."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    found = typer.main.get_command(app)
    assert isinstance(found, typer.core.TyperCommand)
    return found


def scripted(ran: list[str], fails: str = "", stops: str = "") -> Execute:
    """Writes a result for each command, but for one that fails and one that Ctrl-C stops."""

    def execute(command: Sequence[str]) -> None:
        name = Path(command[-1]).stem
        ran.append(name)
        if name == stops:
            raise KeyboardInterrupt
        if name != fails:
            Path(command[-1]).write_text(json.dumps(made_up.head(name, "x")))

    return execute


def test_a_finished_result_is_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []
    results = tmp_path / "results"
    assert record(TWO, results, quick=False, again=False, execute=scripted(ran)) == []
    found = read_all(results)
    assert list(found) == ran == ["few-rows", "ttft"]
    assert found["ttft"]["seconds"] >= 0
    record(TWO, results, quick=False, again=False, execute=scripted(ran))
    record(TWO, results, quick=True, again=False, execute=scripted(ran))
    assert len(ran) == 2
    record(TWO, results, quick=False, again=True, execute=scripted(ran))
    assert len(ran) == 4


def test_a_full_result_takes_a_quick_one_s_place(tmp_path: Path) -> None:
    ran: list[str] = []
    for quick in (True, True, False):
        record(TWO, tmp_path, quick=quick, again=False, execute=scripted(ran))
    assert ran == ["few-rows", "ttft"] * 2
    assert not any(content["quick"] for content in read_all(tmp_path).values())


def test_what_was_stopped_goes_on(tmp_path: Path) -> None:
    ran: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        record(TWO, tmp_path, quick=False, again=False, execute=scripted(ran, stops="ttft"))
    assert list(read_all(tmp_path)) == ["few-rows"]
    record(TWO, tmp_path, quick=False, again=False, execute=scripted(ran))
    assert ran == ["few-rows", "ttft", "ttft"]


def test_one_that_fails_does_not_keep_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    failing = scripted(ran, fails="few-rows")
    assert record(TWO, tmp_path, quick=False, again=False, execute=failing) == ["few-rows"]
    assert list(read_all(tmp_path)) == ["ttft"]
    assert "few-rows: nothing was recorded" in capsys.readouterr().err


def test_another_form_s_result_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "ttft.json"
    path.write_text(json.dumps(made_up.head("ttft", "x", schema=1)))
    assert not is_recorded(path, quick=True)
    path.write_text("[")
    with pytest.raises(MtpError, match="no result that can be read"):
        read_result(path)


def test_names_are_chosen_and_skipped() -> None:
    built_in = [step.name for step in STEPS if step.file is None]
    assert [step.name for step in chosen([], ["peer"])] == [n for n in built_in if n != "peer"]
    assert [step.name for step in chosen(["peer", "ttft"], [])] == ["ttft", "peer"]
    with pytest.raises(typer.BadParameter, match="no 'pear'; there are mtp-bench-q4_1"):
        chosen([], ["pear"])


def test_real_files_are_found_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (step,) = chosen(["peer-qwen-1.5b"], [])
    assert record([step], tmp_path, quick=True, again=False) == ["peer-qwen-1.5b"]
    assert step.file is not None
    assert f"needs --models, a folder with {step.file}" in capsys.readouterr().err
    (tmp_path / step.file).write_bytes(b"")
    places = Places(tmp_path, tmp_path / "llama-server", tmp_path / "llama-bench")
    assert "peer-qwen-1.5b" in [found.name for found in chosen([], [], places)]
    assert "peer-qwen-0.5b" not in [found.name for found in chosen([], [], places)]
    ran: list[list[str]] = []

    def execute(command: Sequence[str]) -> None:
        ran.append(list(command))
        Path(command[-1]).write_text(json.dumps(made_up.head("peer", "x")))

    assert record([step], tmp_path, quick=True, again=False, execute=execute, places=places) == []
    after = dict(itertools.pairwise(ran[0]))
    assert after["--model"] == str(tmp_path / step.file)
    assert after["--draft-model"] == str(tmp_path / step.file.replace("1.5b", "0.5b"))
    assert after["--server"] == str(tmp_path / "llama-server")


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_every_benchmark_takes_its_arguments(step: Step) -> None:
    for quick in (False, True):
        model = None if step.outtype is None and step.file is None else Path("m.gguf")
        places = Places(server=Path("s"), peer_bench=Path("b"))
        _, _, module, *arguments = step.command(quick, model, Path("out.json"), places)
        is_peer = module == "benchmarks.peer"
        program = importlib.import_module(f"{module}.__main__" if is_peer else module)
        if is_peer:
            program, arguments = program.run, arguments[1:]
        else:
            program = getattr(program, "bench", None) or program.main
        parsed = app_of(program).make_context(module, arguments)
        assert parsed.params["json_file"] == Path("out.json")


def test_the_list_names_no_path_and_the_set_fits_in_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quick, minutes in ((False, 110), (True, 45)):
        show(STEPS, quick)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [*NAMES, "together"]
        assert float(lines[-1].split()[1]) <= minutes
        assert not any("/" in line for line in lines)
    assert "--model Q8_0.gguf --heads smollm2-135m-instruct-mtp.gguf" in lines[2]


def test_heads_for_real_files_are_in_the_repository() -> None:
    """Each step names one that is there, and found for its model's name by what drafts."""
    named = [step for step in STEPS if step.heads is not None]
    assert named
    for step in named:
        assert step.file is not None
        command = step.command(False, Path(step.file), Path("x.json"))
        heads = Path(command[command.index("--heads") + 1])
        assert heads.is_file()
        assert heads.name.removesuffix("-mtp.gguf") == step.file.removesuffix("-q4_k_m.gguf")
