"""North-Mini-Code and its relatives: shared experts, other norms, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import Tiny, write_checkpoint, write_tokenizer
from tests.convert.checkpoints_newer import north, north_shared
from tests.convert.forward_newer import north_head
from tests.convert.native import head_rows, target_rows
from tests.convert.test_families import PROMPT
from tests.convert.test_heads_forward import close

CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
START = r"[^\r\n\p{L}\p{N}]?"
WORDS = (
    rf"{START}{UPPER}*{LOWER}+{CASES}|{START}{UPPER}+{LOWER}*{CASES}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS = r"\d{1,3}(?=(?:\d{3})*\b)"


def planned(tiny: Tiny, folder: Path) -> Plan:
    checkpoint = open_checkpoint(write_checkpoint(folder, tiny))
    return plan_checkpoint(checkpoint, Options(outtype="f32"))


def test_shared_experts_and_root_mean_squares(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write(planned(north_shared(), tmp_path / "x"), path)
    _, hidden = target_rows(path, PROMPT)
    found, _ = head_rows(path, PROMPT[1:], hidden[:-1])
    close(found, north_head(north_shared(), PROMPT[1:], hidden[:-1]))


def test_layers_by_two_patterns_where_no_list_says(tmp_path: Path) -> None:
    """As transformers numbers them: the dense ones for themselves, then the rest from one on."""
    tiny = north()
    del tiny.config["layer_types"]
    tiny.config["sliding_window_pattern"] = 3
    pattern = planned(tiny, tmp_path / "x").metadata["cohere2moe.attention.sliding_window_pattern"]
    assert list(pattern.value) == [False, True, True, False]


def test_its_rules_for_words_have_a_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", north())
    write_tokenizer(folder, DIGITS, WORDS)
    plan = plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))
    assert plan.metadata["tokenizer.ggml.pre"].value == "cohere2moe"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"expert_selection_fn": "tanh"}, "expert_selection_fn: tanh: expected softmax or sigmoid"),
        ({"expert_selection_fn": "softmax"}, "softmax of the chosen experts, which llama.cpp's"),
        (
            {"shared_expert_combination_strategy": "sum", "num_shared_experts": 1},
            "shared_expert_combination_strategy: llama.cpp's graph has the average only",
        ),
        (
            {"prefix_dense_sliding_window_pattern": 2},
            "prefix_dense_sliding_window_pattern: llama.cpp gives every dense layer positions",
        ),
        ({"num_shared_experts": 1}, "shared_experts.gate_proj.weight is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling: yarn"),
    ],
)
def test_what_the_graph_does_not_compute(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tiny = north()
    tiny.config |= changed
    with pytest.raises(MtpError) as error:
        planned(tiny, tmp_path / "x")
    assert said in str(error.value)
