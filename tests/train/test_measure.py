"""Speed with and without drafts, through the engine."""

from __future__ import annotations

from mtp_cli.models import built_in_heads, built_in_model
from mtp_train.measure import speeds


def test_speeds_are_of_every_kind_of_prompt_and_of_all_together() -> None:
    heads = built_in_heads()
    assert heads is not None
    prompts = {"one": ("Name three colors.", "not asked"), "other": ("Count to five.",)}
    found = speeds(built_in_model(), heads, max_tokens=8, n_threads=1, prompts=prompts)
    assert list(found) == ["all", "one", "other"]
    assert all(plain > 0 and drafting > 0 for plain, drafting in found.values())
    for way in (0, 1):
        each = [found[name][way] for name in prompts]
        assert min(each) <= found["all"][way] <= max(each)
