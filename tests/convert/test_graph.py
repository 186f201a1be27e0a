"""What a config asks of the graph beside positions: activations, windows, an output of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from tests.convert import checkpoints, checkpoints_gemma4, checkpoints_more
from tests.convert.checkpoints import Tiny, write_checkpoint

Change = Callable[[Tiny], None]


def planned(folder: Path, tiny: Tiny, **config: Any) -> Plan:
    tiny.config |= config
    write_checkpoint(folder / "tiny", tiny)
    return plan_checkpoint(open_checkpoint(folder / "tiny"), Options(outtype="f32"))


@pytest.mark.parametrize(
    ("build", "key", "other", "own"),
    [
        (checkpoints.llama, "hidden_act", "gelu", "silu"),
        (checkpoints.qwen3, "hidden_act", "relu2", "silu"),
        (checkpoints_more.nemotron_h, "mlp_hidden_act", "silu", "relu2"),
        (checkpoints_gemma4.gemma4, "hidden_activation", "gelu", "gelu_pytorch_tanh"),
    ],
)
def test_an_activation_that_the_graph_does_not_compute_is_refused(
    build: Callable[[], Tiny], key: str, other: str, own: str, tmp_path: Path
) -> None:
    planned(tmp_path, build(), **{key: own})
    with pytest.raises(MtpError, match=f"{key}: {other}: llama.cpp computes .*{own}"):
        planned(tmp_path, build(), **{key: other})


@pytest.mark.parametrize(
    ("config", "n_ctx"),
    [
        ({"sliding_window": 128}, 128),
        ({"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 1}, 128),
        ({"sliding_window": 128, "layer_types": ["full_attention", "sliding_attention"] * 2}, 128),
        ({"sliding_window": None}, 512),
        ({"sliding_window": 512}, 512),
        ({"sliding_window": 128, "use_sliding_window": False}, 512),
        ({"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 3}, 512),
        ({"sliding_window": 128, "layer_types": ["full_attention"] * 3}, 512),
    ],
)
def test_a_window_that_the_graph_lacks_ends_the_context(
    config: dict[str, Any], n_ctx: int, tmp_path: Path
) -> None:
    """Beyond it all tokens would be seen, as in no training."""
    plan = planned(tmp_path, checkpoints.mistral(), **config)
    assert plan.metadata["llama.context_length"].value == n_ctx
    assert [note for note in plan.notes if "sliding_window" in note] == (
        []
        if n_ctx == 512
        else [
            "sliding_window: llama.cpp has none for Llama: its context becomes 128 tokens, within "
            "which the model is computed as it was trained"
        ]
    )


def alike(tiny: Tiny) -> None:
    tiny.tensors["lm_head.weight"] = tiny.tensors["model.embed_tokens.weight"]


def other(tiny: Tiny) -> None:
    """As it is: random."""


def without(tiny: Tiny) -> None:
    del tiny.tensors["lm_head.weight"]


@pytest.mark.parametrize(
    ("is_tied", "change", "said"),
    [
        (True, other, "lm_head.weight differs from it and is taken, as transformers 5 does"),
        (False, without, "no shard lm_head.weight: the embedding is taken"),
        (True, alike, ""),
        (True, without, ""),
        (False, other, ""),
    ],
)
def test_an_output_that_is_another_than_config_json_says_is_noted(
    is_tied: bool, change: Change, said: str, tmp_path: Path
) -> None:
    tiny = checkpoints.qwen3()
    change(tiny)
    plan = planned(tmp_path, tiny, tie_word_embeddings=is_tied)
    assert len(plan.notes) == bool(said)
    assert said in "".join(plan.notes)
    names = [tensor.name for tensor in plan.tensors]
    assert ("output.weight" in names) == ("lm_head.weight" in tiny.tensors)
    embedding = tiny.tensors["model.embed_tokens.weight"]
    assert np.array_equal(embedding, tiny.tensors.get("lm_head.weight", embedding)) == (
        change is not other
    )
