"""A decode has as many threads as there are cores that no other program uses.

The machine is made up: cores, other programs that want some, and a scheduler that is fair.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from mtp_cli.engine.backend import cores as cores_of_system
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.cores import FreeCores, Usage, free_now, usage
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.opening import open_drafter
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import pair
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import HiddenSource
from tests.engine import tiny
from tests.engine.conftest import Files, Models
from tests.engine.scripted import finish, new_generation

KINDS = ("llama", "llama-q8_0", "gemma2", "mimo2", "mamba", "jamba", "qwen35", "lfm2")
LOOK_S = TUNING.cores.look_every_s


@dataclass
class Machine:
    """n_cores, on which others want so many; what is left over goes to our threads."""

    n_cores: int
    others: float = 0.0
    now: Usage = field(default_factory=lambda: Usage(100.0, 5000.0, 3.0, 2.0))

    def run(self, n_threads: int, seconds: float) -> None:
        wanted = n_threads + self.others
        share = min(1.0, self.n_cores / wanted)
        idle = self.n_cores - share * wanted
        self.now = Usage(
            self.now.clock_s + seconds,
            self.now.idle_s + idle * seconds,
            self.now.own_s + share * n_threads * seconds,
            self.now.thread_s + share * min(n_threads, 1) * seconds,
        )

    def read(self) -> Usage:
        return self.now

    def free(self) -> int:
        return max(0, self.n_cores - round(self.others))

    def cores(self, n_most: int | None = None) -> FreeCores:
        """Of a system that says what was used, and not what runs now."""
        return FreeCores(n_most or self.n_cores, self.read, lambda: None)

    def counted_cores(self) -> FreeCores:
        return FreeCores(self.n_cores, self.read, self.free)


def decode(machine: Machine, cores: FreeCores, seconds: float, decode_s: float = 0.03) -> None:
    end_s = machine.now.clock_s + seconds
    while machine.now.clock_s < end_s:
        cores.look(machine.now.clock_s)
        machine.run(cores.n_threads, decode_s)


def settled(n_cores: int, others: float, n_most: int | None = None) -> int:
    machine = Machine(n_cores, others)
    cores = machine.cores(n_most)
    decode(machine, cores, 3.0)
    return cores.n_threads


@pytest.mark.parametrize(
    ("n_cores", "others", "expected"),
    [(2, 0, 2), (2, 0.2, 2), (2, 1, 1), (2, 2, 1), (2, 9, 1), (8, 0, 8), (8, 0.3, 8), (8, 1, 7),
     (8, 3, 5), (64, 20, 44), (1, 1, 1)],
)  # fmt: skip
def test_cores_of_others_are_left_to_them(n_cores: int, others: float, expected: int) -> None:
    assert settled(n_cores, others) == expected


def test_no_more_threads_than_allowed() -> None:
    assert settled(n_cores=16, others=3, n_most=4) == 4


def test_a_load_is_found_within_a_second_and_so_is_its_end() -> None:
    machine = Machine(2)
    cores = machine.cores()
    told: list[int] = []
    cores.follow(told.append)
    decode(machine, cores, 5.0)
    machine.others = 1
    decode(machine, cores, 1.0)
    assert cores.n_threads == 1
    decode(machine, cores, 5.0)
    machine.others = 0
    decode(machine, cores, 1.0)
    assert cores.n_threads == 2
    decode(machine, cores, 5.0)
    assert told == [1, 2]


def test_what_others_did_between_two_answers_is_not_counted() -> None:
    """As where programs take turns: the first answer in a while begins with all threads."""
    machine = Machine(2)
    cores = machine.cores()
    told: list[int] = []
    cores.follow(told.append)
    decode(machine, cores, 2.0)
    machine.others = 2
    machine.run(0, 5.0)
    machine.others = 0
    decode(machine, cores, 2.0)
    assert told == []


@pytest.mark.parametrize("decode_s", [0.03, 1.0, 5.0])
def test_a_load_is_found_after_two_decodes_however_long_they_take(decode_s: float) -> None:
    """As with a model that writes a token in five seconds."""
    machine = Machine(2)
    cores = machine.cores()
    decode(machine, cores, 3 * decode_s, decode_s)
    machine.others = 2
    decode(machine, cores, max(1.0, 2 * decode_s), decode_s)
    assert cores.n_threads == 1


@pytest.mark.parametrize(
    ("n_cores", "others", "expected"),
    [(2, 0, 2), (2, 1, 1), (2, 2, 1), (2, 9, 1), (8, 0, 8), (8, 3, 5), (8, 9, 1)],
)
def test_the_first_decode_leaves_cores_to_what_runs_then(
    n_cores: int, others: float, expected: int
) -> None:
    machine = Machine(n_cores, others)
    cores = machine.counted_cores()
    cores.look(machine.now.clock_s)
    assert cores.n_threads == expected


def test_so_does_the_first_decode_after_a_pause() -> None:
    machine = Machine(2)
    cores = machine.counted_cores()
    decode(machine, cores, 2.0)
    machine.others = 2
    machine.run(0, 30.0)
    cores.look(machine.now.clock_s)
    assert cores.n_threads == 1
    decode(machine, cores, 2.0)
    machine.run(0, 30.0)
    machine.others = 0
    cores.look(machine.now.clock_s)
    assert cores.n_threads == 2


def test_a_program_that_was_gone_at_once_costs_a_look() -> None:
    """It ran when it was counted, and not after."""
    machine = Machine(8, others=1)
    cores = machine.counted_cores()
    cores.look(machine.now.clock_s)
    assert cores.n_threads == 7
    machine.others = 0
    decode(machine, cores, 1.0)
    assert cores.n_threads == 8


@pytest.mark.parametrize(("others", "expected"), [(1, [True]), (2, [])])
def test_the_first_decode_has_a_spare_thread_where_a_core_is_left(
    others: float, expected: list[bool]
) -> None:
    machine = Machine(2, others)
    told: list[bool] = []
    cores = machine.counted_cores()
    cores.follow_spare(told.append)
    cores.look(machine.now.clock_s)
    assert (cores.n_threads, told) == (1, expected)


@contextlib.contextmanager
def programs(n: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        for other in others:
            while psutil.Process(other.pid).cpu_times().user < 0.05:
                time.sleep(0.01)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


needs_counts = pytest.mark.skipif(
    free_now() is None, reason="no count of what runs, or not of these cores"
)


@needs_counts
def test_the_system_counts_what_runs_now() -> None:
    n_cores = psutil.cpu_count() or 1
    with programs(n_cores):
        assert free_now() == 0


@needs_counts
def test_a_program_of_a_moment_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there at the first count, and not at the next."""
    load = tmp_path / "loadavg"
    load.write_text("0.10 0.20 0.30 2/90 4000\n")

    def sleep(seconds: float) -> None:
        load.write_text("0.10 0.20 0.30 1/90 4000\n")

    monkeypatch.setattr(cores_of_system, "_LOAD", load)
    monkeypatch.setattr(time, "sleep", sleep)
    assert free_now() == psutil.cpu_count()


