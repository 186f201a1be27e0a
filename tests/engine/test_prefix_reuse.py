"""The next prompt on a scripted target's timeline: what is kept, decoded and forgotten."""

from __future__ import annotations

from mtp_cli.engine.drafters import NoDrafter
from mtp_cli.engine.generate import Generation
from tests.engine.scripted import ScriptedTarget, finish, new_generation
from tests.engine.test_generate import PROMPT, perfect, text


def answered(target: ScriptedTarget, prompt: list[int], n: int = 6) -> Generation:
    generation = new_generation(target, perfect(target, prompt), prompt, depth=3, max_tokens=n)
    finish(generation)
    target.log.clear()
    return generation


def test_the_next_turn_decodes_only_what_is_new() -> None:
    target = ScriptedTarget()
    first = answered(target, PROMPT)
    prompt = [*PROMPT, *first.tokens, 9, 10]
    second = new_generation(target, NoDrafter(), prompt, depth=0, max_tokens=3)
    assert finish(second) == text(3, prompt)
    assert second.stats.cached_tokens == len(PROMPT) + 5
    assert ("prefill", [first.tokens[-1], 9, 10]) in target.log


def test_a_prompt_that_diverges_keeps_what_is_common() -> None:
    target = ScriptedTarget()
    answered(target, [5, 6, 7, 8])
    prompt = [5, 6, 9, 9]
    generation = new_generation(target, NoDrafter(), prompt, depth=0, max_tokens=3)
    assert finish(generation) == text(3, prompt)
    assert generation.stats.cached_tokens == 2
    assert ("prefill", [9, 9]) in target.log


def test_the_same_prompt_again_decodes_its_last_row() -> None:
    target = ScriptedTarget()
    answered(target, PROMPT)
    again = new_generation(target, perfect(target), PROMPT, depth=3, max_tokens=6)
    assert finish(again) == text(6)
    assert again.stats.cached_tokens == 2
    assert ("prefill", [7]) in target.log


def test_a_prompt_inside_the_timeline() -> None:
    target = ScriptedTarget()
    answered(target, [5, 6, 7, 8])
    generation = new_generation(target, NoDrafter(), [5, 6], depth=0, max_tokens=2)
    assert finish(generation) == text(2, [5, 6])
    assert generation.stats.cached_tokens == 1


def test_a_memory_that_cannot_go_back_reads_everything_again() -> None:
    target = ScriptedTarget(can_drop=False)
    target.ids = [5, 6, 7, 8, 9]
    prompt = [5, 6, 1]
    generation = new_generation(target, NoDrafter(), prompt, depth=0, max_tokens=2)
    assert finish(generation) == text(2, prompt)
    assert generation.stats.cached_tokens == 0
    assert ("prefill", prompt) in target.log


def test_the_drafter_forgets_what_the_target_does() -> None:
    target = ScriptedTarget()
    drafter = perfect(target, [5, 6, 7, 8])
    finish(new_generation(target, drafter, [5, 6, 7, 8], depth=3, max_tokens=6))
    prompt = [5, 6, 9]
    drafter.text = prompt + text(64, prompt)
    finish(new_generation(target, drafter, prompt, depth=3, max_tokens=6))
    assert [drafter.seen[p][0] for p in sorted(drafter.seen)] == prompt + text(5, prompt)
