"""What names of GGUFs say, and which file of a repository is taken."""

from __future__ import annotations

import pytest

from mtp_cli.paths import parts

REPOSITORY = [
    "BF16/big-BF16-00001-of-00002.gguf",
    "BF16/big-BF16-00002-of-00002.gguf",
    "README.md",
    "big-IQ4_XS.gguf",
    "big-Q4_K_M.gguf",
    "big-Q8_0.gguf",
    "big-UD-Q4_K_XL.gguf",
    "mmproj-F16.gguf",
    "mtp-big-Q4_K_M.gguf",
    "mtp-big-Q8_0.gguf",
]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen2.5-Coder-1.5B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("gemma-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-BF16-00001-of-00002.gguf", "BF16"),
        ("Q8_0/x-00001-of-00002.gguf", "Q8_0"),
        ("IQ3_XXS/x-IQ3_XXS.gguf", "IQ3_XXS"),
        ("model.gguf", ""),
        ("QwQ-32B.gguf", ""),
        ("IQ-test.gguf", ""),
    ],
)
def test_a_name_tells_the_quantization(name: str, quant: str) -> None:
    assert parts.quant(name) == quant


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("", "big-Q4_K_M.gguf"),
        ("q8_0", "big-Q8_0.gguf"),
        ("BF16", "BF16/big-BF16-00001-of-00002.gguf"),
        ("UD-Q4_K_XL", "big-UD-Q4_K_XL.gguf"),
        ("big-IQ4_XS.gguf", "big-IQ4_XS.gguf"),
        ("F16", None),
        ("Q4_K", None),
        ("nosuch.gguf", None),
    ],
)
def test_a_quantization_is_chosen_as_llama_cpp_does(wanted: str, chosen: str | None) -> None:
    assert parts.choose(REPOSITORY, wanted) == chosen


def test_without_the_preferred_ones_it_is_the_second_then_the_first() -> None:
    left = [name for name in REPOSITORY if "Q4_K_M" not in name]
    assert parts.choose(left, "") == "big-Q8_0.gguf"
    left = [name for name in left if "Q8_0" not in name]
    assert parts.choose(left, "") == "BF16/big-BF16-00001-of-00002.gguf"
    assert parts.choose(["README.md", "mmproj-F16.gguf", "mtp-big.gguf"], "") is None


def test_a_model_in_parts_is_all_of_them() -> None:
    first = "BF16/big-BF16-00001-of-00002.gguf"
    assert parts.parts(first) == REPOSITORY[:2]
    assert parts.parts("big.gguf") == ["big.gguf"]
    assert (parts.stem(first), parts.stem("big.gguf")) == ("big-BF16", "big")


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("big-Q8_0.gguf", "mtp-big-Q8_0.gguf"),
        ("big-Q4_K_M.gguf", "mtp-big-Q4_K_M.gguf"),
        ("big-UD-Q4_K_XL.gguf", "mtp-big-Q4_K_M.gguf"),
        ("BF16/big-BF16-00001-of-00002.gguf", "mtp-big-Q8_0.gguf"),
    ],
)
def test_the_head_beside_a_model_is_the_one_nearest_in_bits(model: str, head: str) -> None:
    assert parts.sidecar_for(REPOSITORY, model) == head


def test_a_head_in_the_models_folder_goes_before_one_above_it() -> None:
    names = ["a/mtp-x-F16.gguf", "b/mtp-x-Q8_0.gguf", "mtp-x-Q8_0.gguf"]
    assert parts.sidecar_for(names, "a/x-Q8_0.gguf") == "a/mtp-x-F16.gguf"
    assert parts.sidecar_for(names[1:2], "a/x-Q8_0.gguf") is None


def test_of_what_drafts_llama_cpps_first_kind_is_taken() -> None:
    names = ["eagle3-x-Q8_0.gguf", "dflash-x-Q8_0.gguf", "dspark-x.gguf", "a/mtp-x.gguf"]
    assert parts.sidecar_for(names, "x-Q8_0.gguf") == "dspark-x.gguf"
    assert parts.sidecar_for(names, "a/x-Q8_0.gguf") == "a/mtp-x.gguf"
    assert parts.sidecar_for(names[:2], "x-Q8_0.gguf") == "dflash-x-Q8_0.gguf"
    assert parts.sidecar_for(names[:1], "x-Q8_0.gguf") == "eagle3-x-Q8_0.gguf"
    assert not any(map(parts.is_model, [*names, "x-eagle3.gguf", "x-dspark.gguf"]))


def test_what_there_is_is_told_once() -> None:
    found = parts.quants(REPOSITORY)
    assert found == ["BF16", "IQ4_XS", "Q4_K_M", "Q8_0", "UD-Q4_K_XL"]
