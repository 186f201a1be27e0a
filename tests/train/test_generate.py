"""Writing the corpus with the real target, a few conversations at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from mtp_cli.bench.held_out import PROMPTS
from mtp_cli.bench.prompts import PROMPTS as BENCH
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.binding import heard
from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
from mtp_cli.engine.files.memory import Machine
from mtp_cli.models import built_in_model
from mtp_train.batching import bf16_copy
from mtp_train.corpus import Role, Sample, n_tokens_in, prompt_key, read_shard
from mtp_train.generate import LOOP, Generator, Settings, draw
from mtp_train.measure import held_out_keys
from mtp_train.second_set import PROMPTS as SECOND
from mtp_train.target import Target
from tests.engine import tiny


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Written by the model's BF16 copy, read as the model's own: the two share a fingerprint."""
    folder = tmp_path_factory.mktemp("corpus")
    copy = bf16_copy(built_in_model(), folder)
    settings = Settings(tokens=500, n_slots=6, n_ctx=160, max_answer=24, greedy_share=0.7)
    generator = Generator(copy, folder, settings, n_threads=1)
    generator.run(lambda _n: None)
    generator.close()
    target = target_fingerprint(read_shards(built_in_model()))
    assert n_tokens_in(folder, target) >= 500
    return [s for path in folder.glob("*.npz") for s in read_shard(path, target)]


def test_a_template_that_opens_with_the_request_is_written_in_too(tmp_path: Path) -> None:
    """Without BOS and template text before it, nothing stands in front of an open request."""
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = spec.write(tmp_path / "model.gguf")
    settings = Settings(tokens=300, n_slots=4, n_ctx=200, max_answer=24, template_share=0)
    generator = Generator(model, tmp_path, settings, n_threads=1)
    generator.run(lambda _n: None)
    generator.close()
    assert n_tokens_in(tmp_path, target_fingerprint(read_shards(model))) >= 300


@pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
def test_where_memory_is_short_the_targets_weights_stay_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny.llama().quantized(GGMLQuantizationType.Q8_0)
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = spec.write(tmp_path / "model.gguf")
    for free in (1 << 30, model.stat().st_size):
        machine = Machine(total=1 << 30, free=free)
        monkeypatch.setattr(Machine, "here", lambda machine=machine: machine)
        with heard() as lines:
            Generator(
                model, tmp_path, Settings(tokens=1, n_slots=2, n_ctx=160), n_threads=1
            ).close()
        assert any("CPU_MTP model buffer size" in line for line in lines) == (free == 1 << 30)


def test_every_text_holds_an_answer_and_the_template_around_it(samples: list[Sample]) -> None:
    assert {Role.GIVEN, Role.GREEDY} <= {role for s in samples for role in s.roles.tolist()}
    assert all((s.roles >= Role.GREEDY).any() for s in samples)
    with Engine.open(built_in_model(), n_ctx=256, n_threads=1) as engine:
        opening = b"".join(engine.piece(t, special=True) for t in samples[0].ids[:4].tolist())
    assert opening.startswith(b"<|im_start|>")


def test_rows_and_greedy_tokens_are_the_targets_own(samples: list[Sample]) -> None:
    """The stored row, through the target's output matrix, chooses the stored next token."""
    target = Target(built_in_model())
    sample = max(samples, key=lambda s: int((s.roles == Role.GREEDY).sum()))
    at = np.flatnonzero(sample.roles == Role.GREEDY)
    logits = sample.rows[at - 1].astype(np.float32) @ target.output.T
    assert (logits.argmax(1) == sample.ids[at]).mean() > 0.9
    with Engine.open(built_in_model(), n_ctx=256, n_threads=1) as engine:
        first = int(at[0])
        generation = engine.generate(
            sample.ids[:first].tolist(), Sampling(temperature=0), max_tokens=3, depth=0
        )
        plain = [token for tokens in generation for token in tokens]
    assert plain == sample.ids[first : first + 3].tolist()


def test_every_target_has_a_bf16_copy_of_its_own(tmp_path: Path) -> None:
    """Of the same sizes: what tells them apart is in their weights."""
    targets = [tiny.llama(seed).write(tmp_path / f"{seed}.gguf") for seed in (1, 2)]
    copies = [bf16_copy(target, tmp_path) for target in (*targets, targets[0])]
    assert copies[0] == copies[2] != copies[1]
    for copy, target in zip(copies, targets, strict=False):
        assert Target(copy).fingerprint == Target(target).fingerprint


def test_drawing_follows_temperature_and_leaves_the_tail_out() -> None:
    rng = np.random.default_rng(0)
    logits = np.full((4000, 300), -20.0, np.float32)
    logits[:, 7], logits[:, 9], logits[:, 11] = 2.0, 1.0, -3.0
    drawn = draw(logits, np.full(4000, 1.0), rng)
    assert set(drawn.tolist()) == {7, 9}
    expected = 1 / (1 + np.exp(-1.0))
    assert abs((drawn == 7).mean() - expected) < 0.03
    cold = draw(logits, np.full(4000, 0.1), rng)
    assert (cold == 7).mean() > 0.99


def test_loops_are_seen_and_lists_are_not() -> None:
    assert LOOP.period([1, 2, 3] * 20)
    assert LOOP.period([5, 6, *range(30), *range(30), *range(30)])
    assert not LOOP.period(list(range(200)))
    assert not LOOP.period([n if n % 7 else 0 for n in range(100)])


def test_what_is_measured_on_is_known_by_its_request() -> None:
    """The prompts of both sets of `measure` and of mtp-bench."""
    with Engine.open(built_in_model(), n_ctx=512, n_threads=1) as engine:
        known = held_out_keys(engine)
        for groups in (PROMPTS, SECOND, BENCH):
            text = next(iter(groups.values()))[0]
            ids = np.array(prompt_ids(engine, text), np.int32)
            assert prompt_key(ids) in known
        ids = np.array(prompt_ids(engine, "Who was the first pirate?"), np.int32)
        assert prompt_key(ids) not in known
