"""A prompt that was kept on disk gives the answer that reading it gives, to the bit."""

from __future__ import annotations

import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mtp_cli.engine import CacheTypes, Depth, Engine, Sampling
from mtp_cli.engine.backend.cache import F16
from mtp_cli.engine.kept_prompts import N_WORTH_KEEPING
from mtp_cli.engine.types import Floats, State
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.full_disk import no_room

GREEDY = Sampling(temperature=0)
N_BATCH = 512
LONG = tiny.random_ids(1300, seed=71)
# What runs, and the heads beside it. All of these have a memory of another kind, or other heads.
KINDS = {
    "llama": None, "gemma2": None, "mimo2": None, "mamba": None, "jamba": None, "qwen3next": None,
    "qwen35": None, "lfm2": None, "lfm2-window": None, "llama-q8_0": "heads-trimmed",
}  # fmt: skip
CANNOT_SHORTEN = KINDS.keys() - {"llama", "llama-q8_0"}


class Answer(NamedTuple):
    """drafter: what drafts held once the prompt was read"""

    tokens: list[int]
    n_found: int
    rows: list[Floats]
    proposers: list[str]
    drafter: State


Open = Callable[..., Engine]


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def opened(tiny_file: Files, tmp_path: Path, problems: list[str]) -> Iterator[Open]:
    """Engines that keep prompts in one folder, unless it is told otherwise."""
    engines: list[Engine] = []

    def open_engine(
        name: str = "llama",
        *,
        keeps: bool = True,
        max_bytes: int = 1 << 30,
        n_ctx: int = 2048,
        cache: CacheTypes = F16,
    ) -> Engine:
        heads = KINDS.get(name)
        beside = None if heads is None else tiny_file(heads)
        engine = Engine.open(tiny_file(name), beside, n_ctx=n_ctx, n_threads=1, cache=cache)
        engines.append(engine)
        if keeps:
            folder = tmp_path / "kept"
            engine.keep_prompts(folder, max_bytes=max_bytes, on_problem=problems.append)
        return engine

    yield open_engine
    for engine in engines:
        engine.close()


def answered(engine: Engine, prompt: list[int], depth: Depth = 2) -> Answer:
    rows: list[Floats] = []
    generation = engine.generate(
        prompt,
        GREEDY,
        max_tokens=12,
        depth=depth,
        watch=lambda _token, logits: rows.append(logits.copy()),
    )
    for _ in range(2):  # heads are shown the prompt's end after the first token
        next(generation)
    drafter = engine.save().drafter
    list(generation)
    n_found = generation.stats.cached_tokens
    return Answer(generation.tokens, n_found, rows, [*generation.proposers], drafter)


def assert_same(found: Answer, expected: Answer) -> None:
    assert found.tokens == expected.tokens
    assert found.proposers == expected.proposers
    assert found.drafter.keys() == expected.drafter.keys()
    for name, array in found.drafter.items():
        np.testing.assert_array_equal(array, expected.drafter[name], name)
    np.testing.assert_array_equal(np.stack(found.rows), np.stack(expected.rows))


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept").glob("*"))


def written(engine: Engine, prompt: list[int]) -> Answer:
    answer = answered(engine, prompt)
    assert engine._keeping is not None
    engine._keeping.finish()
    return answer


@pytest.mark.parametrize("name", KINDS)
def test_the_same_prompt_is_not_read_again(name: str, opened: Open, tmp_path: Path) -> None:
    expected = answered(opened(name, keeps=False), LONG)
    assert_same(written(opened(name), LONG), expected)
    assert len(files(tmp_path)) == 1
    found = answered(opened(name), LONG)
    assert found.n_found == len(LONG) - 1
    assert_same(found, expected)


@pytest.mark.parametrize("name", KINDS)
def test_one_that_goes_on_otherwise_is_read_from_a_whole_part_on(name: str, opened: Open) -> None:
    other = [*LONG[:1100], *tiny.random_ids(300, seed=72)]
    expected = answered(opened(name, keeps=False), other)
    written(opened(name), LONG)
    found = answered(opened(name), other)
    assert found.n_found == (0 if name in CANNOT_SHORTEN else 2 * N_BATCH)
    assert_same(found, expected)


def test_heads_find_rows_behind_what_is_taken_up(opened: Open) -> None:
    """A rest of a few ids would leave them nearly none."""
    other = [*LONG[:1030], 7]
    written(opened("llama-q8_0"), LONG)
    found = answered(opened("llama-q8_0"), other)
    assert found.n_found == N_BATCH
    assert_same(found, answered(opened("llama-q8_0", keeps=False), other))


def test_a_conversation_that_grows_takes_the_place_of_what_it_began_with(
    opened: Open, tmp_path: Path
) -> None:
    written(opened(), LONG)
    (first,) = files(tmp_path)
    longer = [*LONG, *tiny.random_ids(400, seed=73)]
    assert written(opened(), longer).n_found == 2 * N_BATCH
    (second,) = files(tmp_path)
    assert second != first
    assert answered(opened(), longer).n_found == len(longer) - 1


