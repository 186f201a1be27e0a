"""llama.cpp's error lines are told in words of ours, and one that is not known is quoted."""

from __future__ import annotations

import pytest

from mtp_cli.engine.backend.reasons import in_words

LOADING = "llama_model_load: error loading model: "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LOADING + "unknown model architecture: 'new'", "its architecture, new, is not one"),
        (
            LOADING + "error loading model vocabulary: unknown pre-tokenizer type: 'new'",
            "its pre-tokenizer, new, is not one",
        ),
        (
            LOADING + "error loading model hyperparameters: key not found in model: a.b",
            "a.b is missing in its header; get the file again",
        ),
        (LOADING + "missing tensor 'output_norm.weight'", "output_norm.weight is missing; get"),
        (
            LOADING + "check_tensor_dims: tensor 'a.weight' has wrong shape; "
            "expected 32, 2, got 32, 32, 1, 1",
            "a.weight: expected 32, 2, found 32, 32, 1, 1; get",
        ),
        (LOADING + "CLIP cannot be used as main model, use it", "it reads pictures"),
        (
            "llama_init_from_model: model does not support different K (q8_0) and V (f16) cache "
            "types",
            "it keeps both in one cache",
        ),
        ("ggml_backend_cpu: failed to allocate buffer of size 9", "not enough memory; a smaller"),
        ("decode: something else", "llama.cpp says: something else"),
    ],
)
def test_lines_become_words(line: str, words: str) -> None:
    assert in_words(line).startswith(words)