def test_where_the_system_does_not_count_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores_of_system, "_LOAD", Path("no such file"))
    assert free_now() is None


def test_where_only_some_cores_may_be_used_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is of the whole machine."""
    monkeypatch.setattr(psutil, "cpu_count", lambda: 10**6)
    assert free_now() is None


def with_spare(machine: Machine) -> tuple[FreeCores, list[bool]]:
    cores = machine.cores()
    told: list[bool] = []
    cores.follow_spare(told.append)
    return cores, told


def test_the_only_thread_gets_a_spare_one_beside_one_program() -> None:
    machine = Machine(2)
    cores, told = with_spare(machine)
    decode(machine, cores, 2.0)
    assert told == []
    machine.others = 1
    decode(machine, cores, 5.0)
    assert told == [True]
    machine.others = 0
    decode(machine, cores, 1.0)
    assert told == [True, False]


def test_where_two_programs_want_both_cores_it_is_taken_back() -> None:
    """There it would take from the only thread, not from them."""
    machine = Machine(2, others=2)
    cores, told = with_spare(machine)
    decode(machine, cores, 5.0)
    assert (cores.n_threads, told) == (1, [True, False])
    machine.others = 1
    decode(machine, cores, 1.0)
    assert told == [True, False, True]


def test_it_stays_over_a_pause_between_two_answers() -> None:
    machine = Machine(2, others=1)
    cores, told = with_spare(machine)
    decode(machine, cores, 3.0)
    machine.run(0, 5.0)
    decode(machine, cores, 3.0)
    assert told == [True]


def test_it_looks_seldom() -> None:
    n_reads = 0

    def read() -> Usage:
        nonlocal n_reads
        n_reads += 1
        return Usage(*[n_reads * LOOK_S] * 4)

    cores = FreeCores(2, read, lambda: None)
    for hundredth in range(100):
        cores.look(hundredth / 100)
    assert n_reads == pytest.approx(1 / LOOK_S, abs=1)


def test_with_one_thread_there_is_nothing_to_look_at() -> None:
    def read() -> Usage:
        raise AssertionError("it looked")

    FreeCores(1, read).look(1.0)


def test_the_systems_counts_go_up_with_what_is_done() -> None:
    before = usage()
    while (after := usage()).own_s - before.own_s < 0.05:
        os.getpid()
    assert after.clock_s > before.clock_s
    assert after.idle_s >= before.idle_s


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "llama.cpp's"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_threads(tiny_model: Models, kind: str, is_ours: bool) -> None:
    """Beyond 512 tokens, too, where ggml's own attention shares a single row's keys out."""
    found = []
    our_kernels.enable(products=is_ours, attention=is_ours)
    for n_threads in (1, 3):
        target = Target(tiny_model(kind), n_ctx=1024, n_threads=n_threads, hidden=HiddenSource.NONE)
        target.prefill(tiny.random_ids(700, seed=3), 0, lambda: False)
        rows = [target.decode(list(range(1, 1 + n))).logits.copy() for n in (1, 4, 1)]
        found.append(np.concatenate(rows))
        target.close()
    our_kernels.enable()
    one, three = found
    assert np.array_equal(one, three)


def test_bits_stay_whatever_threads_there_are(tiny_file: Files, tiny_model: Models) -> None:
    """Threads change before every decode, of the target and of the head beside it."""
    turns = iter(range(10**6))

    def read() -> Usage:
        """Now all cores are idle, now none is."""
        turn = next(turns)
        return Usage(turn * 1e-9, (turn // 2 % 2) * 8e-9, 0.0, 0.0)

    shards = read_shards(tiny_file("llama"))
    pairing = pair(shards, tiny_file("heads-q8_0"))
    assert pairing is not None
    said = []
    for cores in (None, FreeCores(3, read, lambda: None, every_s=1e-9)):
        used: list[int] = []
        if cores is not None:
            cores.follow(used.append)
        target = Target(
            tiny_model("llama"), n_ctx=256, n_threads=3, hidden=pairing.hidden, cores=cores
        )
        drafter = open_drafter(target, pairing, 3, 0)
        generation = new_generation(target, drafter, list(range(3, 90)), depth=3, max_tokens=80)
        said.append((finish(generation), generation.stats.accepted))
        drafter.close()
        target.close()
    assert said[0] == said[1]
    assert set(used) == {1, 3}
