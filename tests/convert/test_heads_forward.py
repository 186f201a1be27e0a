"""The heads compute what their papers say: llama.cpp's logits against plain numpy forwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.convert import forward, forward_newer
from tests.convert.checkpoints import Tiny
from tests.convert.conftest import FAMILIES, Convert
from tests.convert.native import head_rows, target_rows
from tests.convert.test_families import PROMPT

Floats = npt.NDArray[np.float32]
Forward = Callable[[Tiny, list[int], Floats], Floats]

REUSED: dict[str, Forward] = {
    "qwen35": forward.qwen35_head,
    "glm4moe": forward.glm4moe_head,
    "deepseek3": forward.deepseek3_head,
    "glm4v": forward.glm4v_head,
    "glm5": forward.glm5_head,
    "hy3": forward.hy3_head,
    "ling3": forward_newer.ling3_head,
    "nemotron35": forward_newer.nemotron_head,
    "north": forward_newer.north_head,
    "qwen38": forward.qwen38_head,
}


def close(found: Floats, wanted: Floats) -> None:
    """Equal up to llama.cpp's KV in half precision: three digits of values that span ten."""
    assert np.ptp(wanted) > 5
    assert np.abs(found - wanted).max() < 0.03


@pytest.mark.parametrize("family", REUSED)
def test_a_reused_head(family: str, converted: Convert) -> None:
    path = converted(family)
    _, hidden = target_rows(path, PROMPT)
    # The head at position p reads token p and the target's row of p - 1.
    tokens, rows = PROMPT[1:], hidden[:-1]
    found, _ = head_rows(path, tokens, rows)
    close(found, REUSED[family](FAMILIES[family][0](), tokens, rows))


CHAINED = {
    "mimo2": forward.mimo2_head,
    "mimo25": forward.mimo2_head,
    "step37": forward.step37_head,
}


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("family", CHAINED)
def test_a_chained_head(family: str, number: int, converted: Convert) -> None:
    path = converted(family)
    _, hidden = target_rows(path, PROMPT)
    tokens, rows = [*PROMPT[1:], 5, 6], np.concatenate([hidden[:-1], hidden[:2]])
    assert len(tokens) > 16  # longer than the sliding window
    found, own = head_rows(path, tokens, rows, number)
    logits, row = CHAINED[family](FAMILIES[family][0](), tokens, rows, number)
    close(found, logits)
    close(own, row)


def test_the_comparison_sees_a_wrong_head(converted: Convert) -> None:
    """A control: with one norm left out the logits are far away."""
    path = converted("glm4moe")
    _, hidden = target_rows(path, PROMPT)
    tiny = FAMILIES["glm4moe"][0]()
    tiny.tensors["model.layers.3.hnorm.weight"][:] = 1
    wrong = forward.glm4moe_head(tiny, PROMPT[1:], hidden[:-1])
    with pytest.raises(AssertionError):
        close(head_rows(path, PROMPT[1:], hidden[:-1])[0], wrong)