def test_what_is_in_memory_already_comes_first(opened: Open) -> None:
    engine = opened()
    said = written(engine, LONG).tokens
    longer = [*LONG, *said[:-1], 5, 6, 7]
    assert answered(engine, longer).n_found == len(LONG) + len(said) - 1


def test_a_turn_after_an_answer_is_not_kept(opened: Open, tmp_path: Path) -> None:
    """Its beginning was not read in the parts in which a prompt is."""
    engine = opened()
    said = written(engine, LONG[:100]).tokens
    written(engine, [*LONG[:100], *said[:-1], *tiny.random_ids(600, seed=74)])
    assert files(tmp_path) == []


def test_short_prompts_are_not_kept(opened: Open, tmp_path: Path) -> None:
    written(opened(), LONG[:N_WORTH_KEEPING])
    assert files(tmp_path) == []
    written(opened(), LONG[: N_WORTH_KEEPING + 1])
    assert len(files(tmp_path)) == 1


def test_other_settings_find_nothing(opened: Open, tmp_path: Path) -> None:
    written(opened(), LONG)
    for engine in (opened(n_ctx=1536), opened(cache=CacheTypes("f32", "f16")), opened("gemma2")):
        assert answered(engine, LONG).n_found == 0
    assert answered(opened(), LONG).n_found == len(LONG) - 1


def _number(n: int, n_bytes: int) -> bytes:
    return n.to_bytes(n_bytes, "little")


def damages(data: bytes) -> dict[str, bytes]:
    middle, name = len(data) // 2, data.find(b"state")
    return {
        "empty": b"",
        "cut": data[:-1],
        "longer": data + b"x",
        "a bit of the state": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "a bit in the middle": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        "a bit of a name": data[:name] + bytes([data[name] ^ 1]) + data[name + 1 :],
        "its header": data[:20] + b"\xff\x00{[" + data[24:],
        "a long header": data[:8] + b"\xff" * 8 + data[16:],
        "another kind of file": b"GGUF" + data[4:],
        "no list of arrays": data[:8] + _number(2, 8) + _number(zlib.crc32(b"{}"), 4) + b"{}",
    }


@pytest.mark.parametrize("damage", damages(bytes(64)))
def test_a_damaged_file_is_read_past(damage: str, opened: Open, tmp_path: Path) -> None:
    expected = written(opened(), LONG)
    (path,) = files(tmp_path)
    path.write_bytes(damages(path.read_bytes())[damage])
    found = written(opened(), LONG)
    assert found.n_found == 0
    assert_same(found, expected)
    assert answered(opened(), LONG).n_found == len(LONG) - 1, "it was written anew"


def test_files_are_their_owners_alone(opened: Open, tmp_path: Path) -> None:
    written(opened(), LONG)
    (path,) = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_ones_not_used_for_longest_make_room(opened: Open, tmp_path: Path) -> None:
    prompts = [tiny.random_ids(600, seed=seed) for seed in (81, 82, 83)]
    written(opened(), prompts[0])
    size = files(tmp_path)[0].stat().st_size
    for prompt in prompts[1:]:
        written(opened(max_bytes=int(2.5 * size)), prompt)
        for age, path in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime)):
            os.utime(path, (1000 + age, 1000 + age))
    assert len(files(tmp_path)) == 2
    found = [answered(opened(), prompt).n_found for prompt in prompts]
    assert found == [0, 599, 599]


def test_one_too_large_for_the_space_is_not_kept(opened: Open, tmp_path: Path) -> None:
    written(opened(), LONG[:600])
    written(opened(max_bytes=10_000), LONG[600:])
    assert all(path.stat().st_size < 10_000 for path in files(tmp_path))


@pytest.mark.parametrize("what", ["a file in its place", "no room"])
def test_what_cannot_be_written_is_a_line(
    what: str, opened: Open, tmp_path: Path, problems: list[str]
) -> None:
    expected, engine = answered(opened(keeps=False), LONG), opened()
    if what == "a file in its place":
        (tmp_path / "kept").write_text("")
        found = written(engine, LONG)
    else:
        with no_room(10_000):  # a tenth of what the prompt takes
            found = written(engine, LONG)
    assert_same(found, expected)
    assert files(tmp_path) == []
    (line,) = problems
    assert line.startswith("--cache-prompt: ")
    assert line.endswith("the prompt is not kept")


def test_two_at_once(opened: Open, tmp_path: Path) -> None:
    """Both write the same name; whoever is last has written it whole."""
    expected = answered(opened(keeps=False), LONG)
    engines = [opened(), opened()]
    threads = [threading.Thread(target=written, args=(engine, LONG)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(tmp_path)) == 1
    found = answered(opened(), LONG)
    assert found.n_found == len(LONG) - 1
    assert_same(found, expected)


def test_an_interrupted_prompt_is_not_kept(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    generation = engine.generate(LONG, GREEDY, max_tokens=2)
    generation.stop()
    list(generation)
    assert generation.tokens == []
    assert not (tmp_path / "kept").exists()
