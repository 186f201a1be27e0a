"""config.json, the tokenizer's files, generation_config.json and the model card, with anything in
them: a file or one MtpError comes out, never anything else.

Bounded, and derandomized so that a run is a run; MTP_FUZZ multiplies the examples.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.inspect import inspect_lines
from tests.convert.checkpoints import write_checkpoint
from tests.convert.conftest import ALL
from tests.convert.test_characters import PREPEND, data_of, merges_of, pieces

FAMILIES = ("llama", "qwen35", "glm4moe", "deepseek3", "mimo2", "step35", "nemotron_h", "gemma4",
            "gemma4_assistant")  # fmt: skip
BOUNDED = settings(
    max_examples=120 * int(os.environ.get("MTP_FUZZ", "1")),
    deadline=None,
    derandomize="MTP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "yarn", "linear", "longrope", "llama3", "dynamic", "mrope", "fp8", "gptq",
                     "compressed-tensors", "full_attention", "sparse", "ME*E", "1,2", "\ud800",
                     "http://huggingface.co/a/b", "org/Model-7b1-Chat-v0.2", "a//b", "-", "x/"]),
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), TEXTS, st.floats(), st.integers(-2, 70),
    st.integers(-(1 << 70), 1 << 70),
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(TEXTS, st.sampled_from(["content", "rope_type", "factor"])),
                        inner, max_size=4),
    ),
    max_leaves=8,
)  # fmt: skip

# Keys that a reader of ours or gguf-py's looks for, beside those a file has.
KEYS: dict[str, tuple[str, ...]] = {
    "config.json": (
        "rope_scaling", "rope_parameters", "quantization_config", "compression_config",
        "text_config", "layer_types", "mlp_layer_types", "layers_block_type", "eos_token_id",
        "pad_token_id", "_name_or_path", "num_hidden_layers", "architectures", "head_dim",
        "per_layer_config", "moe_layers_enum", "sliding_window_size", "swa_num_key_value_heads",
        "partial_rotary_factor", "original_max_position_embeddings", "yarn_only_types",
    ),
    "tokenizer_config.json": (
        "chat_template", "bos_token", "eos_token", "add_bos_token", "added_tokens_decoder",
        "add_prefix_space", "unk_token",
    ),
    "generation_config.json": (
        "eos_token_id", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
        "suppress_tokens", "sequence", "mirostat", "xtc_probability", "penalty_last_n",
    ),
    "tokenizer.json": ("added_tokens", "model", "pre_tokenizer", "normalizer", "post_processor"),
    "special_tokens_map.json": ("bos_token", "eos_token", "pad_token"),
    "quantize_config.json": ("bits", "quant_method"),
    "model.safetensors.index.json": ("weight_map",),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("fuzzed")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            write_checkpoint(root / name, ALL[name][0]())
        return root / name

    return folder


def read_all(folder: Path) -> None:
    """All that inspect and convert make of a folder before they write."""
    for part in ("all", "target", "heads"):
        with contextlib.suppress(MtpError):
            plan = plan_checkpoint(open_checkpoint(folder), Options(part))
            assert plan.header()
    with contextlib.suppress(MtpError):
        assert list(inspect_lines(folder))


@contextlib.contextmanager
def written(folder: Path, name: str, content: bytes) -> Any:
    """A file of the folder with other content, for a while."""
    file = folder / name
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A value with one place in it replaced: path chooses among its children, level by level."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed(value[key], path[1:], new)
    return copy


def fuzz(data: st.DataObject, folder: Path, name: str) -> None:
    found = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    for _ in range(data.draw(st.integers(1, 3))):
        new = data.draw(ANYTHING)
        if data.draw(st.booleans()):
            found = {**found, data.draw(st.sampled_from(KEYS[name])): new}
        else:
            path = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=5))
            found = changed(found, path, new)
            found = found if isinstance(found, dict) else {}
    with written(folder, name, json.dumps(found).encode()):
        read_all(folder)


@pytest.mark.parametrize("family", FAMILIES)
@BOUNDED
@given(data=st.data())
def test_config_json(family: str, data: st.DataObject, folders: Callable[[str], Path]) -> None:
    fuzz(data, folders(family), "config.json")


@pytest.mark.parametrize("name", [name for name in KEYS if name != "config.json"])
@pytest.mark.parametrize("family", ["llama", "gemma4"])
@BOUNDED
@given(data=st.data())
def test_other_json(
    family: str, name: str, data: st.DataObject, folders: Callable[[str], Path]
) -> None:
    fuzz(data, folders(family), name)


@BOUNDED
@given(data=st.data())
def test_a_tokenizer_json_of_sentencepieces_kind(
    data: st.DataObject, folders: Callable[[str], Path]
) -> None:
    folder = folders("smollm")
    vocabulary = pieces()
    assert PREPEND
    content = json.dumps(data_of(merges_of(vocabulary), vocabulary)).encode()
    with written(folder, "tokenizer.json", content):
        fuzz(data, folder, "tokenizer.json")


CARD_KEYS = st.sampled_from(
    ["name", "author", "version", "license", "license_name", "tags", "language", "languages",
     "pipeline_tag", "base_model", "base_models", "datasets", "model_name", "model_creator", "url",
     "size_label", "finetune", "basename"]
)  # fmt: skip


@BOUNDED
@given(card=st.dictionaries(CARD_KEYS, ANYTHING, max_size=5))
def test_a_model_card(card: dict[str, Any], folders: Callable[[str], Path]) -> None:
    """JSON is YAML, but for what only one of them can spell."""
    text = f"---\n{json.dumps(card)}\n---\n# Title\n"
    with written(folders("llama"), "README.md", text.encode("utf-8", "surrogatepass")):
        read_all(folders("llama"))


YAML = st.sampled_from(
    ["a: b: c", "- x", "tags:", "- 2024-01-01", "- 2024-13-45", "- no", "- 1:60", "- 0x", "- .inf",
     "- !!bool x", "- !!timestamp x", "- !!int ''", "- !!python/object:os.system x", "? [a]: b",
     "name: 3.5", "license: [mit, ~, 3]", "base_model: {a: b}", "base_model: &a [*a]", "- &a [*a]",
     "datasets:", "language: no", "\tname: x", "name: |", "  more", "%YAML 9.9", "...", "--- x",
     "name: \"\\ud800\"", "author: {", "\x00", "\ufeff", "model_name: 2024-01-01T00:00:00Z"]
)  # fmt: skip


@BOUNDED
@given(lines=st.lists(YAML, max_size=8), garbage=st.binary(max_size=20))
def test_a_model_card_as_people_write_it(
    lines: list[str], garbage: bytes, folders: Callable[[str], Path]
) -> None:
    text = "\n".join(["---", *lines, "---", ""]).encode() + garbage
    with written(folders("llama"), "README.md", text):
        read_all(folders("llama"))
