"""Other layouts of Gemma 4: what transformers 5 saves, and keys that no layer reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import EMBD, N_KV, Tiny, write_checkpoint
from tests.convert.checkpoints_gemma4 import (
    WIDTHS,
    F,
    gemma4,
    gemma4_assistant,
    gemma4_e2b,
    gemma4_moe,
    gemma4_unified,
)
from tests.convert.native import target_rows
from tests.convert.test_families import PROMPT, generate


def converted(tiny: Tiny, folder: Path) -> Path:
    checkpoint = open_checkpoint(write_checkpoint(folder, tiny))
    write(plan_checkpoint(checkpoint, Options(outtype="f32", name="same")), folder / "x.gguf")
    return folder / "x.gguf"


@pytest.mark.parametrize("build", [gemma4, gemma4_e2b, gemma4_moe])
def test_what_full_attention_has_instead_as_entries_by_layer(
    build: Callable[[], Tiny], tmp_path: Path
) -> None:
    """transformers 5 writes no global_head_dim, but what differs in each layer."""
    old, new = build(), build()
    own = {"head_dim": new.config.pop("global_head_dim")}
    n_kv = new.config.pop("num_global_key_value_heads")
    if n_kv is not None:
        own["num_key_value_heads"] = n_kv
    kinds = new.config["layer_types"]
    new.config["per_layer_config"] = {str(i): own for i, kind in enumerate(kinds) if kind == F}
    files = converted(old, tmp_path / "old"), converted(new, tmp_path / "new")
    assert files[0].read_bytes() == files[1].read_bytes()


def renamed(tiny: Tiny, architecture: str) -> Tiny:
    tiny.config["architectures"] = [architecture]
    return tiny


def test_an_assistant_of_the_unified_model_is_like_any_other(tmp_path: Path) -> None:
    other = renamed(gemma4_assistant(), "Gemma4UnifiedAssistantForCausalLM")
    files = converted(gemma4_assistant(), tmp_path / "a"), converted(other, tmp_path / "b")
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_the_unified_model_never_says(tmp_path: Path) -> None:
    before, _ = generate(converted(gemma4_unified(), tmp_path / "x"), 0)
    config = tmp_path / "x" / "generation_config.json"
    config.write_text(f'{{"suppress_tokens": [{before[3]}]}}')
    quiet = converted(gemma4_unified(), tmp_path / "x")
    key = "tokenizer.ggml.suppress_tokens"
    assert GGUFReader(quiet).fields[key].contents() == [before[3]]
    after, _ = generate(quiet, 0)
    assert len(after) == len(before)
    assert before[3] not in after
    write_checkpoint(tmp_path / "x", renamed(gemma4(), "Gemma4ForCausalLM"))
    plan = plan_checkpoint(open_checkpoint(tmp_path / "x"), Options())
    assert key not in plan.metadata  # llama.cpp's converter knows it of the unified model only


@pytest.mark.parametrize("ids", ["[320]", "[-1]", '["x"]', "[true]", "3"])
def test_suppressed_tokens_that_are_no_ids(ids: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", gemma4_unified())
    (folder / "generation_config.json").write_text(f'{{"suppress_tokens": {ids}}}')
    with pytest.raises(MtpError, match=r"expected ids below 320|of an unexpected kind"):
        plan_checkpoint(open_checkpoint(folder), Options())


def test_keys_of_layers_that_read_anothers(tmp_path: Path) -> None:
    """The published small models ship them; they are kept, as llama.cpp keeps them, and unread."""
    lean, full = gemma4_e2b(), gemma4_e2b()
    for i in (3, 4, 5):
        width = WIDTHS[full.config["layer_types"][i]]
        a = f"model.layers.{i}.self_attn."
        full.matrix(a + "k_proj.weight", N_KV * width, EMBD)
        full.matrix(a + "v_proj.weight", N_KV * width, EMBD)
        full.norm(a + "k_norm.weight", width)
    files = converted(lean, tmp_path / "lean"), converted(full, tmp_path / "full")
    n_tensors = [len(GGUFReader(file).tensors) for file in files]
    assert n_tensors[1] == n_tensors[0] + 9
    rows = [target_rows(file, PROMPT, nextn=False)[0] for file in files]
    np.testing.assert_array_equal(rows[0], rows[1])
