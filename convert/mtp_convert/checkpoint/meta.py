"""Meta's own checkpoint folders: params.json beside one file of weights, no config.json.

Owns finding the files and saying what params.json says in config.json's words, so that families
read one kind of config. Knows nothing of the weights' names beyond the two whose shapes params.json
leaves out. The weights are a .pth file as published, or safetensors saved from it; the tokenizer
lies beside them or, as published, in the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.pth import read_pth
from mtp_convert.checkpoint.shard import TensorEntry, read_header

PARAMS = "params.json"
CLASS = "Transformer"  # the class in Meta's llama/model.py
_TOKENIZER = "tokenizer.model"
_N_CTX = 4096  # what Llama 2 and the multi-token prediction models were trained with
_MISTRALS = ("hidden_dim", "head_dim")  # params.json of theirs looks like Meta's but for these
_SHAPES = {
    "vocab_size": "tok_embeddings.weight",
    "intermediate_size": "layers.0.feed_forward.w1.weight",
}


def is_meta_folder(folder: Path) -> bool:
    return (folder / PARAMS).is_file() and not (folder / "config.json").exists()


def read_weights(folder: Path) -> dict[str, TensorEntry]:
    """The tensors of the folder's one file of weights."""
    files = sorted([*folder.glob("*.safetensors")]) or sorted(folder.glob("*.pth"))
    if not files:
        raise MtpError(f"{folder}: holds {PARAMS} and neither a .pth nor a .safetensors file")
    if len(files) > 1:
        raise MtpError(
            f"{folder}: {len(files)} files of weights, {files[0].name} and others; models that "
            "are split among devices cannot be converted"
        )
    return read_header(files[0]) if files[0].suffix == ".safetensors" else read_pth(files[0])


def tokenizer_folder(folder: Path) -> Path:
    above = folder.resolve().parent
    is_above = not (folder / _TOKENIZER).exists() and (above / _TOKENIZER).exists()
    return above if is_above else folder


def config_of(
    params: Mapping[str, Any], tensors: Mapping[str, TensorEntry], where: Path
) -> dict[str, Any]:
    """params.json in config.json's words; sizes it leaves out are read from the tensors' shapes.

    n_layers counts the extra heads: `layers.*` are n_layers - n_future_tokens + 1, the last of
    them the head of the next token (Gloeckle et al. 2024, llama/model.py).
    """
    of_mistral = [key for key in _MISTRALS if key in params]
    if of_mistral:
        raise MtpError(
            f"{where}: {of_mistral[0]}: Mistral's own layout; expected Meta's, or Hugging Face's, "
            "with a config.json"
        )
    n_future, n_all = params.get("n_future_tokens", 1), params.get("n_layers")
    if type(n_future) is not int or type(n_all) is not int or not 1 <= n_future <= n_all:
        raise MtpError(
            f"{where}: n_layers {str(n_all)[:20]}, n_future_tokens {str(n_future)[:20]}: expected "
            "two counts, the second at least one and not the larger"
        )
    for key in ("dim", "n_heads"):
        if type(params.get(key)) is not int or params[key] < 1:
            raise MtpError(f"{where}: {key}: expected a count, found {str(params.get(key))[:20]}")
    sizes = {}
    for key, name in _SHAPES.items():
        if name not in tensors or len(tensors[name].shape) != 2:
            raise MtpError(f"{where.parent}: {name} is missing, or no matrix")
        sizes[key] = tensors[name].shape[0]
    return {
        "architectures": [CLASS],
        "hidden_size": params.get("dim"),
        "num_hidden_layers": n_all - n_future + 1,
        "num_attention_heads": params.get("n_heads"),
        "num_key_value_heads": params.get("n_kv_heads"),
        "rms_norm_eps": params.get("norm_eps", 1e-5),
        "rope_theta": params.get("rope_theta", 10000.0),
        "max_position_embeddings": params.get("max_seq_len", _N_CTX),
        "num_extra_heads": n_future - 1,
        "use_scaled_rope": params.get("use_scaled_rope"),
        **sizes,
    }
