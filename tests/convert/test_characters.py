"""A SentencePiece model that only its tokenizer.json is left of: the same ids as by its merges."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import N_VOCAB, smollm, write_checkpoint

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>"]
LETTERS = [SPACE, *"abcd"]
PREPEND = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]}  # fmt: skip


def pieces() -> list[str]:
    """Random pieces, the best first, each of two that were there before it."""
    random, found = np.random.default_rng(4), list(LETTERS)
    while len(found) < len(LETTERS) + 40:
        left, right = random.choice(found, 2)
        if left + right not in found and len(left + right) < 6:
            found.append(left + right)
    return found


def merges_of(pieces: list[str]) -> list[tuple[str, str]]:
    """As transformers writes them: every way to make a piece, pieces in order."""
    return [
        (piece[:i], piece[i:])
        for piece in pieces
        for i in range(1, len(piece))
        if piece[:i] in pieces and piece[i:] in pieces
    ]


def data_of(merges: list[tuple[str, str]], vocabulary: list[str]) -> dict[str, Any]:
    texts = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *vocabulary]
    added = [{"id": i, "content": text, "special": True} for i, text in enumerate(SPECIAL)]
    return {
        "version": "1.0", "added_tokens": added, "normalizer": PREPEND, "pre_tokenizer": None,
        "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>",
                  "vocab": {text: i for i, text in enumerate(texts)},
                  "merges": [list(merge) for merge in merges]},
    }  # fmt: skip


def folder_of(tmp_path: Path, data: dict[str, Any], **config: Any) -> Path:
    folder = write_checkpoint(tmp_path / "x", smollm(), tokenizer=False)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def converted(folder: Path, out: Path) -> Path:
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="f32")), out)
    return out


def by_merges(text: str, ranks: dict[tuple[str, str], int], ids: dict[str, int]) -> Iterator[int]:
    """The definition of BPE: the best merge first, and of equal ones the leftmost."""
    parts = list(text)
    while True:
        pairs = enumerate(itertools.pairwise(parts))
        found = [(ranks[pair], i) for i, pair in pairs if pair in ranks]
        if not found:
            break
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    for part in parts:
        if part in ids:
            yield ids[part]
        else:
            yield from (ids[f"<0x{byte:02X}>"] for byte in part.encode())


def test_the_same_ids_as_by_merges(tmp_path: Path) -> None:
    merges = merges_of(pieces())
    data = data_of(merges, pieces())
    ranks, ids = {merge: i for i, merge in enumerate(merges)}, data["model"]["vocab"]
    model = Model(converted(folder_of(tmp_path, data), tmp_path / "x.gguf"), n_gpu_layers=0,
                  no_alloc=True)  # fmt: skip
    random = np.random.default_rng(1)
    for n in random.integers(1, 30, 200).tolist():
        text = "".join(random.choice([" ", *"aabbccddx\u00e9"], n))
        wanted = list(by_merges(SPACE + text.replace(" ", SPACE), ranks, ids))
        assert model.tokenize(text, add_special=False, parse_special=False) == wanted, text
    model.close()


def test_roles_without_a_tokenizer_config(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, data_of(merges_of(pieces()), pieces()))
    metadata = plan_checkpoint(open_checkpoint(folder), Options()).metadata
    assert metadata["tokenizer.ggml.model"].value == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"].value is True
    roles = [
        metadata[f"tokenizer.ggml.{role}_token_id"].value for role in ("unknown", "bos", "eos")
    ]
    assert roles == [0, 1, 2]
    assert len(metadata["tokenizer.ggml.tokens"].value) == N_VOCAB


@pytest.mark.parametrize(("scheme", "adds"), [("first", True), ("always", True), ("never", False)])
def test_the_newer_form_of_the_space_in_front(tmp_path: Path, scheme: str, adds: bool) -> None:
    data = data_of(merges_of(pieces()), pieces())
    data["normalizer"] = None
    data["pre_tokenizer"] = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme,
                             "split": False}  # fmt: skip
    metadata = plan_checkpoint(open_checkpoint(folder_of(tmp_path, data)), Options()).metadata
    assert metadata["tokenizer.ggml.add_space_prefix"].value is adds


def test_merges_that_scores_cannot_say_are_refused(tmp_path: Path) -> None:
    merges = [("a", "b"), ("b", "c"), ("ab", "c")]  # SentencePiece would also join a and bc
    folder = folder_of(tmp_path, data_of(merges, [*LETTERS, "ab", "bc", "abc"]))
    with pytest.raises(MtpError, match=r"'abc' is never merged from 'a' and 'bc'.*\.model"):
        plan_checkpoint(open_checkpoint(folder), Options())


def test_merges_of_one_piece_that_lie_apart_are_refused(tmp_path: Path) -> None:
    merges = [("a", "bc"), ("b", "c"), ("a", "b"), ("ab", "c")]
    folder = folder_of(tmp_path, data_of(merges, [*LETTERS, "ab", "bc", "abc"]))
    with pytest.raises(MtpError, match="merges of 'abc' lie apart"):
        plan_checkpoint(open_checkpoint(folder), Options())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "a normalizer of the kind NFKC"),
        ({"pre_tokenizer": {"type": "Metaspace", "split": True}}, "of the kind Metaspace"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "of the kind Whitespace"),
    ],
)
def test_other_tokenizers_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = folder_of(tmp_path, data_of(merges_of(pieces()), pieces()) | changes)
    with pytest.raises(MtpError, match=message):
        plan_checkpoint(open_checkpoint(folder), Options())
