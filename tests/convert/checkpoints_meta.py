"""A tiny multi-token prediction model in Meta's own layout: params.json and one .pth file.

Owns a writer of torch.save's format (zip and pickle instructions by hand, no PyTorch), so that the
converter's reader is tested against something independent. Knows nothing of the converter.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.convert.checkpoints import N_VOCAB, Array, Tiny, raw_bytes, write_shard

DIM, N_HEAD, N_KV, FF, N_LAYERS, N_FUTURE = 64, 4, 2, 96, 6, 4
PARAMS = {
    "dim": DIM, "n_layers": N_LAYERS, "n_heads": N_HEAD, "n_kv_heads": N_KV, "norm_eps": 1e-5,
    "multiple_of": 32, "vocab_size": -1, "n_future_tokens": N_FUTURE, "rope_theta": 10000.0,
}  # fmt: skip
_STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}


def gloeckle(n_extra: int = N_FUTURE - 1) -> Tiny:
    """layers.* with the next token's head as the last, and n_extra heads beside that one."""
    tiny = Tiny(dict(PARAMS))
    tiny.matrix("tok_embeddings.weight", N_VOCAB, DIM, scale=3.0)
    tiny.norm("norm.weight", DIM)
    tiny.matrix("output.weight", N_VOCAB, DIM, scale=3.0)
    tiny.tensors["output.weight"][:3] = 0  # no control token, which would end an answer
    n_layers = N_LAYERS - N_FUTURE + 1
    for layer in [*(f"layers.{i}" for i in range(n_layers)),
                  *(f"extra_heads.{i}" for i in range(n_extra))]:  # fmt: skip
        tiny.norm(layer + ".attention_norm.weight", DIM)
        tiny.norm(layer + ".ffn_norm.weight", DIM)
        tiny.matrix(layer + ".attention.wq.weight", DIM, DIM)
        tiny.matrix(layer + ".attention.wk.weight", N_KV * DIM // N_HEAD, DIM)
        tiny.matrix(layer + ".attention.wv.weight", N_KV * DIM // N_HEAD, DIM)
        tiny.matrix(layer + ".attention.wo.weight", DIM, DIM)
        tiny.matrix(layer + ".feed_forward.w1.weight", FF, DIM)
        tiny.matrix(layer + ".feed_forward.w2.weight", DIM, FF)
        tiny.matrix(layer + ".feed_forward.w3.weight", FF, DIM)
    return tiny


def write_meta_checkpoint(folder: Path, tiny: Tiny, *, safetensors: bool = False) -> Path:
    """The folder as published, or with the weights saved again as safetensors.

    The tokenizer lies in the folder above, where all models share it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_sentencepiece(folder.parent / "tokenizer.model")
    (folder / "params.json").write_text(json.dumps(tiny.config))
    if safetensors:
        write_shard(folder / "model.safetensors", tiny.tensors, tiny.formats)
    else:
        write_pth(folder / "consolidated.pth", tiny.tensors, tiny.formats)
    return folder


def write_pth(file: Path, tensors: Mapping[str, Array], formats: Mapping[str, str]) -> None:
    """What torch.save writes of a state dict."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("consolidated/data.pkl", state_dict(tensors, formats))
        archive.writestr("consolidated/byteorder", "little")
        for key, (name, values) in enumerate(tensors.items()):
            archive.writestr(f"consolidated/data/{key}", raw_bytes(values, formats[name]))
        archive.writestr("consolidated/version", "3\n")


def state_dict(tensors: Mapping[str, Array], formats: Mapping[str, str]) -> bytes:
    """The pickle of an OrderedDict of names and tensors, in protocol 2."""
    parts = [b"\x80\x02", called("collections", "OrderedDict", b")"), b"q\x00("]
    for key, (name, values) in enumerate(tensors.items()):
        parts += [text(name), tensor(values.shape, _STORAGES[formats[name]], str(key))]
    # The dict's own attribute: the versions of the modules, which nobody needs here.
    versions = [text("_metadata"), called("collections", "OrderedDict", b")")]
    return b"".join([*parts, b"u", b"}", *versions, b"s", b"b", b"."])


def tensor(shape: tuple[int, ...], storage: str, key: str, offset: int = 0) -> bytes:
    n_items, strides = 1, []
    for n in reversed(shape):
        strides.append(n_items)
        n_items *= n
    place = [text("storage"), b"ctorch\n" + storage.encode() + b"\n", text(key), text("cpu")]
    arguments = [
        b"(", *place, integer(n_items), b"tQ", integer(offset), sizes(shape),
        sizes(tuple(reversed(strides))), b"\x89", called("collections", "OrderedDict", b")"),
    ]  # fmt: skip
    return called("torch._utils", "_rebuild_tensor_v2", b"(" + b"".join(arguments) + b"t")


def called(module: str, name: str, arguments: bytes) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n" + arguments + b"R"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def write_sentencepiece(file: Path) -> None:
    """A tokenizer.model like Llama 2's: <unk>, <s>, </s>, the bytes, some pieces."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    words = ["\u2581", *map(chr, range(97, 123)), "th", "the", "in", "\u2581the"]
    words += [f"word{i}" for i in range(N_VOCAB - len(pieces) - len(words))]
    pieces += [(word, -float(i), 1) for i, word in enumerate(words)]
    file.write_bytes(b"".join(piece(*fields) for fields in pieces))


def piece(word: str, score: float, kind: int) -> bytes:
    """One entry of a SentencePiece model: its text, score and type."""
    raw = word.encode()
    fields = b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", score)
    fields += b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(fields)]) + fields
