"""benchmarks/peer: what it reads, computes and runs, with a stand-in for llama-server."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.document.page import page
from benchmarks.peer import __main__ as command
from benchmarks.peer import build as building
from benchmarks.peer.compare import BESIDE, OURS, PEER, Contender, Record, compare
from benchmarks.peer.server import DEFAULTS, PLAIN, SETTINGS, Answer, Server, Setting, parse_answer
from benchmarks.peer.summary import Speeds, bar, summary
from mtp_cli.errors import MtpError
from tests.bench import fake_server
from tests.engine import tiny

CLASSES = ("chat", "editing")


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_server.__file__} "$@"\n')
    path.chmod(0o755)
    return path


def server(binary: Path, setting: Setting, model: str = "m.gguf") -> Server:
    log = binary.with_name("log")
    return Server(binary, Path(model), setting, n_ctx=512, n_threads=1, log=log)


def records(speeds: dict[tuple[str, str], float]) -> list[Record]:
    """Each speed at every class and three repetitions, of which the second is twice as fast."""
    blank = Record("", 0, "", "", 10, 1.0, 0, 0, False)
    return [
        dataclasses.replace(
            blank, cls=cls, repetition=n, tool=tool, setting=setting,
            tokens_per_s=speed * (1 + (n == 1)) * (1 + (cls == "editing")),
        )
        for cls in CLASSES for n in range(3) for (tool, setting), speed in speeds.items()
    ]  # fmt: skip


def all_speeds() -> dict[tuple[str, str], float]:
    fixed = {(tool, f"depth {n}"): 90.0 - n for tool in (OURS, BESIDE) for n in (1, 2, 3, 4)}
    theirs = {(PEER, setting.name): 60.0 for setting in SETTINGS}
    theirs[PEER, PLAIN.name] = 100.0
    auto = {(OURS, "auto"): 120.0, (BESIDE, "auto"): 150.0}
    return {(OURS, "plain"): 110.0, **auto, **fixed, **theirs}


def test_ratios_are_taken_within_a_prompt() -> None:
    speeds = Speeds(records(all_speeds()))
    ratio = speeds.ratio((OURS, "auto"), (PEER, DEFAULTS.name))
    assert ratio == pytest.approx({"chat": 2.0, "editing": 2.0, "geomean": 2.0, "worst": 2.0})
    assert speeds.median((OURS, "auto"), "chat") == 120
    assert speeds.mean((OURS, "auto")) == pytest.approx(120 * 2**0.5)


def test_the_best_setting_of_the_peer_may_be_plain() -> None:
    speeds = all_speeds()
    assert Speeds(records(speeds)).best_peer() == PLAIN.name
    speeds[PEER, "depth 2"] = 101.0
    found = summary(records(speeds))
    assert found["peer_best_setting"] == "depth 2"
    assert found["auto_over_peer_best"]["geomean"] == pytest.approx(120 / 101)
    assert found["beside"]["auto_over_peer_best"]["geomean"] == pytest.approx(150 / 101)


def test_the_bar_has_every_line_of_it() -> None:
    rows = bar(Speeds(records(all_speeds())))
    drafting = [(1.5, True), (1.05, True), *[(1.25, True)] * 4]
    assert [(row.at_least, row.is_met) for row in rows] == [(1.0, True), *drafting, *drafting]
    slow = {**all_speeds(), (OURS, "auto"): 89.0}
    short = [(row.tool, row.name) for row in bar(Speeds(records(slow))) if not row.is_met]
    assert short == [(OURS, "automatic"), (OURS, "automatic")]
    assert summary([]) == {}


def test_an_answer_is_parsed() -> None:
    timings = {"predicted_per_second": 12.5, "draft_n": 8, "draft_n_accepted": 3}
    assert parse_answer({"tokens": [1, 2], "timings": timings}) == Answer([1, 2], 12.5, 8, 3)
    assert parse_answer({"tokens": [], "timings": {"predicted_per_second": 1}}).verified == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tokens": [1]}, "no timings or tokens"),
        ({"tokens": [1], "timings": {}}, "no predicted_per_second"),
        ({"timings": {"predicted_per_second": 1}}, "no timings or tokens"),
    ],
)
def test_an_answer_that_lacks_something(body: dict[str, object], message: str) -> None:
    with pytest.raises(MtpError, match=message):
        parse_answer(body)


def test_a_server_answers_and_ends(binary: Path) -> None:
    with server(binary, Setting.draft_mtp("x", 4, 0.5)) as running:
        assert running.setting.options[2:] == (
            "--spec-draft-n-max",
            "4",
            "--spec-draft-p-min",
            "0.5",
        )
        assert running.client.answer([5, 7], 3) == Answer([7, 7, 7], 20.0, 16, 4)
        with pytest.raises(MtpError, match=r"llama-server refused: .*too long"):
            running.client.answer([0], 3)
        client = running.client
    assert not client.is_ready()
    with pytest.raises(MtpError, match="gave no answer"):
        client.answer([5], 3)


def test_a_server_that_does_not_start(binary: Path) -> None:
    with (
        pytest.raises(MtpError, match="ended at once: error: failed to load the model"),
        server(binary, PLAIN, "broken.gguf"),
    ):
        pass
    with pytest.raises(MtpError, match="No such file"):
        server(binary.with_name("nothing"), PLAIN)


def test_every_setting_sees_every_prompt_next_to_the_others() -> None:
    seen: list[tuple[str, int]] = []

    def contender(tool: str, setting: str) -> Contender:
        def answer(prompt: object, n: int) -> Answer:
            assert isinstance(prompt, list)
            seen.append((setting, prompt[0]))
            ids = [1] if prompt[0] == 2 else [1, 2, len(setting)]
            return Answer(ids, 5.0, 0, 0)

        return Contender(tool, setting, answer)

    contenders = [contender(OURS, "plain"), contender(OURS, "auto"), contender(PEER, "plain")]
    found = compare(contenders, [(0, "a", [1]), (0, "b", [2]), (1, "a", [3])], 8, lambda _: None)
    assert [prompt for _, prompt in seen] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {r.cls for r in found} == {"a"}, "an answer of one token is no speed"
    assert len(found) == 6
    assert [r.is_fork for r in found[:3]] == [False, True, False]


@pytest.mark.parametrize(("size", "outtype"), [(None, "q8_0"), ("width", None)])
def test_from_packing_to_json(
    size: str | None,
    outtype: str | None,
    binary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = tiny.llama()
    heads = tiny.heads_for(target, hidden="pre_norm", n_draft=100).write(tmp_path / "heads.gguf")
    command.run(
        server=binary,
        model=target.write(tmp_path / "target.gguf"),
        heads=heads,
        draft_model=None,
        outtype=outtype,
        scaled=size,
        classes="chat,factual",
        repetitions=1,
        max_tokens=8,
        minutes=1,
        quick=False,
        ctx=1024,
        threads=1,
        workdir=tmp_path,
        json_file=tmp_path / "found.json",
    )
    out = capsys.readouterr().out
    assert "ours over llama-server" in out
    assert ("scaled to width 448" in out) == (size is not None)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["records"]) == 2 * (6 + 5 + len(SETTINGS))
    assert found["summary"]["peer_best_setting"] == "plain"
    assert str(tmp_path) not in json.dumps(found)
    assert "| automatic | its best setting: plain |" in page({"peer": found})
    assert set(found["summary"]["auto_over_peer_defaults"]) == {
        "chat", "factual", "geomean", "worst",
    }  # fmt: skip
    assert not any(path.is_dir() and path.name != "cache" for path in tmp_path.iterdir())


def test_a_file_without_heads_is_run_as_it_is(
    binary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = tiny.llama().write(tmp_path / "target.gguf")
    run = functools.partial(
        command.run, server=binary, model=target, heads=None, outtype=None, scaled=None,
        classes="chat,factual", repetitions=1, max_tokens=8, minutes=1, quick=False, ctx=1024,
        threads=1, workdir=tmp_path, json_file=tmp_path / "found.json",
    )  # fmt: skip
    run(draft_model=target)
    assert "its best of each class" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["records"]) == 2 * (2 + len(found["settings"]))
    assert found["settings"]["ngram-mod"] == ["--spec-type", "ngram-mod"]
    assert "target.gguf" in found["settings"]["draft model n-max 8"]
    assert str(tmp_path) not in json.dumps(found)
    assert found["summary"]["peer_best_of_class"] == {"chat": "plain", "factual": "plain"}
    assert "beside" not in found["summary"]
    assert "its best setting: which | plain |" in page({"peer-qwen-1.5b": found})
    run(draft_model=None)
    assert "draft model n-max 8" not in (tmp_path / "found.json").read_text()
    with pytest.raises(MtpError, match="need a head file"):
        run(draft_model=None, outtype="q8_0")


def test_heads_that_only_ours_can_run_meet_what_it_has_without(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = tiny.llama(n_blocks=4)
    target = spec.write(tmp_path / "target.gguf")
    heads = tiny.fused_heads_for(spec, (1, 2, 3)).write(tmp_path / "heads.gguf")
    run = functools.partial(
        command.run, server=binary, model=target, heads=heads, draft_model=target, scaled=None,
        classes="chat", repetitions=1, max_tokens=8, minutes=1, quick=False, ctx=1024,
        threads=1, workdir=tmp_path, json_file=tmp_path / "found.json",
    )  # fmt: skip
    run(outtype=None)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["heads"]["file"] == "heads.gguf"
    assert {"ngram-mod", "draft model n-max 8"} <= found["settings"].keys()
    assert len(found["records"]) == 2 + len(found["settings"])
    assert "beside" not in found["summary"]
    assert "0.5B, its heads drafting" in page({"peer-heads-qwen-0.5b": found})
    with pytest.raises(MtpError, match="that can be packed"):
        run(outtype="q8_0")


def test_the_worst_class_may_fall_short_by_itself() -> None:
    without_heads = {(OURS, "plain"): 110.0, (OURS, "auto"): 130.0, (PEER, "plain"): 100.0}
    found = records({**without_heads, (PEER, "ngram-mod"): 50.0})
    found = [
        dataclasses.replace(r, tokens_per_s=2.5 * r.tokens_per_s)
        if (r.cls, r.setting) == ("editing", "ngram-mod") else r
        for r in found
    ]  # fmt: skip
    rows = bar(Speeds(found))
    assert rows[-1].ratios["worst"] == pytest.approx(130 / 125)
    assert [row.is_met for row in rows] == [True, True, False]
    assert Speeds(found).best_of_class() == {"chat": "plain", "editing": "ngram-mod"}


def test_the_build_takes_the_wheels_flags(tmp_path: Path) -> None:
    found = building.configure_command(tmp_path / "src", tmp_path, '-DGGML_CUDA=on -DX="a b"')
    assert found[-2:] == ["-DGGML_CUDA=on", "-DX=a b"]
    assert "-DCMAKE_BUILD_TYPE=Release" in found
    assert not any("GGML" in part for part in found[:-2]), "the wheel's are the project's defaults"


def test_the_build_is_recorded(tmp_path: Path) -> None:
    binary = building.binary(tmp_path)
    assert building.configuration(binary) == {}
    binary.parent.mkdir(parents=True)
    (tmp_path / "build" / "CMakeCache.txt").write_text(
        "# comment\nGGML_NATIVE:BOOL=ON\nCMAKE_BUILD_TYPE:STRING=Release\nOTHER:BOOL=a=b\n"
    )
    expected = {"CMAKE_BUILD_TYPE": "Release", "GGML_NATIVE": "ON"}
    assert building.configuration(binary) == expected


def test_a_source_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="no source of llama-cpp-python"):
        building.fetch(tmp_path, tmp_path)
    with pytest.raises(MtpError, match="no sdist"):
        building.fetch(tmp_path, tmp_path / "missing.tar.gz")
    assert os.listdir(tmp_path) == []
