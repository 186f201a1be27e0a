"""benchmarks/gpu: a dry run through every stage, time that holds, what llama.cpp says of layers."""

from __future__ import annotations

import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner

from benchmarks.document.page import page
from benchmarks.gpu import folder, schedule, stages
from benchmarks.gpu.__main__ import app
from benchmarks.gpu.loaded import is_all_on_card, placed
from benchmarks.gpu.report import print_table
from benchmarks.gpu.written import Pieces
from benchmarks.widen import Scale, plan_target, write_sparse
from mtp_cli.errors import MtpError
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.write import write
from tests.engine import tiny

LOADED = """\
load_tensors: offloading output layer to GPU
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    28.69 MiB
load_tensors:        CUDA0 model buffer size =    98.24 MiB
llama_kv_cache:      CUDA0 KV buffer size =    90.00 MiB
sched_reserve:      CUDA0 compute buffer size =   101.75 MiB
sched_reserve:  CUDA_Host compute buffer size =     9.13 MiB
sched_reserve: graph splits = 2
load_tensors: offloaded 2/2 layers to GPU
load_tensors:        CUDA0 model buffer size =    14.00 MiB""".splitlines()


def shown(content: dict[str, Any]) -> str:
    said = io.StringIO()
    print_table(content, Console(file=said, width=200))
    return said.getvalue()


def test_a_dry_run_goes_through_every_stage(tmp_path: Path) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    heads = tiny.heads_for(target, hidden="pre_norm").write(tmp_path / "h.gguf")
    given = ["--model", str(model), "--heads", str(heads), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "run", "--dry-run", *given],
        cwd=Path(schedule.__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {name: one["status"] for name, one in found["stages"].items()} == dict.fromkeys(
        schedule.SHARES, "done"
    )
    pieces = {name: one["found"] for name, one in found["stages"].items()}
    assert not [piece for by in pieces.values() for piece in by.values() if "error" in piece]
    assert pieces["lossless"]["exact as it is"]["forks"] == 0
    assert len(pieces["14B-bf16"]["costs"]["rows_ms"]) == 16
    assert pieces["14B-bf16"]["make"]["width"] == 2 * tiny.N_EMBD
    for name in ("built-in", "heads-on-cpu", "4B-bf16", "14B-q4_k"):
        assert pieces[name]["speed"]["summary"]["auto_over_plain"]["geomean"] > 0
    assert list(pieces["first-token"]["first token"]["prompts"]) == ["20", "40"]
    table = (tmp_path / "out" / "gpu.txt").read_text()
    assert all(name in table for name, found in pieces.items() if "load" in found)
    assert "│ 0 0 0 0 0 0 0 0 │" in table
    assert "| 14B-q4_k |" in page({"gpu": found})
    assert "| forks, depths 1-8 | 0 0 0 0 0 0 0 0 |" in page({"gpu": found})
    assert table.splitlines()[-1].startswith("first token of 40: ")


def test_stages_and_their_shares_are_the_same_ones() -> None:
    assert list(stages.STAGES) == list(schedule.SHARES)


def script(text: str) -> schedule.Command:
    return lambda name, seconds, out: [sys.executable, "-c", text, name, str(seconds), str(out)]


WRITES = """import sys, json; open(sys.argv[3], "w").write(json.dumps({"piece": {"n": 1}}));"""


def run_scripted(tmp_path: Path, text: str, seconds: float) -> tuple[schedule.Run, list[str]]:
    run, said = schedule.Run(tmp_path / "gpu.json", seconds, {}, grace_s=0.5), list[str]()
    shares = {"machine": 1.0, "second": 1.0, "third": 1.0}
    schedule.run_all(run, shares, script(text), tmp_path, os.environ, said.append)
    return run, said


def test_a_stage_that_dies_costs_the_others_nothing(tmp_path: Path) -> None:
    run, said = run_scripted(tmp_path, WRITES + "sys.exit(3 * (sys.argv[1] == 'second'))", 60)
    statuses = [one["status"] for one in run.stages.values()]
    assert statuses == ["done", "ended with status 3", "done"]
    kept = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert kept["second"]["found"] == {"piece": {"n": 1}}
    assert "second: ended with status 3\n" in said


def test_a_stage_that_hangs_is_ended_and_keeps_what_it_had(tmp_path: Path) -> None:
    hangs = WRITES + "import time; time.sleep(60 * (sys.argv[1] != 'machine'))"
    run, _ = run_scripted(tmp_path, hangs, schedule.RESERVE_S + 2)
    assert run.stages["second"]["status"] == "stopped at the end of its time"
    assert run.stages["second"]["found"] == {"piece": {"n": 1}}
    assert "second: stopped at the end of its time" in shown({"took_s": 9, "stages": run.stages})


def test_without_a_card_nothing_is_measured(tmp_path: Path) -> None:
    given = ["--only", "built-in", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "run", *given],
        cwd=Path(schedule.__file__).parents[2], capture_output=True, text=True, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: this build of llama.cpp sees no GPU")
    assert list(json.loads((tmp_path / "gpu.json").read_text())["stages"]) == ["machine"]


def test_what_fails_is_written_down_and_the_next_piece_comes(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "out.json", 60.0)

    def wrong() -> dict[str, Any]:
        raise MtpError("no room")

    assert pieces.add("a", wrong) is None
    assert pieces.add("b", lambda: {"n": 2}) == {"n": 2}
    assert Pieces(tmp_path / "late.json", 0.0).add("c", lambda: {}) is None
    assert json.loads((tmp_path / "late.json").read_text())["c"]["error"] == "no time was left"
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["a"]["error"] == "no room"
    assert found["b"]["n"] == 2
    stage = {"status": "done", "found": found}
    assert "x, a: no room" in shown({"took_s": 1, "stages": {"x": stage}})


def test_layers_are_read_from_what_llama_cpp_says() -> None:
    found = placed(LOADED)
    assert found["layers"] == [[31, 31], [2, 2]]
    assert found["mib"]["model"] == {"CPU_Mapped": 28.69, "CUDA0": 112.24}
    assert found["mib"]["KV"] == {"CUDA0": 90.0}
    assert found["graph_splits"] == [2]
    assert is_all_on_card(found)
    assert not is_all_on_card(placed(["load_tensors: offloaded 30/31 layers to GPU"]))
    assert not is_all_on_card(placed([]))


def test_a_file_with_holes_is_the_file_without(tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "m.gguf")
    for outtype in ("bf16", "q8_0"):
        plan = plan_target(open_model(model), Scale(2, 3), outtype)
        write(plan, tmp_path / "whole.gguf")
        write_sparse(plan, tmp_path / "sparse.gguf")
        assert (tmp_path / "sparse.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_what_is_there_already_is_said_before_an_hour_of_compiling(tmp_path: Path) -> None:
    (tmp_path / "card.parts").mkdir()
    given = ["prepare", str(tmp_path / "card"), "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(app, given)
    assert str(done.exception).startswith(f"{tmp_path / 'card.parts'}: is there already")
    assert not (tmp_path / "work").exists()


def test_a_folder_in_parts_is_the_folder(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "site").mkdir(parents=True)
    (made / "site" / "weights").write_bytes(os.urandom(50_000))
    n_parts = folder.pack(made, tmp_path / "parts", 20_000)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == n_parts == 3
    assert all(part.stat().st_size <= 20_000 for part in parts)
    packed = lzma.decompress(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        weights = archive.extractfile("site/weights")
        assert weights is not None
        assert weights.read() == (made / "site" / "weights").read_bytes()


def test_a_wheel_is_unpacked_without_its_scripts(tmp_path: Path) -> None:
    wheel, site = tmp_path / "a-1-py3-none-any.whl", tmp_path / "site"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a/__init__.py", "")
        archive.writestr("a-1.data/purelib/b.py", "")
        archive.writestr("a-1.data/scripts/run", "")
        archive.writestr("lib/liba.so", "")
    folder._unpack(wheel, site)
    assert sorted(path.name for path in site.iterdir()) == ["a", "b.py"]
    native = site / "native"
    native.mkdir()
    (native / "_compiled_v3.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    folder._rename_compiled(native)
    assert [path.name for path in native.iterdir()] == ["_compiled_v3.so"]
